"""Bundles that were written since the start and whose attempts may yet be launched: one row is then all that changes.

What is not known here is written row by row, which is right of everything: a bundle of before the start, attempts
behind one that something became of by itself, those of one bundle too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.core.rows import AttemptRow, AttemptState
from store import bundles
from store.table import Columns

OPEN_MAX = 20_000
"""Beyond, all of them are forgotten. Those that wait for their agents are as many as may be unanswered; others are left
over from what was taken back."""
GOES_BACK = frozenset({AttemptState.LEASED, AttemptState.IN_DOUBT, AttemptState.FROZEN})
"""An attempt whose row was put with one of these may be launched later: by itself, the bundle knows nothing of it."""


class OpenBundles:
    """What the writer's thread knows of them, as of the last commit."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], dict[int, int]] = {}
        """Of a step: the first task that is not launched -> the bundle's last one."""
        self._count = 0

    def parted(self, launched: Iterable[Sequence[AttemptRow]]) -> tuple[list[Columns], list[AttemptRow]]:
        """(what bundles.LAUNCH takes, of attempts that follow those of their bundle that are launched; all others)."""
        together: list[Columns] = []
        single: list[AttemptRow] = []
        for attempts in launched:
            known = self._of.get((attempts[0].job_id, attempts[0].step))
            at, count = 0, len(attempts)
            while known and at < count:
                begin = attempts[at].task
                last = known.get(begin)
                if last is None or attempts[at].attempt != 1:
                    single.append(attempts[at])
                    at += 1
                    continue
                end = at + _following(attempts[at : at + last - begin + 1])
                together.append(bundles.launch_columns(attempts[at], attempts[end - 1].task, last))
                at = end
            single += attempts[at:]
        return together, single

    def committed(self, begun: Iterable[Columns], launched: Iterable[Columns], put: Iterable[AttemptRow]) -> None:
        """These bundles are durable (columns of bundles.TABLE), those were launched (columns of bundles.LAUNCH), and so
        is what was put of attempts by themselves."""
        of = self._of
        for job_id, step, last, first, *_ in begun:
            of.setdefault((job_id, step), {})[first] = last
            self._count += 1
        for _, launched_to, job_id, step, last, begin in launched:
            known = of[job_id, step]
            del known[begin]
            if launched_to < last:
                known[launched_to + 1] = last
                continue
            self._count -= 1
            if not known:
                del of[job_id, step]
        if not of:
            return
        for row in put:
            if row.attempt == 1 and row.state in GOES_BACK:
                self._count -= len(of.pop((row.job_id, row.step), ()))
        if self._count > OPEN_MAX:
            of.clear()
            self._count = 0


def _following(attempts: Sequence[AttemptRow]) -> int:
    """How many of them, from the first on, are first attempts of tasks that follow one another."""
    begin = attempts[0].task
    found = [(row.task, row.attempt) for row in attempts]
    wanted = [(begin + at, 1) for at in range(len(attempts))]
    if found == wanted:
        return len(attempts)
    return next(at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
