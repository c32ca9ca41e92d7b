"""The checks that the original design asks for, each by its name, over a real socket and real files.

In the order of the design page: submitting, the policy, the end, falling back, the whole flow, and the latency gained.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.analytics.desk.service import ANSWER, ELSEWHERE, ITEM, RESTARTS, STOPS, WELL, serving


def test_a_post_without_intent_stays_track_only(tmp_path: Path) -> None:
    """It is remembered; nothing is read, nothing is made."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            reply = await service.post(log)
            assert (200, True, str(log), "single") == (
                reply.status, reply.body["submitted"], reply.body["normalized_path"], reply.body["mode"],
            )  # fmt: skip
            assert (None, "pending") == ((await service.job(log))["progressive"], (await service.job(log))["status"])
            assert "pending" == (await service.get(log, wait=False)).body["status"]
            stats = await service.stats()
            assert (0, 0, 0) == (
                sum(stats["progressive_posts"].values()), stats["progressive_analyses"]["started"], stats["waiting"],
            )  # fmt: skip

    asyncio.run(story())


def test_the_launchers_post_carries_the_progressive_intent(tmp_path: Path) -> None:
    """Trimmed and lower-cased, with a user and a job; the file is followed at once, even before it is there."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.root / "run_cycle0.log"
            reply = await service.post(log, user="ada", job_id="77", cycle_id=0, analysis_intent="  Progressive ")
            assert (200, True) == (reply.status, reply.body["submitted"])
            job = await service.job(log)
            assert ("ada", "77", 0, "pending") == (
                job["user"], job["job_id"], job["cycle_id"], job["progressive"]["state"],
            )  # fmt: skip
            log.write_bytes(WELL)
            state = await service.until_read(log)
            assert ("ready_to_complete", None) == (state["state"], state["error"]) and state["handle"]
            assert 1 == (await service.stats())["progressive_posts"]["accepted"]

    asyncio.run(story())


@pytest.mark.parametrize(("policy", "started", "outcome"), [("all_explicit", 1, "accepted"), ("off", 0, "ignored")])
def test_a_progressive_start_reaches_the_engine_only_when_the_policy_allows_it(
    tmp_path: Path, policy: str, started: int, outcome: str
) -> None:
    """`off` answers 200 submitted all the same, and starts nothing; what waits has a full pass, as disabled."""

    async def story() -> None:
        async with serving(tmp_path, progressive=policy) as service:
            log = service.log(text=STOPS)
            reply = await service.post(log, analysis_intent="progressive")
            assert (200, True) == (reply.status, reply.body["submitted"])
            stats = await service.stats()
            assert (started, 1) == (stats["progressive_analyses"]["started"], stats["progressive_posts"][outcome])
            assert "STOP" == (await service.get(log, wait=True)).body["recommendation"]["action"]
            assert 1 - started == (await service.stats())["fallbacks"]["disabled"]

    asyncio.run(story())


def test_off_starts_nothing_at_the_end_either(tmp_path: Path) -> None:
    """A terminal POST under `off` is submitted, and no more."""

    async def story() -> None:
        async with serving(tmp_path, progressive="off") as service:
            log = service.log(text=STOPS)
            assert 200 == (await service.post(log, analysis_intent="terminal")).status
            assert 0 == (await service.request("GET", "/inflight")).body["count"]
            assert "pending" == (await service.get(log, wait=False)).body["status"]

    asyncio.run(story())


def test_the_terminal_call_reuses_progressive_work_and_keeps_the_results_shape(tmp_path: Path) -> None:
    """What was read is not read again, and the answer has the fields of a full pass, and its verdict."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log, other = service.log(text=STOPS), service.log("other/run.log", STOPS)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            await service.post(log, analysis_intent="terminal")
            progressive = await service.until_completed(log)
            whole = (await service.get(other, wait=True)).body
            assert (True, False) == (progressive["result"]["progressive"], whole["result"]["progressive"])
            for answer in (progressive, whole):
                assert answer.keys() >= ANSWER and answer["result"]["result"][0].keys() >= ITEM
            assert _said(progressive) == _said(whole) and progressive.keys() == whole.keys()
            stats = await service.stats()
            assert (1, 0.0) == (stats["progressive_analyses"]["completed"], stats["ends"]["left_bytes"]["p99"])

    asyncio.run(story())


def _said(answer: dict[str, Any]) -> Any:
    return answer["result"]["result"], answer["recommendation"], answer["result"]["result_id"]


def test_a_post_with_job_id_starts_nothing_progressive_by_default(tmp_path: Path) -> None:
    """A monitor that watches a scheduler's jobs only has them tracked."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log("slurm-4711.out", WELL)
            reply = await service.post(log, job_id="4711", user="ada")
            assert (200, "pending", None, 0) == (
                reply.status, reply.body["mode"], reply.body["logs_dir"], reply.body["sched_restarts"],
            )  # fmt: skip
            stats = await service.stats()
            assert (0, 0) == (stats["progressive_analyses"]["started"], stats["active"]["count"])

    asyncio.run(story())


def test_get_falls_back_when_the_state_is_missing(tmp_path: Path) -> None:
    """Never submitted, or the POST was lost: with wait=true there is a verdict all the same; without, 404."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            refused = await service.get(log, wait=False)
            assert (404, "not_found") == (refused.status, refused.body["error_code"])
            answer = (await service.get(log, wait=True)).body
            assert ("completed", "STOP", "missing") == (
                answer["status"], answer["recommendation"]["action"], answer["result"]["fallback"],
            )  # fmt: skip
            assert 1 == (await service.stats())["fallbacks"]["missing"]

    asyncio.run(story())


