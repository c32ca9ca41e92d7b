"""From sources to a verdict: pure, and the same however often it is asked."""

from __future__ import annotations

import random

import msgspec
import pytest

from analytics.attribution.engine import Analysis, End, Rules, canonical, judge
from analytics.attribution.rules import Row
from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Recommendation, Role
from tests.unit.analytics.attribution.told import rules, verdict_on

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"


def fed(log: str, name: str = "", usual: frozenset[str] = frozenset()) -> Analysis:
    analysis = Analysis(rules(), name, usual)
    analysis.feed(log.encode())
    return analysis


def test_a_last_line_without_its_end_counts_when_judged_and_not_when_peeked() -> None:
    """And judging changes nothing: the rest of the line may still come."""
    analysis = fed("hello\n" + OOM)
    assert analysis.peek().cause is Cause.OK
    assert judge([analysis]).cause is Cause.GPU_OOM
    assert analysis.peek().cause is Cause.OK
    assert (6 + len(OOM),) == analysis.consumed
    analysis.feed(b" (GPU 3)\nmore\n")
    assert analysis.peek().cause is Cause.GPU_OOM
    assert canonical(analysis.peek()) == canonical(judge([analysis]))


def test_streams_have_lines_and_offsets_of_their_own() -> None:
    """What stdout has does not count in stderr."""
    analysis = Analysis(rules())
    analysis.feed(b"one\ntwo\n")
    analysis.feed(f"three\n{OOM}\n".encode(), stream=1)
    evidence = judge([analysis]).evidence[0]
    assert ("stderr", 2, 6) == (evidence.source, evidence.line, evidence.offset)
    assert (8, 6 + len(OOM) + 1) == analysis.consumed
    with pytest.raises(ValueError, match="stream"):
        analysis.feed(b"x", stream=2)


def test_how_a_process_ended_is_evidence_where_no_line_tells_more() -> None:
    """It is no line; with a line it is the line that counts, and a success has nothing to explain."""
    (evidence,) = judge([fed("hello\n")], End(cause=EndCause.SIGNALLED, signal=11)).evidence
    assert (Role.EXIT, "exit", "signal 11", 0, -1) == (
        evidence.role,
        evidence.signature,
        evidence.text,
        evidence.line,
        evidence.offset,
    )
    assert Role.ROOT is judge([fed(f"{OOM}\n")], End(cause=EndCause.EXITED, code=1)).evidence[0].role
    assert () == judge([fed("hello\n")], End(cause=EndCause.EXITED, code=0)).evidence


def test_sources_are_judged_together() -> None:
    """Of two nodes the second one's broken GPU; its provider is to be avoided."""
    verdict = judge([fed("hello\n"), fed(f"{ECC}\n")], End(cause=EndCause.EXITED, code=1), where=("a", "b"))
    assert (verdict.cause, verdict.recommendation) == (Cause.GPU_HARDWARE, Recommendation.RESTART_ELSEWHERE)
    assert verdict.avoid_providers == ("b",)
    assert verdict.evidence[0].source == "1/stdout"


def test_the_same_incident_of_several_sources_is_one() -> None:
    """Counted over all of them."""
    verdict = judge([fed(f"[rank{rank}]: {OOM}\n" * 2) for rank in range(3)])
    (incident,) = verdict.incidents
    assert (6, (0, 1, 2)) == (incident.count, incident.ranks)


def test_files_are_named_in_the_evidence() -> None:
    """Where the analysis has a name."""
    assert judge([fed("ok\n", "a.log"), fed(f"{OOM}\n", "b.log")]).evidence[0].source == "b.log"


def test_times_in_the_lines_order_sources() -> None:
    """What the second node wrote first came first; without times the first node counts first."""
    slow = f"2026-01-01 10:00:09 {OOM}\n"
    fast = f"2026-01-01 10:00:01 {OOM.replace('2.00', '9.00')}\n"
    assert "9.00" in judge([fed(slow), fed(fast)]).evidence[0].text
    assert "2.00" in judge([fed(slow), fed(fast[20:])]).evidence[0].text


