"""Alerts reach a webhook and a command: signed, once, in order, tried again within bounds, and hold up nobody."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.service.alert_receivers import Receiver, receivers_of
from coordinator.service.alert_settings import AlertSettings
from coordinator.service.alerts import Alerts
from coordinator.service.delivery import Delivery

SECRET = b"a secret of thirty-two bytes 123"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is watched are another process's files and plain numbers
            await asyncio.sleep(0.005)


class Hook:
    """An HTTP server that remembers what was posted, and answers as the test says."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, Any], str, str, bytes]] = []
        self.answers: list[int] = []
        self.url = ""

    async def post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = request.headers
        self.posts.append(
            (
                msgspec.json.decode(body),
                headers.get("X-Coord-Signature", ""),
                headers.get("X-Coord-Delivery", ""),
                body,
            )
        )
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": self.url + "/elsewhere"} if status == 302 else None)


@asynccontextmanager
async def a_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/{tail:.*}", hook.post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield hook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def delivered(settings: AlertSettings) -> AsyncIterator[tuple[Alerts, Delivery]]:
    """Alerts whose changes are delivered while the block lasts."""
    alerts, delivery = (
        Alerts(lambda: 1_800_000_000_000),
        Delivery(receivers_of(settings, os.environ), settings, "c-test"),
    )
    alerts.tell(delivery.on_change)
    task = asyncio.ensure_future(delivery.run())
    try:
        yield alerts, delivery
    finally:
        task.cancel()
        await asyncio.wait((task,))


def with_hook(test: Callable[[Hook], Awaitable[None]]) -> None:
    async def main() -> None:
        async with a_hook() as hook, asyncio.timeout(60):
            await test(hook)

    asyncio.run(main())


def test_the_beginning_and_the_end_are_posted_once_each_and_signed(tmp_path: Path) -> None:
    """Repeats in between are folded; the signature is of the very bytes that came."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o600)

    async def test(hook: Hook) -> None:
        async with delivered(AlertSettings(webhook=hook.url, webhook_secret=secret)) as (alerts, _):
            alerts.fire("disk", "store", "no room")
            alerts.fire("disk", "store", "still no room")
            alerts.resolve("disk", "store")
            await until(lambda: len(hook.posts) == 2)
        assert [(p["status"], p["kind"], p["subject"], p["count"]) for p, *_ in hook.posts] == [
            ("firing", "disk", "store", 1),
            ("resolved", "disk", "store", 2),
        ]
        for _, signature, _, body in hook.posts:
            assert signature == "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        assert hook.posts[1][0]["resolved_at"] and hook.posts[0][0]["hint"]

    with_hook(test)


def test_a_receiver_that_fails_is_tried_again_with_the_same_id_and_then_given_up() -> None:
    """5xx and 429 are tried again; what was refused for good is not; the next delivery has its own tries."""

    async def test(hook: Hook) -> None:
        hook.answers = [500, 429, 204, 500, 500, 500, 404]
        async with delivered(AlertSettings(webhook=hook.url, tries=3, retry_s=0.01)) as (alerts, delivery):
            alerts.fire("disk", "store", "first")
            alerts.resolve("disk", "store")
            alerts.fire("clock_jump", "coordinator", "second")
            counters = delivery.counters()["webhook"]
            await until(lambda: counters.delivered + counters.failed == 3)
            assert (counters.delivered, counters.retried, counters.failed) == (1, 4, 2)
        ids = [delivery_id for _, _, delivery_id, _ in hook.posts]
        assert ids[0] == ids[1] == ids[2] and ids[3] == ids[4] == ids[5] and len(set(ids)) == 3

    with_hook(test)


def test_a_redirect_is_not_followed() -> None:
    """What was configured is what is called."""

    async def test(hook: Hook) -> None:
        hook.answers = [302]
        async with delivered(AlertSettings(webhook=hook.url, tries=3, retry_s=0.01)) as (alerts, delivery):
            alerts.fire("disk", "store", "x")
            await until(lambda: delivery.counters()["webhook"].failed == 1)
        assert len(hook.posts) == 1

    with_hook(test)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://a..b/", "http://127.0.0.1:99999/"])
def test_nobody_there_is_no_error_of_ours(url: str) -> None:
    """A refused connection, or a name that cannot be one, is a failed delivery, and alerts go on."""

    async def main() -> None:
        settings = AlertSettings(webhook=url, tries=2, retry_s=0.01)
        async with asyncio.timeout(60), delivered(settings) as (alerts, delivery):
            alerts.fire("disk", "store", "x")
            await until(lambda: delivery.counters()["webhook"].failed == 1)
            assert alerts.active()["disk"] == 1

    asyncio.run(main())


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    """A receiver that is away for hours costs a few kilobytes."""

    async def main() -> None:
        settings = AlertSettings(command=("/bin/true",), queue_max=5)
        delivery = Delivery(receivers_of(settings, os.environ), settings, "c-test")
        alerts = Alerts(lambda: 0)
        alerts.tell(delivery.on_change)
        for number in range(20):
            alerts.fire("duplicate_provider", f"p{number}", "x")
        assert delivery.waiting == 5
        assert delivery.counters()["command"].failed == 15

    asyncio.run(main())


def test_milder_alerts_are_not_delivered_where_only_critical_ones_are_wanted() -> None:
    async def test(hook: Hook) -> None:
        async with delivered(AlertSettings(webhook=hook.url, severity="critical")) as (alerts, delivery):
            alerts.fire("clock_jump", "coordinator", "a warning")
            alerts.fire("disk", "store", "critical")
            await until(lambda: delivery.counters()["webhook"].delivered == 1)
        assert [post["kind"] for post, *_ in hook.posts] == ["disk"]

    with_hook(test)


def test_a_command_gets_the_alert_on_its_standard_input_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell, no secrets of the coordinator's environment."""
    monkeypatch.setenv("COORD_TOKEN", "a secret")
    out = tmp_path / "out"
    script = f"import os, sys; open({str(out)!r}, 'w').write(sys.stdin.read() + repr(sorted(os.environ)))"

    async def main() -> None:
        settings = AlertSettings(command=(sys.executable, "-c", script))
        async with asyncio.timeout(60), delivered(settings) as (alerts, delivery):
            alerts.fire("disk", "store", "no room; $(reboot)")
            await until(lambda: delivery.counters()["command"].delivered == 1)

    asyncio.run(main())
    said = out.read_text()
    assert '"text":"no room; $(reboot)"' in said and "COORD_TOKEN" not in said and "COORD_DELIVERY" in said


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """After its time, so that the next alert is delivered; also when we stop meanwhile."""
    pids = tmp_path / "pids"
    hangs = ("/bin/sh", "-c", f"sleep 600 & echo $! $$ >> {pids}; wait")

    def alive() -> list[int]:
        found = [int(pid) for pid in pids.read_text().split()]
        return [pid for pid in found if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]

    async def main() -> None:
        async with asyncio.timeout(60):
            async with delivered(AlertSettings(command=hangs, timeout_s=0.2, tries=1)) as (alerts, delivery):
                alerts.fire("disk", "store", "x")
                await until(lambda: delivery.counters()["command"].failed == 1)
                await until(lambda: not alive())
            async with delivered(AlertSettings(command=hangs, timeout_s=60, tries=1)) as (alerts, delivery):
                alerts.fire("disk", "store", "x")
                await until(lambda: len(pids.read_text().split()) == 4)
            await until(lambda: not alive())

    asyncio.run(main())


