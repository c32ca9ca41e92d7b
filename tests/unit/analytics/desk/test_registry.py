"""What was submitted outlives the service that it was submitted to."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import msgspec
import pytest

from analytics.attribution.desk import registry
from analytics.attribution.desk.contract import Submission
from analytics.attribution.desk.registry import KEPT_S, Line, Registry
from coordinator.core.errors import Code, CoordError
from tests.unit.analytics.desk.service import STOPS, WELL, serving


def test_a_launcher_that_polls_over_a_restart_has_its_verdict(tmp_path: Path) -> None:
    """A terminal POST was answered, and its service is gone before the first GET: the next one has the verdict."""

    async def converse() -> None:
        state = tmp_path / "state"
        async with serving(tmp_path, state=state) as service:
            ended, grows, released = (service.log(name, STOPS) for name in ("a.log", "b.log", "c.log"))
            assert 200 == (await service.post(ended, job_id="7", cycle_id=0, analysis_intent="terminal")).status
            assert 200 == (await service.post(grows, job_id="7", analysis_intent="progressive")).status
            assert 200 == (await service.post(released, analysis_intent="progressive")).status
            assert 200 == (await service.delete(released)).status
        async with serving(tmp_path, state=state) as service:
            assert "STOP" == (await service.until_completed(ended))["recommendation"]["action"]
            assert "7" == (await service.job(ended))["job_id"]
            await service.until_read(grows)
            assert 404 == (await service.get(released, wait=False)).status
            assert 200 == (await service.post(grows, analysis_intent="terminal")).status
        async with serving(tmp_path, state=state) as service:
            assert "STOP" == (await service.until_completed(grows))["recommendation"]["action"]
            assert "7" == (await service.job(grows))["job_id"], "the terminal POST did not say it again"
        async with serving(tmp_path) as service:
            assert 404 == (await service.get(ended, wait=False)).status

    asyncio.run(converse())


def test_what_cannot_be_judged_any_more_keeps_no_service_from_starting(tmp_path: Path) -> None:
    """A log that is gone, a line that is none, one that was cut off, more than may wait, a path outside the root."""
    state = tmp_path / "state"
    lines = [Line(at_s=time.time(), asked=Submission(log_path=path)) for path in ("/etc/passwd", str(tmp_path))]
    gone = Submission(log_path=str(tmp_path / "logs" / "gone" / "x.log"), analysis_intent="progressive")
    old = Submission(log_path=str(tmp_path / "logs" / "old.log"), analysis_intent="progressive")
    lines += [Line(at_s=time.time(), asked=gone), Line(at_s=time.time() - KEPT_S - 60, asked=old)]
    state.write_bytes(b"\n".join([b"{", *map(msgspec.json.encode, lines), b'{"at_s":1']))

    async def converse() -> None:
        async with serving(tmp_path, state=state, waiting_max=1, threads=1) as service:
            for number in range(4):
                path = service.log(f"{number}.log", WELL)
                assert (await service.post(path, analysis_intent="terminal")).status in (200, 503)
                await service.until_completed(path)
            assert 404 == (await service.get(service.root / "old.log", wait=False)).status
        async with serving(tmp_path, state=state, waiting_max=1, threads=1) as service:
            await service.until_completed(service.root / "3.log")

    asyncio.run(converse())


def test_the_file_is_its_owners_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LINES_MIN", 10)
    kept = Registry(tmp_path / "state", paths_max=5)
    for number in range(200):
        kept.note(Submission(log_path=f"/logs/{number % 8}", cycle_id=number))
    told = [(one.log_path, one.cycle_id) for one in kept.submissions()]
    assert [(f"/logs/{number % 8}", number) for number in range(199, 194, -1)] == told
    kept.close()
    assert 0o600 == stat.S_IMODE((tmp_path / "state").stat().st_mode)
    assert (tmp_path / "state").read_bytes().count(b"\n") <= 11
    again = Registry(tmp_path / "state", paths_max=5)
    assert told == [(one.log_path, one.cycle_id) for one in again.submissions()]
    again.close()
    with pytest.raises(CoordError) as refused:
        Registry(tmp_path / "nowhere" / "state", paths_max=5)
    assert Code.BAD_CONFIG is refused.value.code
