"""A job of Ray, over the HTTP API that its head node serves (Ray Jobs): its record for states, its log as it is tailed.

`RAY_API_SERVER_ADDRESS` (or `RAY_ADDRESS`) and `RAY_JOB_HEADERS` are read as Ray's own command reads them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.launches.sightings import Ended, Pace, Past, Phase, Piece, Sighting, StateSeen

DEFAULT = "http://127.0.0.1:8265"
ANSWER_S = 15.0
ANSWER_BYTES_MAX = 4 << 20
"""Of one answer: a record quotes 20,000 characters of the log."""
MESSAGE_BYTES_MAX = 16 << 20
PIECES_MAX = 64
"""That were read and are not looked at yet: then the connection is not read."""
AGAIN_S = 1.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[ -~]{0,16384}")
_WAITS = "Job has not started yet."


Time = Annotated[int, Meta(ge=0, lt=253_402_300_800_000)]
"""Milliseconds, until the year 9999: what is shown has to be a date."""


class _Record(Struct):
    """Of the answer to GET /api/jobs/ID what is used here."""

    status: str
    message: str | None = None
    error_type: str | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    driver_exit_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None


class RayJob:
    """See sightings.Source. `job` is the submission id; `address` the dashboard's, like `http://head:8265`."""

    pace = Pace()

    def __init__(self, job: str, address: str, headers: Mapping[str, str]) -> None:
        if not _ID.fullmatch(job):
            raise CoordError(Code.BAD_REQUEST, f"{job!a} is no submission id of Ray", "like ray:raysubmit_kz1...")
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            port = parts.port
            good = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
        except ValueError:
            good = None
        if not good:
            raise CoordError(
                Code.BAD_REQUEST,
                f"{address!a} is no address of Ray's jobs",
                "name its dashboard in RAY_API_SERVER_ADDRESS, like http://127.0.0.1:8265",
            )
        self._job = job
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", port
        self._base = parts.path.rstrip("/")
        self._headers = dict(headers)
        self.ended_ms: Ms | None = None
        self._tail: _Tail | None = None

    @property
    def name(self) -> str:
        return f"ray job {self._job}"

    def past(self) -> Past:
        """Ray keeps no times of phases."""
        return Past()

    def look(self) -> Sequence[Sighting] | None:
        return None if self.ended_ms is not None else self._sightings()

    def record(self) -> Sequence[Sighting] | None:
        """Ray has one record for both: the fast path looks at it."""
        return None

    def read(self) -> Sequence[Piece] | None:
        over = self.ended_ms is not None
        if self._tail is None:
            scheme = "https" if self._secure else "http"
            port = f":{self._port}" if self._port else ""
            host = f"[{self._host}]" if ":" in self._host else self._host
            url = f"{scheme}://{host}{port}{self._base}/api/jobs/{self._job}/logs/tail"
            self._tail = _Tail(url, self._headers)
        self._tail.is_last = over
        pieces = [Piece(run="", stream=0, data=data) for data in self._tail.take()]
        return None if over and not pieces and self._tail.is_over else pieces

    def next_steps(self, running: bool) -> Sequence[str]:
        follow = " --follow" if running else ""
        return [f"ray job logs {self._job}{follow}", *([f"ray job stop {self._job}"] if running else [])]

    def _sightings(self) -> list[Sighting]:
        record = self._get()
        began_ms: Ms = record.start_time or 0
        # Of what it says to a job that has ended most is its log.
        words = (record.message or record.status).partition(", last available logs")[0].partition("\n")[0][:300]
        match record.status:
            case "PENDING":
                waits = words.removeprefix(_WAITS).strip() if words.startswith(_WAITS) else ""
                return [
                    StateSeen(phase=Phase.SUBMITTED, at_ms=began_ms),
                    StateSeen(phase=Phase.QUEUED, at_ms=began_ms, words="PENDING", waits=waits),
                ]
            case "RUNNING":
                return [StateSeen(phase=Phase.RUNNING, at_ms=began_ms, words="RUNNING")]
            case "SUCCEEDED" | "FAILED" | "STOPPED":
                self.ended_ms = record.end_time or began_ms
                ok = record.status == "SUCCEEDED"
                code = 0 if ok else record.driver_exit_code
                said = {"SUCCEEDED": "completed", "STOPPED": "was stopped"}.get(record.status, f"failed: {words}")
                return [Ended(at_ms=self.ended_ms, ok=ok, words=said, exit_code=code)]
        return [StateSeen(phase=Phase.SUBMITTED, at_ms=began_ms, words=record.status)]

    def _get(self) -> _Record:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        link = kind(self._host, self._port, timeout=ANSWER_S)
        try:
            link.request("GET", f"{self._base}/api/jobs/{self._job}", headers=self._headers)
            answer = link.getresponse()
            body = answer.read(ANSWER_BYTES_MAX + 1)
        except http.client.HTTPException as error:
            raise OSError(f"it spoke no HTTP: {type(error).__name__}") from error
        finally:
            link.close()
        if answer.status == 404:
            raise CoordError(Code.NOT_FOUND, f"Ray knows no job {self._job}", "ray job list")
        if answer.status in (401, 403):
            raise CoordError(Code.FORBIDDEN, f"Ray refuses it ({answer.status})", "set RAY_JOB_HEADERS")
        if answer.status != 200:
            raise OSError(f"it answered {answer.status}")
        if len(body) > ANSWER_BYTES_MAX:
            raise OSError(f"its answer is larger than {ANSWER_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(body, type=_Record)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise OSError("its answer is none of Ray's") from error


class _Tail:
    """The log as Ray's WebSocket sends it, from its beginning. After a connection that broke it comes from the
    beginning again: what is known of it is left out."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.is_last = False
        """The job has ended: what is sent from now on is all. Before, Ray also closes where there is no log yet."""
        self.is_over = False
        self._pieces: queue.Queue[bytes] = queue.Queue(PIECES_MAX)
        self._url, self._headers = url, headers
        self._known = 0
        threading.Thread(target=lambda: asyncio.run(self._run()), name="ray log", daemon=True).start()

    def take(self) -> list[bytes]:
        taken: list[bytes] = []
        while len(taken) < PIECES_MAX:
            try:
                taken.append(self._pieces.get_nowait())
            except queue.Empty:
                break
        return taken

    async def _run(self) -> None:
        import aiohttp  # a third of a second, which only this command pays for

        while not self.is_over:
            is_last = self.is_last
            try:
                async with (
                    aiohttp.ClientSession(headers=self._headers) as session,
                    session.ws_connect(self._url, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=20.0) as link,
                ):
                    skip = self._known
                    async for message in link:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            continue
                        data = message.data.encode("utf-8", "surrogatepass")
                        fresh, skip = data[skip:], max(0, skip - len(data))
                        if fresh:
                            await asyncio.to_thread(self._pieces.put, fresh)
                            self._known += len(fresh)
                    self.is_over = is_last and link.close_code == 1000
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            if not self.is_over:
                await asyncio.sleep(AGAIN_S)


def headers_of(text: str) -> dict[str, str]:
    """Of RAY_JOB_HEADERS: JSON, a string by name. CoordError(BAD_CONFIG)."""
    try:
        given = msgspec.convert(json.loads(text or "{}"), dict[str, str])
        for name, value in given.items():
            if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError("no header")
        return given
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise CoordError(
            Code.BAD_CONFIG, "RAY_JOB_HEADERS is no JSON object of strings", 'like {"Authorization": "Bearer ..."}'
        ) from error