def test_lines_of_good_runs_are_noise() -> None:
    """A root that runs of the job have which went well gives way to one that they have not."""
    good = fed("OSError: [Errno 28] No space left on device: '/tmp/a1'\nstep 1\n")
    log = f"OSError: [Errno 28] No space left on device: '/tmp/a7'\n{OOM}\n"
    assert judge([fed(log)]).cause is Cause.STORAGE_FULL
    assert judge([fed(log, usual=good.fingerprints())]).cause is Cause.GPU_OOM


def test_a_state_of_other_rules_is_refused() -> None:
    """And what is no state: the caller reads the log again."""
    analysis = fed(f"{OOM}\n")
    others = Rules([*rules().rows, _a_row()])
    for data in (b"", b"\xc1", msgspec.msgpack.encode([2, "x"]), random.Random(1).randbytes(99)):
        with pytest.raises(CoordError) as error:
            Analysis.restore(rules(), data)
        assert error.value.code is Code.CONFLICT
    with pytest.raises(CoordError, match="other signatures"):
        Analysis.restore(others, analysis.save())
    assert canonical(judge([Analysis.restore(rules(), analysis.save())])) == canonical(judge([analysis]))


def test_a_verdict_names_its_rules() -> None:
    """And shows at most so many characters of a line, invalid bytes replaced."""
    analysis = Analysis(rules())
    analysis.feed(b"RuntimeError: \xff CUDA error: uncorrectable ECC error " + b"\xe2\x96\x88" * 9_000 + b"\n")
    verdict = judge([analysis])
    assert verdict.rules == rules().digest
    assert "\ufffd" in verdict.evidence[0].text
    assert len(verdict.evidence[0].text) <= 400


def test_nothing_fed_is_nothing_found() -> None:
    """No line, no source."""
    assert verdict_on("").cause is Cause.OK
    assert judge([]).cause is Cause.OK


def _a_row() -> Row:
    return Row(
        id="another",
        cause=Cause.USER_CODE,
        role=Role.ROOT,
        first=Recommendation.STOP,
        repeat=Recommendation.STOP,
        pattern="another text",
        example="another text",
        note="",
    )


TRACEBACK = b'Traceback (most recent call last):\n  File "t.py", line 9, in <module>\nKeyError: 1\n'
STEPS = b"".join(b"step %d loss 0.5\n" % step for step in range(100))
FAILED = End(cause=EndCause.EXITED, code=1)
KILLED = End(cause=EndCause.SIGNALLED, signal=9)


def fed_by_turns(*parts: tuple[int, bytes]) -> Analysis:
    analysis = Analysis(rules())
    for stream, data in parts:
        analysis.feed(data, stream)
    return analysis


def test_what_was_held_back_of_another_stream_refutes_nothing() -> None:
    """Standard output is written when a buffer is full: 100 steps behind the traceback were made before it."""
    for parts in (((1, TRACEBACK), (0, STEPS)), ((0, STEPS), (1, TRACEBACK))):
        verdict = judge([fed_by_turns(*parts)], FAILED)
        assert (verdict.cause, verdict.incidents[0].refuted) == (Cause.USER_CODE, False)
    through = fed_by_turns((1, TRACEBACK), (0, b"Training completed.\n"))
    assert judge([through], FAILED).cause is Cause.USER_CODE


def test_progress_of_its_own_stream_and_much_of_another_refutes() -> None:
    """What a program survived, and later was killed: more than can be held back tells that it went on."""
    assert judge([fed_by_turns((1, TRACEBACK + STEPS))], FAILED).incidents[0].refuted
    much = STEPS * 50
    assert judge([fed_by_turns((1, TRACEBACK), (0, much))], KILLED).cause is Cause.PROCESS_KILLED_UNKNOWN


def test_last_words_of_a_program_that_failed_are_refuted_by_no_other_stream() -> None:
    """However much of that came behind: an agent may send what it kept while it was cut off."""
    assert judge([fed_by_turns((1, TRACEBACK), (0, STEPS * 50))], FAILED).cause is Cause.USER_CODE
    more = b"what else it said\n" * 10
    assert judge([fed_by_turns((1, TRACEBACK + more), (0, STEPS * 50))], FAILED).incidents[0].refuted
