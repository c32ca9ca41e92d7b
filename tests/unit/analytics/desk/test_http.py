"""Every field, status and error of the contract; what is bounded; what is refused."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from analytics.attribution.desk.contract import PRECEDENCE, STATUS, ErrorCode, Refused, Submission
from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.followed import Followed
from tests.unit.analytics.desk.service import ELSEWHERE, RESTARTS, STOPS, WELL, Reply, Service, serving

CYCLES = b"first words\nCycle: 0 Event: start\n" + STOPS + b"Cycle: 0 Event: end\nCycle: 1 Event: start\n" + RESTARTS


def refused(reply: Reply) -> tuple[int, str]:
    """Status and code; every refusal has the same shape."""
    assert {"error_code", "message", "details"} == reply.body.keys() and reply.body["message"]
    return reply.status, reply.body["error_code"]


@pytest.mark.parametrize("intent", ("final", "", "progressive\x00", "track-only", " "))
def test_another_intent_is_422(tmp_path: Path, intent: str) -> None:
    """And nothing is remembered."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            assert (422, "unprocessable") == refused(await service.post(log, analysis_intent=intent))
            assert 0 == (await service.request("GET", "/jobs")).body["count"]

    asyncio.run(story())


@pytest.mark.parametrize("fields", (
    {"cycle_id": True}, {"cycle_id": False}, {"cycle_id": "1"}, {"cycle_id": 1.5}, {"cycle_id": -1},
    {"job_id": 7}, {"user": 7}, {"log_path": 7}, {"log_path": None}, {"user": "u" * 300}, {"job_id": "j" * 300},
    {"log_path": "/" + "a" * 5_000},
))  # fmt: skip
def test_a_field_of_another_kind_is_422(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A bool is no cycle; texts are bounded."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            body = {"log_path": str(service.log(text=WELL)), **fields}
            assert (422, "unprocessable") == refused(await service.request("POST", "/logs", json=body))

    asyncio.run(story())


@pytest.mark.parametrize("body", (b"", b"{", b"[]", b"null", b'{"user": "x"}', b"\xff", b'{"log_path": "\\ud800"}'))
def test_a_body_that_is_none_is_422(tmp_path: Path, body: bytes) -> None:
    """And one that is not announced as JSON."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            kind = {"Content-Type": "application/json"}
            assert refused(await service.request("POST", "/logs", data=body, headers=kind)) in (
                (422, "unprocessable"), (400, "invalid_path"),
            )  # fmt: skip
            plain = {"Content-Type": "text/plain"}
            good = b'{"log_path": "/x"}'
            assert (422, "unprocessable") == refused(await service.request("POST", "/logs", data=good, headers=plain))

    asyncio.run(story())


def test_zero_is_a_cycle_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    """As launchers of other versions send them."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            assert 200 == (await service.post(log, cycle_id=0, color="blue")).status
            assert 0 == (await service.job(log))["cycle_id"]
            assert "unknown" == (await service.job(log))["user"]

    asyncio.run(story())


def test_paths_that_may_not_be_named(tmp_path: Path) -> None:
    """Each with its status and code, of POST and GET."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            outside = tmp_path / "secret.log"
            outside.write_bytes(STOPS)
            (service.root / "link.log").symlink_to(outside)
            (service.root / "away").symlink_to(tmp_path)
            (service.root / "round").symlink_to("round")
            os.mkfifo(service.root / "fifo")
            sub = service.root / "sub"
            sub.mkdir()
            beside = tmp_path / "logs-of-others"
            beside.mkdir()
            for path, expected in (
                ("run.log", (400, "invalid_path")),
                ("/x\0y", (400, "invalid_path")),
                (outside, (403, "outside_root")),
                (beside / "x.log", (403, "outside_root")),
                (service.root / "link.log", (403, "outside_root")),
                (service.root / "away" / "secret.log", (403, "outside_root")),
                (service.root / ".." / "secret.log", (403, "outside_root")),
                (service.root, (400, "not_regular")),
                (service.root.parent, (403, "outside_root")),
                (sub, (400, "not_regular")),
                (service.root / "fifo", (400, "not_regular")),
                (service.root / "round", (403, "not_readable")),
                (service.root / "none" / "x.log", (404, "not_found")),
            ):
                assert expected == refused(await service.post(path, analysis_intent="progressive")), path
                assert expected == refused(await service.get(path, wait=True)), path
            assert (404, "not_found") == refused(await service.get(service.root / "none.log", wait=True))
            assert (400, "empty_file") == refused(await service.get(service.log("empty.log"), wait=True))
            assert 200 == (await service.post(service.root / "sub" / ".." / "later.log")).status
            stats = await service.stats()
            assert (0, 13) == (stats["active"]["count"], stats["progressive_posts"]["rejected"])

    asyncio.run(story())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else, who may not read the file")
def test_a_file_that_may_not_be_read_is_403() -> None:
    """Not readable, whatever it is."""

    async def story(place: Path) -> None:
        async with serving(place) as service:
            log = service.log(text=STOPS)
            log.chmod(0)
            for path in (service.root, place):
                path.chmod(0o755)
            os.seteuid(65_534)
            try:
                for ask in (
                    lambda: service.desk.submit(Submission(log_path=str(log), analysis_intent="progressive")),
                    lambda: service.desk.get(str(log), wait=True),
                ):
                    with pytest.raises(Refused) as caught:
                        ask()
                    assert (403, ErrorCode.NOT_READABLE) == (caught.value.status, caught.value.body.error_code)
            finally:
                os.seteuid(0)
            assert 1 == (await service.stats())["progressive_posts"]["rejected"]

    with tempfile.TemporaryDirectory() as made:  # everybody may pass what it stands in, as no test's own place
        asyncio.run(story(Path(made)))


def test_a_link_that_is_swapped_in_later_leads_nowhere(tmp_path: Path) -> None:
    """The path was good when it was submitted. What it was swapped for is not read, and says nothing."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "run.log").write_bytes(STOPS)
            log = service.log("day/run.log", WELL)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            log.parent.rename(service.root / "old")
            (service.root / "day").symlink_to(tmp_path / "elsewhere")
            await service.desk_says(log, "failed")
            await service.post(service.root / "old" / "run.log", analysis_intent="terminal")
            reply = await service.get(log, wait=True)
            assert (403, "outside_root") == refused(reply)
            body = (await service.request("GET", "/jobs")).body
            assert not any("STOP" in str(entry) for entry in body["entries"])

    asyncio.run(story())


def test_the_same_path_with_another_job_or_cycle_is_an_invalid_parameter(tmp_path: Path) -> None:
    """What was not said before may be added."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            assert 200 == (await service.post(log)).status
            assert 200 == (await service.post(log, job_id="7", cycle_id=1)).status
            assert 200 == (await service.post(log, job_id=" 7 ")).status
            assert (400, "invalid_parameter") == refused(await service.post(log, job_id="8"))
            assert (400, "invalid_parameter") == refused(await service.post(log, cycle_id=2))
            assert ("7", 1) == ((await service.job(log))["job_id"], (await service.job(log))["cycle_id"])

    asyncio.run(story())


def test_starting_is_idempotent_per_path(tmp_path: Path) -> None:
    """However often, and through a link: one state, with one handle."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            (service.root / "same.log").symlink_to(log)
            handles = set()
            for path in (log, log, service.root / "same.log"):
                assert str(log) == (await service.post(path, analysis_intent="progressive")).body["normalized_path"]
                handles.add((await service.job(log))["progressive"]["handle"])
            stats = await service.stats()
            assert (1, 1, 1, 3) == (
                len(handles), stats["progressive_analyses"]["started"], stats["active"]["count"],
                stats["progressive_posts"]["accepted"],
            )  # fmt: skip

    asyncio.run(story())


def test_delete_releases_a_state_and_its_place(tmp_path: Path) -> None:
    """Cancelled; the verdict is a full pass then. Twice is nothing; unknown is 404."""

    async def story() -> None:
        async with serving(tmp_path, active_max=1) as service:
            log, other = service.log(text=STOPS), service.log("other.log", WELL)
            assert (404, "not_found") == refused(await service.delete(log))
            await service.post(log, analysis_intent="progressive")
            await service.post(other, analysis_intent="progressive")
            assert [str(log)] == [entry["log_path"] for entry in (await service.stats())["active"]["entries"]]
            assert [True, False] == [(await service.delete(log)).body["released"] for _ in range(2)]
            await service.post(other, analysis_intent="progressive")
            assert [str(other)] == [entry["log_path"] for entry in (await service.stats())["active"]["entries"]]
            answer = (await service.get(log, wait=True)).body
            assert ("STOP", "missing") == (answer["recommendation"]["action"], answer["result"]["fallback"])
            assert 1 == (await service.stats())["progressive_analyses"]["cancelled"]

    asyncio.run(story())


def test_beyond_the_limit_a_file_is_analysed_at_its_end_and_says_so(tmp_path: Path) -> None:
    """Capacity is a reason of its own."""

    async def story() -> None:
        async with serving(tmp_path, active_max=1) as service:
            log, other = service.log(text=WELL), service.log("other.log", STOPS)
            await service.post(log, analysis_intent="progressive")
            assert 200 == (await service.post(other, analysis_intent="progressive")).status
            assert "at its end" in (await service.get(other, wait=False)).body["result"]["remark"]
            await service.post(other, analysis_intent="terminal")
            answer = await service.until_completed(other)
            assert ("STOP", "capacity") == (answer["recommendation"]["action"], answer["result"]["fallback"])
            assert 1 == (await service.stats())["fallbacks"]["capacity"]

    asyncio.run(story())


def test_a_file_that_rests_is_released_after_the_idle_limit(tmp_path: Path) -> None:
    """Nothing new, and nobody asked."""

    async def story() -> None:
        async with serving(tmp_path, idle_s=0.1) as service:
            log = service.log(text=WELL)
            await service.post(log, analysis_intent="progressive")
            await service.until(lambda: _is_released(service), "it was not released")
            assert 1 == (await service.stats())["progressive_analyses"]["cancelled"]

    asyncio.run(story())


async def _is_released(service: Service) -> bool:
    return bool((await service.stats())["active"]["count"] == 0)


def test_a_log_missing_at_the_end_is_unknown(tmp_path: Path) -> None:
    """Never STOP: for who waits, and for who polls."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            for name, wait in (("a.log", True), ("b.log", False)):
                log = service.root / name
                await service.post(log, analysis_intent="progressive")
                await service.post(log, analysis_intent="terminal")
                answer = (await service.get(log, wait=True)).body if wait else await service.until_completed(log)
                assert ("completed", "UNKNOWN", "no_log", []) == (
                    answer["status"], answer["recommendation"]["action"], answer["result"]["state"],
                    answer["result"]["result"],
                )  # fmt: skip

    asyncio.run(story())


def test_wait_false_never_starts_work(tmp_path: Path) -> None:
    """However often it is asked for, whatever is there."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            await service.post(log)
            for _ in range(5):
                body = (await service.get(log, wait=False)).body
                assert ("pending", "UNKNOWN", []) == (
                    body["status"], body["recommendation"]["action"], body["result"]["result"],
                )  # fmt: skip
            assert 0 == (await service.request("GET", "/inflight")).body["count"]
            assert 0 == sum((await service.stats())["fallbacks"].values())

    asyncio.run(story())


def test_two_at_once_compute_once(tmp_path: Path) -> None:
    """Ten wait for one full pass; whoever does not wait is told that it is in flight."""

    async def story() -> None:
        async with serving(tmp_path, settle_s=0.3) as service:
            log = service.log(text=STOPS)
            waiting = [asyncio.ensure_future(service.get(log, wait=True)) for _ in range(10)]
            await service.until(lambda: in_flight(service), "nothing was in flight")
            assert "in_flight" == (await service.get(log, wait=False)).body["status"]
            answers = [(await reply).body for reply in waiting]
            assert all(answer == answers[0] for answer in answers)
            assert 1 == (await service.stats())["fallbacks"]["missing"]
            assert (await service.get(log, wait=True)).body == answers[0]
            assert 1 == (await service.stats())["fallbacks"]["missing"]

    asyncio.run(story())


async def in_flight(service: Service) -> bool:
    """Whether a verdict is being made."""
    return bool((await service.request("GET", "/inflight")).body["count"])


def test_an_analysis_that_takes_too_long_is_timeout(tmp_path: Path) -> None:
    """It goes on, and is there for the next who asks."""

    async def story() -> None:
        async with serving(tmp_path, patience_s=0.05, settle_s=0.4) as service:
            log = service.log(text=STOPS)
            answer = (await service.get(log, wait=True)).body
            assert ("in_flight", "TIMEOUT") == (answer["status"], answer["recommendation"]["action"])
            assert "STOP" == (await service.until_completed(log))["recommendation"]["action"]

    asyncio.run(story())


def test_a_log_that_grows_after_its_verdict_is_judged_anew_from_where_it_was(tmp_path: Path) -> None:
    """A cached result is one of the file as it was; new bytes alone are read."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            await service.post(log, analysis_intent="progressive")
            assert "CONTINUE" == (await service.get(log, wait=True)).body["recommendation"]["action"]
            with log.open("ab") as file:
                file.write(STOPS)
            answer = (await service.get(log, wait=True)).body
            assert ("STOP", True) == (answer["recommendation"]["action"], answer["result"]["progressive"])
            assert 0 == sum((await service.stats())["fallbacks"].values())

    asyncio.run(story())


def test_while_a_new_verdict_is_made_nobody_gets_the_old_one(tmp_path: Path) -> None:
    """Of a second run in the same file whose progressive POST was lost: a poll behind its terminal POST waits, and is
    never told what became of the first run."""

    async def story() -> None:
        async with serving(tmp_path, settle_s=0.3) as service:
            log = service.log(text=STOPS)
            await service.post(log, analysis_intent="terminal")
            assert "STOP" == (await service.until_completed(log))["recommendation"]["action"]
            log.write_bytes(RESTARTS)
            await service.post(log, analysis_intent="terminal")
            polled = (await service.get(log, wait=False)).body
            assert ("in_flight", "UNKNOWN") == (polled["status"], polled["recommendation"]["action"])
            assert "RESTART" == (await service.until_completed(log))["recommendation"]["action"]

    asyncio.run(story())


def test_a_path_that_is_used_again_begins_anew(tmp_path: Path) -> None:
    """A progressive POST after an end is another run: its verdict is not the old one."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            await service.post(log, analysis_intent="progressive")
            await service.post(log, analysis_intent="terminal")
            assert "STOP" == (await service.until_completed(log))["recommendation"]["action"]
            log.write_bytes(WELL)
            await service.post(log, analysis_intent="progressive")
            assert "pending" == (await service.get(log, wait=False)).body["status"]
            await service.post(log, analysis_intent="terminal")
            assert "CONTINUE" == (await service.until_completed(log))["recommendation"]["action"]

    asyncio.run(story())


def test_several_cycles_of_a_file_are_items_and_one_recommendation(tmp_path: Path) -> None:
    """STOP before RESTART; `wl_restart` picks one; another is an invalid parameter."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=CYCLES)
            answer = (await service.get(log, wait=True)).body
            assert (["STOP", "RESTART"], "STOP", 1, 2) == (
                [item["action"] for item in answer["result"]["result"]], answer["recommendation"]["action"],
                answer["wl_restart"], answer["wl_restart_count"],
            )  # fmt: skip
            second = (await service.get(log, wait=True, wl_restart=1)).body
            assert ("RESTART", 1) == (second["recommendation"]["action"], second["wl_restart"])
            assert (400, "invalid_parameter") == refused(await service.get(log, wait=True, wl_restart=2))
            assert (422, "unprocessable") == refused(await service.get(log, wl_restart=-1))
            assert (400, "invalid_parameter") == refused(await service.get(log, wait=True, file="x.log"))

    asyncio.run(story())


def test_cycles_merge_in_the_order_of_the_page() -> None:
    """STOP > RESTART > TIMEOUT > UNKNOWN > CONTINUE."""
    assert ("STOP", "RESTART", "TIMEOUT", "UNKNOWN", "CONTINUE") == PRECEDENCE


def test_elsewhere_is_restart_with_the_node_named(tmp_path: Path) -> None:
    """Launchers know no elsewhere; the label and the verdict say it."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            (item,) = (await service.get(service.log(text=ELSEWHERE), wait=True)).body["result"]["result"]
            assert ("RESTART", "RESTART_EXCLUDE_NODE", "RESTART_ELSEWHERE") == (
                item["action"], item["label"], item["verdict"]["recommendation"],
            )  # fmt: skip
            assert isinstance(item["exclude_nodes"], list)

    asyncio.run(story())


def test_the_explanation_is_whole_sentences(tmp_path: Path) -> None:
    """What happened ends before what to do begins."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            (item,) = (await service.get(service.log(text=ELSEWHERE), wait=True)).body["result"]["result"]
            verdict = item["verdict"]
            assert f"{verdict['summary']}. {verdict['advice']}" == item["auto_resume_explanation"]

    asyncio.run(story())


def test_split_logs_are_found_and_merged(tmp_path: Path) -> None:
    """LOGS_DIR between the markers, the last block's; files of this job alone, oldest first; one may be picked."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            out = service.log("slurm-77.out", b"hello\n")
            assert "pending" == (await service.post(out, job_id="77")).body["mode"]
            logs = service.root / "split"
            service.log("split/train_77_date_26-11-22_time_10-00-00.log", RESTARTS)
            service.log("split/train_77_date_26-11-22_time_11-00-00.log", STOPS)
            service.log("split/train_770_date_26-11-22_time_11-00-00.log", ELSEWHERE)
            (logs / "x_77_.log").symlink_to(tmp_path / "rows.tsv")
            block = f"<< START PATHS >>\nLOGS_DIR={logs}\n<< END PATHS >>\n"
            out.write_text(f"<< START PATHS >>\nLOGS_DIR=/nowhere\n<< END PATHS >>\nLOGS_DIR=/not/in/a/block\n{block}")
            body = (await service.post(out, job_id="77")).body
            assert ("splitlog", str(logs), 2, 0) == (
                body["mode"], body["logs_dir"], body["sched_restarts"], body["files_analyzed"],
            )  # fmt: skip
            assert "pending" == (await service.get(out, wait=False)).body["status"]
            answer = (await service.get(out, wait=True)).body
            assert ("completed", "splitlog", "STOP", ["RESTART", "STOP"], 2) == (
                answer["status"], answer["mode"], answer["recommendation"]["action"],
                [item["action"] for item in answer["result"]["result"]], answer["sched_restarts"],
            )  # fmt: skip
            assert answer["log_file"].endswith("time_11-00-00.log")
            first = (await service.get(out, file="train_77_date_26-11-22_time_10-00-00.log")).body
            assert "RESTART" == first["recommendation"]["action"]
            assert (404, "not_found") == refused(await service.get(out, file="nope.log"))
            assert 2 == (await service.post(out, job_id="77")).body["files_analyzed"]
            assert (await service.get(out, wait=False)).body["recommendation"] == answer["recommendation"]

    asyncio.run(story())


def test_split_logs_outside_the_root_are_refused(tmp_path: Path) -> None:
    """A log may say whatever it likes."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            out = service.log("slurm-77.out", f"<< START PATHS >>\nLOGS_DIR={tmp_path}\n<< END PATHS >>\n".encode())
            assert 200 == (await service.post(out, job_id="77")).status
            assert (403, "outside_root") == refused(await service.get(out, wait=True))

    asyncio.run(story())


def test_a_job_whose_output_names_no_directory_is_one_log(tmp_path: Path) -> None:
    """Pending until somebody waits for its verdict."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            out = service.log("slurm-77.out", STOPS)
            assert "pending" == (await service.post(out, job_id="77")).body["mode"]
            answer = (await service.get(out, wait=True)).body
            assert ("single", "STOP") == (answer["mode"], answer["recommendation"]["action"])
            assert "single" == (await service.job(out))["mode"]

    asyncio.run(story())


def test_dumps_beside_a_log_are_analysed_for_who_waits(tmp_path: Path) -> None:
    """Named by the log, or in the usual place; outside the root they are left alone."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            (tmp_path / "_dump_0").write_text('{"entries": []}')
            log = service.log("logs/a/run.log", b"TORCH_FR_DUMP_TEMP_FILE=" + str(tmp_path / "_dump_").encode() + b"\n")
            assert (None, None) == _recorded((await service.get(log, wait=True)).body)
            dumps = service.root / "checkpoints"
            dumps.mkdir()
            (dumps / "_dump_0").write_text('{"entries": []}')
            with log.open("ab") as file:
                file.write(WELL)
            where, said = _recorded((await service.get(log, wait=True)).body)
            assert str(dumps) == where and "hanging ranks: []" == said["hanging_ranks"]
            assert (where, said) == _recorded((await service.get(log, wait=False)).body)

    asyncio.run(story())


def _recorded(answer: dict[str, Any]) -> tuple[Any, Any]:
    return answer["fr_dump_path"], answer["fr_analysis"]


@pytest.mark.parametrize("checked", ["later", "before it is told"])
def test_a_divergence_is_counted_and_the_full_pass_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: str
) -> None:
    """A progressive state that has gone wrong (here: one that forgot all it read) does not get the last word, however
    late whoever waited for it hears of it."""
    forgot = threading.Event()
    real = Followed.judge

    def forgetful(self: Followed, history: Any) -> Any:
        from analytics.attribution.engine import Analysis, judge

        forgot.set()
        return judge((Analysis(self.tracker.analysis.rules),), None, history)

    def at_once(desk: Desk) -> None:
        """A check is over when what it checks is told."""
        submit = desk._workshop._pool.submit

        def given(work: Any, *parts: Any) -> Any:
            if work == desk._workshop._check:
                return work(*parts)
            return submit(work, *parts)

        monkeypatch.setattr(desk._workshop._pool, "submit", given)

    async def story() -> None:
        async with serving(tmp_path, check_one_in=1) as service:
            well = service.log("well.log", STOPS)
            await service.post(well, analysis_intent="progressive")
            assert "STOP" == (await service.get(well, wait=True)).body["recommendation"]["action"]
            await service.until(lambda: _checked(service, 1), "it was not checked")
            assert 0 == (await service.stats())["checks"]["divergent"]
            monkeypatch.setattr(Followed, "judge", forgetful)
            if checked != "later":
                at_once(service.desk)
            log = service.log(text=STOPS)
            await service.post(log, analysis_intent="progressive")
            assert 200 == (await service.get(log, wait=True)).status and forgot.is_set()
            await service.until(lambda: _checked(service, 2), "it was not checked")
            assert 1 == (await service.stats())["checks"]["divergent"]

            async def corrected() -> Any:
                """It is counted a moment before it is told."""
                answer = (await service.get(log, wait=False)).body
                return answer if "corrected by a full pass" == answer["result"]["remark"] else None

            answer = await service.until(corrected, "it was not corrected")
            assert "STOP" == answer["recommendation"]["action"]

    asyncio.run(story())
    assert real is not forgetful


async def _checked(service: Service, count: int) -> bool:
    return bool((await service.stats())["checks"]["checked"] == count)


def test_evidence_names_the_file_whichever_way_it_was_read(tmp_path: Path) -> None:
    """A log of a launcher has no streams; progressive and full pass say the same."""

    async def story() -> None:
        async with serving(tmp_path, check_one_in=1) as service:
            followed, whole = service.log("a.log", STOPS), service.log("b.log", STOPS)
            await service.post(followed, analysis_intent="progressive")
            items = [(await service.get(log, wait=True)).body["result"]["result"][0] for log in (followed, whole)]
            assert ["a.log", "b.log"] == [item["verdict"]["evidence"][0]["source"] for item in items]
            assert "\na.log:3: " in items[0]["raw_text"]

            async def checked() -> bool:
                return bool((await service.stats())["checks"]["checked"])

            await service.until(checked, "it was not checked")
            assert 0 == (await service.stats())["checks"]["divergent"]

    asyncio.run(story())


def test_earlier_cycles_of_a_job_are_the_history_of_the_next(tmp_path: Path) -> None:
    """The same root in cycle after cycle, without progress: what is said of the last one knows of the others."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            actions = []
            for cycle in range(5):
                log = service.log(f"run_cycle{cycle}.log", b"lost license server\n")
                await service.post(log, job_id="7", analysis_intent="progressive")
                await service.post(log, job_id="7", analysis_intent="terminal")
                actions.append((await service.until_completed(log))["recommendation"]["action"])
            assert "RESTART" == actions[0] and "STOP" == actions[-1]

    asyncio.run(story())


def test_what_is_seen_of_it(tmp_path: Path) -> None:
    """Health, figures, jobs, what is in flight, metrics: and never what is in a file."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=STOPS)
            await service.post(log, analysis_intent="progressive")
            await service.until_read(log)
            assert {"status": "ok", "issues": []} == (await service.request("GET", "/healthz")).body
            told = [str((await service.request("GET", route)).body) for route in ("/stats", "/jobs", "/inflight")]
            metrics = (await service.request("GET", "/metrics")).body.decode()
            assert "coord_attrsvc_followed 1" in metrics
            assert all("optimizer" not in text for text in (*told, metrics))
            (entry,) = (await service.stats())["active"]["entries"]
            assert {"log_path", "state", "handle", "consumed_offset", "error"} == entry.keys()

    asyncio.run(story())


def test_a_fault_of_ours_is_500_in_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word about our insides."""

    def broken(desk: Desk) -> None:
        raise RuntimeError("the insides")

    monkeypatch.setattr(Desk, "stats", broken)

    async def story() -> None:
        async with serving(tmp_path) as service:
            for route in ("/stats", "/metrics"):
                reply = await service.request("GET", route)
                assert (500, "internal_error") == refused(reply) and "insides" not in str(reply.body)

    asyncio.run(story())


def test_every_error_code_has_a_status() -> None:
    """One table."""
    assert set(ErrorCode) == set(STATUS)
