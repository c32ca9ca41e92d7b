"""What is kept of a log is bounded, and what it died of is never among what goes."""

from __future__ import annotations

from analytics.attribution.analysis import Analysis
from analytics.attribution.engine import judge
from analytics.attribution.incidents import EXCEPTIONS_MAX, KINDS_MAX
from coordinator.core.verdict.rows import Cause, Role
from tests.unit.analytics.attribution.told import rules, verdict_on

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"


def after(log: bytes) -> Analysis:
    analysis = Analysis(rules())
    for at in range(0, len(log), 50_000):
        analysis.feed(log[at : at + 50_000])
    return analysis


def test_the_same_event_of_many_ranks_is_one_incident() -> None:
    """With its ranks, its first and its last line."""
    verdict = verdict_on("hello\n" + "".join(f"[rank{rank}]: {OOM}" for rank in (5, 3, 5)))
    (incident,) = verdict.incidents
    assert (3, (3, 5), 2, 4) == (incident.count, incident.ranks, incident.first_line, incident.last_line)
    assert verdict.evidence[0].rank == 5


def test_a_million_distinct_errors_take_no_more_than_a_few() -> None:
    """Classes of exceptions of one signature are told apart up to a bound; here 20,000 of them."""
    frames = 'Traceback (most recent call last):\n  File "/a/b.py", line 1, in f\n'
    analysis = after("".join(f"{frames}Some{i}Error: number {i}\n" for i in range(20_000)).encode())
    assert len(analysis.so_far().incidents.kinds) <= EXCEPTIONS_MAX + 1
    assert len(analysis.save()) < 32 * 1024


def test_whatever_comes_later_the_earliest_root_stays() -> None:
    """Behind it every line that the table knows, three times: kinds are dropped, and none of what counts."""
    examples = [row.example.split("\\n")[-1] for row in rules().rows if row.role is not Role.PROGRESS]
    noise = "".join(f"{example}\n" for example in examples) * 3
    analysis = after((OOM + noise).encode())
    assert len(analysis.so_far().incidents.kinds) <= KINDS_MAX
    first = min(analysis.so_far().incidents.kinds.values(), key=lambda kind: kind.open.order)
    assert first.open.text.decode() == OOM.strip()
    assert len(analysis.save()) < 256 * 1024


def test_progress_refutes_what_came_before_it() -> None:
    """An error that the program survived is not what it died of; the same one later is, and that line is shown."""
    steps = "".join(f"step {step} loss 0.5\n" for step in range(10))
    assert verdict_on(OOM + steps).cause is Cause.OK
    verdict = verdict_on(OOM + steps + OOM)
    assert verdict.cause is Cause.GPU_OOM
    assert verdict.evidence[0].line == 12
    assert (1, False) == (verdict.incidents[0].first_line, verdict.incidents[0].refuted)


def test_one_line_of_a_gigabyte_is_read_in_bounded_memory() -> None:
    """64 MB of it here, NULs and all; what ends it counts, and it may be resumed within."""
    analysis = Analysis(rules())
    for _ in range(64):
        analysis.feed(b"\0x" * (1 << 19))
    assert len(analysis.save()) < 64 * 1024
    analysis = Analysis.restore(rules(), analysis.save())
    analysis.feed(b"\r" + OOM.encode() + b"after\n")
    verdict = judge([analysis])
    assert (verdict.cause, verdict.evidence[0].line, verdict.progress.lines) == (Cause.GPU_OOM, 1, 2)
