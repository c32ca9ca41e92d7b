"""Whole files, read in one go: what a progressive state is compared with, and what stands in where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from analytics.attribution.desk.cycles import Splitter
from analytics.attribution.engine import Analysis, Rules, judge
from analytics.attribution.unpacking import Cut, unpacked
from coordinator.core.ids import ProviderId
from coordinator.core.verdict.rows import PastVerdict, Recommendation, Verdict

READ_BYTES = 1 << 20
WHOLE_BYTES_MAX = 64 << 30
"""Of text, unpacked: holes in a file and an archive of nothing cost nobody anything but whoever reads them."""
KEPT_MAX = 64
"""Cycles of a file whose verdicts are kept: the last ones."""
HISTORY_MAX = 16


class Passed(Struct, frozen=True, kw_only=True):
    """The verdicts of a file's cycles, oldest first."""

    verdicts: tuple[Verdict, ...]
    first: int
    """Number of the first of them."""
    read_bytes: int
    remark: str = ""


def by_cycles(
    open_file: Callable[[], int],
    rules: Rules,
    history: Sequence[PastVerdict] = (),
    name: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Passed:
    """The whole file, a verdict for each cycle; earlier ones are the history of the later. Packed files too. Once
    `stop` says so it is read no further.

    OSError where it cannot be read.
    """
    split = _pass(open_file, rules, history, name, Splitter(), stop)
    return split if split is not None else _pass(open_file, rules, history, name, None, stop) or _NOTHING


def _pass(
    open_file: Callable[[], int],
    rules: Rules,
    history: Sequence[PastVerdict],
    name: str,
    splitter: Splitter | None,
    stop: Callable[[], bool],
) -> Passed | None:
    """Without a splitter it is one cycle. None: what was taken for cycles are none."""
    reading = _Reading(open_file())
    verdicts: list[Verdict] = []
    past = list(history)
    cycle, analysis = 0, Analysis(rules, name)
    remark = ""

    def judged() -> None:
        verdict = judge((analysis,), None, past[:HISTORY_MAX])
        verdicts.append(verdict)
        del verdicts[:-KEPT_MAX]
        past.insert(0, past_of(verdict, f"cycle {cycle}"))

    def pieces() -> Iterator[tuple[int, bytes]]:
        nonlocal remark
        left = WHOLE_BYTES_MAX
        try:
            for data in unpacked(reading.chunks()):
                if left <= 0 or stop():
                    remark = f"only its first {WHOLE_BYTES_MAX - left} bytes were read"
                    break
                left -= len(data)
                yield from splitter.feed(data) if splitter is not None else ((0, data),)
        except Cut as cut:
            remark = str(cut)
        if splitter is not None:
            yield from splitter.close()

    try:
        for number, data in pieces():
            if splitter is not None and splitter.none:
                return None
            if number != cycle:
                judged()
                cycle, analysis = number, Analysis(rules, name)
            analysis.feed(data)
    except ValueError as kind:
        return Passed(verdicts=(), first=0, read_bytes=reading.read, remark=f"it is packed with {kind}")
    finally:
        reading.close()
    judged()
    return Passed(verdicts=tuple(verdicts), first=cycle + 1 - len(verdicts), read_bytes=reading.read, remark=remark)


def past_of(verdict: Verdict, name: str) -> PastVerdict:
    """An earlier cycle, as the history of the next."""
    seen = verdict.progress
    return PastVerdict(
        attempt=name,
        cause=verdict.cause,
        root=verdict.root,
        provider_id=ProviderId(""),
        progressed=seen.checkpoints > 0 or verdict.recommendation is Recommendation.OK,
    )


_NOTHING = Passed(verdicts=(), first=0, read_bytes=0)


class _Reading:
    """A descriptor, from its beginning to where its end is at the last look."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.read = 0

    def chunks(self) -> Iterator[bytes]:
        while data := os.pread(self._fd, READ_BYTES, self.read):
            self.read += len(data)
            yield data

    def close(self) -> None:
        os.close(self._fd)