def test_a_command_is_stopped_at_every_moment_of_its_start(tmp_path: Path) -> None:
    """Whenever we stop, before it is started, while it is, or after: none is left behind, and none unwaited for."""
    pids = tmp_path / "pids"
    hangs = ("/bin/sh", "-c", f"echo $$ >> {pids}; exec sleep 600")

    async def main() -> None:
        for after_ms in range(16):
            settings = AlertSettings(command=hangs, timeout_s=60, tries=1)
            async with asyncio.timeout(60), delivered(settings) as (alerts, _):
                alerts.fire("disk", "store", "x")
                await asyncio.sleep(after_ms / 2000)

    asyncio.run(main())
    gc.collect()
    assert not [child for child in psutil.Process().children() if child.name() in ("sh", "sleep")]


def test_a_command_that_cannot_be_started_is_a_failed_delivery() -> None:
    async def main() -> None:
        settings = AlertSettings(command=("/nonexistent/program",), tries=2, retry_s=0.01)
        async with asyncio.timeout(60), delivered(settings) as (alerts, delivery):
            alerts.fire("disk", "store", "x")
            await until(lambda: delivery.counters()["command"].failed == 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [
        AlertSettings(webhook="file:///etc/passwd"),
        AlertSettings(webhook="ftp://host/x"),
        AlertSettings(webhook="https://"),
        AlertSettings(webhook="http://[::1/"),
        AlertSettings(webhook="https://user:secret@host/x"),
        AlertSettings(webhook_secret=Path("/somewhere")),
        AlertSettings(webhook="https://host/x", webhook_secret=Path("/nonexistent/secret")),
        AlertSettings(severity="loud"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_the_start(settings: AlertSettings) -> None:
    with pytest.raises(CoordError) as caught:
        receivers_of(settings, os.environ)
    assert caught.value.code is Code.BAD_CONFIG


@pytest.mark.parametrize(("mode", "secret"), [(0o644, SECRET), (0o600, b"short")], ids=["others may read it", "short"])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, mode: int, secret: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(secret)
    path.chmod(mode)
    with pytest.raises(CoordError):
        receivers_of(AlertSettings(webhook="https://host/x", webhook_secret=path), {})


def test_nothing_configured_delivers_nothing() -> None:
    found: tuple[Receiver, ...] = receivers_of(AlertSettings(), {})
    assert found == ()
