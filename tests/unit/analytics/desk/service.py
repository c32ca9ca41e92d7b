"""A desk behind its front, in this process, over a real socket; and logs that mean something to it."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.front import Front
from analytics.attribution.desk.registry import Registry
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.engine import Rules

HEAD = "id\tcause\trole\taction_first\taction_repeat\tpattern\texample\tnote"
ROWS = (
    ("test_config", "config_error", "root", "STOP", "STOP", "unknown optimizer flux", "unknown optimizer flux"),
    ("test_net", "external_service", "root", "RESTART", "STOP", "lost license server", "lost license server"),
    ("test_ecc", "gpu_hardware", "root", "RESTART_ELSEWHERE", "RESTART_ELSEWHERE", "mem rows of gpu fell out",
     "mem rows of gpu fell out"),
)  # fmt: skip
"""Signatures of these tests alone: what they show does not hang on the table."""
STOPS = b"step 1\nstep 2\nValueError: unknown optimizer flux\n"
RESTARTS = b"step 1\nstep 2\nlost license server\n"
ELSEWHERE = b"step 1\nstep 2\nmem rows of gpu fell out\n"
WELL = b"step 1\nstep 2\nstep 3\n"
ITEM = {"raw_text", "auto_resume", "auto_resume_explanation", "attribution_text", "checkpoint_saved_flag", "action",
        "primary_issues", "secondary_issues"}  # fmt: skip
ANSWER = {"result", "status", "recommendation", "wl_restart", "wl_restart_count", "fr_dump_path", "fr_analysis"}


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Service:
    """Asks as a launcher does."""

    def __init__(self, session: aiohttp.ClientSession, desk: Desk, root: Path) -> None:
        self.session, self.desk, self.root = session, desk, root

    def log(self, name: str = "run.log", text: bytes = b"") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        return path

    async def post(self, path: Path | str, **fields: Any) -> Reply:
        return await self.request("POST", "/logs", json={"log_path": str(path), **fields})

    async def get(self, path: Path | str, **query: Any) -> Reply:
        params = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
        return await self.request("GET", "/logs", params={"log_path": str(path), **params})

    async def delete(self, path: Path | str) -> Reply:
        return await self.request("DELETE", "/logs", params={"log_path": str(path)})

    async def request(self, method: str, route: str, **more: Any) -> Reply:
        async with self.session.request(method, f"http://attrsvc{route}", **more) as response:
            text = await response.read()
            body = await response.json() if response.content_type == "application/json" else text
            return Reply(response.status, body, response.headers)

    async def stats(self) -> Any:
        return (await self.request("GET", "/stats")).body

    async def job(self, path: Path) -> Any:
        entries = (await self.request("GET", "/jobs")).body["entries"]
        return next(entry for entry in entries if entry["log_path"] == str(path))

    async def until_read(self, path: Path) -> Any:
        """Wait until all of a followed file is read. -> its progressive state."""
        size = len(await asyncio.to_thread(path.read_bytes))
        return await self.until(lambda: self._read(path, size), f"{size} bytes of {path} were not read")

    async def _read(self, path: Path, size: int) -> Any:
        state = (await self.job(path))["progressive"]
        return state if state["consumed_offset"] == size else None

    async def desk_says(self, path: Path, state: str) -> None:
        """Wait for a progressive state."""

        async def look() -> bool:
            return bool((await self.job(path))["progressive"]["state"] == state)

        await self.until(look, f"{path} did not become {state}")

    async def until_completed(self, path: Path) -> Any:
        """Poll as a launcher does. -> the answer."""

        async def completed() -> Any:
            reply = await self.get(path, wait=False)
            return reply.body if reply.status == 200 and reply.body["status"] == "completed" else None

        return await self.until(completed, f"no verdict on {path}")

    async def until(self, look: Callable[[], Awaitable[Any]], otherwise: str) -> Any:
        until_s = time.monotonic() + 60
        while not (found := await look()):
            assert time.monotonic() < until_s, otherwise
            await asyncio.sleep(0.01)
        return found


@functools.cache
def rules() -> Rules:
    """The table and these tests' rows before it; compiled once."""
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "rows.tsv"
        table.write_text("\n".join([HEAD, *("\t".join([*row, "a test's"]) for row in ROWS)]) + "\n")
        return Rules.load(table)


@asynccontextmanager
async def serving(
    tmp: Path, loopback: bool = False, state: Path | None = None, **settings: Any
) -> AsyncIterator[Service]:
    """`tmp/logs` is the root, and beside it what must not be read. `state`: where submissions outlive it."""
    root = tmp / "logs"
    root.mkdir(exist_ok=True)
    registry = Registry(state, paths_max=100) if state is not None else None
    desk = Desk(Root(root), rules(), DeskSettings(**{"poll_s": 0.02, **settings}), registry=registry)
    front = Front(desk, loopback=loopback)
    runner = web.AppRunner(front.app)
    await runner.setup()
    socket = tmp / "s"
    await web.UnixSite(runner, str(socket)).start()
    desk.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            yield Service(session, desk, root)
    finally:
        await runner.cleanup()
        await asyncio.to_thread(desk.close)