def test_get_falls_back_when_the_state_is_unsupported(tmp_path: Path) -> None:
    """A packed log cannot be followed; it is unpacked at its end. Nor can one with several cycles."""

    async def story() -> None:
        import gzip

        async with serving(tmp_path) as service:
            packed = service.log("packed.log", gzip.compress(STOPS))
            cycles = service.log("cycles.log", b"Cycle: 0\n" + RESTARTS + b"Cycle: 1\n" + STOPS)
            for count, log in enumerate((packed, cycles), 1):
                await service.post(log, analysis_intent="progressive")
                answer = (await service.get(log, wait=True)).body
                assert ("STOP", "unsupported") == (answer["recommendation"]["action"], answer["result"]["fallback"])
                assert count == (await service.stats())["fallbacks"]["unsupported"]
            assert "unsupported" == (await service.job(packed))["progressive"]["state"]

    asyncio.run(story())


def test_get_falls_back_when_the_state_has_failed(tmp_path: Path) -> None:
    """The file went away while it was followed: what is there at the end decides, and a log that is not is UNKNOWN."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            log.unlink()
            await service.desk_says(log, "failed")
            answer = (await service.get(log, wait=True)).body
            assert ("failed", "UNKNOWN") == (answer["result"]["fallback"], answer["recommendation"]["action"])
            assert 1 == (await service.stats())["fallbacks"]["failed"]

    asyncio.run(story())


def test_get_falls_back_when_the_state_is_stale(tmp_path: Path) -> None:
    """The file was replaced: what was read of the old one counts for nothing, and it is said."""

    async def story() -> None:
        async with serving(tmp_path, poll_s=60.0) as service:
            log = service.log(text=STOPS)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            new = service.log("new.log", WELL * 100)
            new.replace(log)
            answer = (await service.get(log, wait=True)).body
            assert ("stale", "CONTINUE") == (answer["result"]["fallback"], answer["recommendation"]["action"])
            stats = await service.stats()
            assert (1, {"replaced": 1}) == (stats["fallbacks"]["stale"], stats["replays"])

    asyncio.run(story())


def test_get_falls_back_when_the_state_was_released_and_the_file_changed(tmp_path: Path) -> None:
    """A result of a file that is another one by now is not given again."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            assert "CONTINUE" == (await service.get(log, wait=True)).body["recommendation"]["action"]
            log.write_bytes(STOPS)
            answer = (await service.get(log, wait=True)).body
            assert ("STOP", "stale") == (answer["recommendation"]["action"], answer["result"]["fallback"])

    asyncio.run(story())


def test_a_post_returns_no_finished_result(tmp_path: Path) -> None:
    """No POST does, whatever is known by then; it fills no result, and starts no flight recorder's analysis."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            (service.root / "checkpoints").mkdir()
            (service.root / "checkpoints" / "_dump_0").write_text('{"entries": []}')
            shape = {"submitted", "normalized_path", "mode", "logs_dir", "sched_restarts", "files_analyzed"}
            for intent in ("progressive", "terminal", "terminal"):
                body = (await service.post(log, analysis_intent=intent)).body
                assert (shape, 0) == (body.keys(), body["files_analyzed"])
            answer = await service.until_completed(log)
            assert ("STOP", None, None) == (
                answer["recommendation"]["action"], answer["fr_dump_path"], answer["fr_analysis"],
            )  # fmt: skip
            assert shape == (await service.post(log, analysis_intent="terminal")).body.keys()
            waited = (await service.get(log, wait=True)).body
            assert str(service.root / "checkpoints") == waited["fr_dump_path"]
            assert "did not part" in waited["fr_analysis"]["analysis_text"]

    asyncio.run(story())


@pytest.mark.parametrize(("text", "action"), [
    (STOPS, "STOP"), (RESTARTS, "RESTART"), (ELSEWHERE, "RESTART"), (WELL, "CONTINUE"),
])  # fmt: skip
def test_the_whole_flow_on_a_growing_file_ends_in_a_normal_recommendation(
    tmp_path: Path, text: bytes, action: str
) -> None:
    """Progressive POST before the file is there, lines that come in pieces, terminal POST, GETs that do not wait."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.root / "run_cycle3.log"
            await service.post(log, job_id="77", analysis_intent="progressive")
            for at in range(0, len(text), 7):
                with log.open("ab") as file:
                    file.write(text[at : at + 7])
                assert "pending" == (await service.get(log, wait=False)).body["status"]
            await service.post(log, job_id="77", analysis_intent="terminal")
            answer = await service.until_completed(log)
            assert (action, True, len(text)) == (
                answer["recommendation"]["action"], answer["result"]["progressive"],
                (await service.job(log))["progressive"]["consumed_offset"],
            )  # fmt: skip
            assert "completed" == (await service.job(log))["progressive"]["state"]
            if text == ELSEWHERE:
                assert "RESTART_EXCLUDE_NODE" == answer["result"]["result"][0]["label"]

    asyncio.run(story())


def test_the_latency_gained_is_measured(tmp_path: Path) -> None:
    """Of each end: seconds to its verdict, bytes that were left, and the reading that had been done before."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL * 100_000)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            assert 0 == (await service.stats())["ends"]["count"]
            await service.post(log, analysis_intent="terminal")
            await service.until_completed(log)
            ends = (await service.stats())["ends"]
            assert (1, 0.0) == (ends["count"], ends["left_bytes"]["p50"])
            assert ends["saved_seconds_sum"] > 0 and ends["seconds"]["p99"] > 0
            text = (await service.request("GET", "/metrics")).body.decode()
            assert 'coord_attrsvc_saved_seconds{quantile="0.50"}' in text

    asyncio.run(story())
