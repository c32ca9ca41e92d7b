"""One attempt's logs, one a rank, and the verdict that they lead to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from analytics.attribution.engine import Analysis, End, Rules, judge
from analytics.attribution.following.shelf import Shelf
from analytics.attribution.following.stored import READ_BYTES, StoredLog
from coordinator.core.commands import VerdictWanted
from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, dotted
from coordinator.core.rows import AttemptState, EndCause, ExitInfo
from coordinator.core.verdict.rows import Evidence, Verdict

RANKS_MAX = 64
"""Logs of one attempt that are read, those of ranks that failed first."""
SAVE_BYTES = 8 * 1024 * 1024
"""Read since the state was kept last: a restart reads them again, in a quarter of a second."""
SAVE_S = 10.0
"""What was read is kept after so long, where it is worth it ..."""
SAVE_LEAST_BYTES = 1024 * 1024
"""... that is, when it was so much."""
END_BYTES = 1024 * 1024
"""Of each stream, where there is no time to read all of it."""
STREAMS = ("stdout", "stderr")
_OURS = (EndCause.STOPPED, EndCause.EXPIRED)


class FollowedAttempt:
    """Reads the logs of one attempt, from what was kept of them on. Raises stored.Gone and OSError."""

    def __init__(
        self, root: Path, attempt_id: AttemptId, ranks: Sequence[int], rules: Rules, usual: frozenset[str]
    ) -> None:
        self.attempt_id = attempt_id
        self.ranks = tuple(ranks)
        self.spent_s = 0.0
        """Time that reading took."""
        self.resumed = False
        """Its state was kept by an earlier process."""
        self._root, self._rules, self._usual = root, rules, usual
        self._logs = {rank: StoredLog(root, (attempt_id, rank), rules, usual) for rank in ranks}
        self._saved = dict.fromkeys(ranks, 0)
        self._saved_s = time.monotonic()
        self._turn = 0

    # ---- between two processes

    def restore(self, shelf: Shelf) -> None:
        """Go on from what is kept, rank by rank; what does not fit to the log any more is begun anew."""
        for rank, log in self._logs.items():
            data = shelf.get(self.key(rank))
            if data is None:
                continue
            try:
                log.restore(data)
            except (CoordError, OSError):
                log.why_replayed = "stale"
                shelf.drop(self.key(rank))
            else:
                self._saved[rank] = log.read_bytes
                self.resumed = True

    def save(self, shelf: Shelf) -> None:
        """Keep what is worth it."""
        now = time.monotonic()
        late = now - self._saved_s >= SAVE_S
        for rank, log in self._logs.items():
            fresh = log.read_bytes - self._saved[rank]
            if fresh >= SAVE_BYTES or (late and fresh >= SAVE_LEAST_BYTES):
                shelf.put(self.key(rank), log.save())
                self._saved[rank] = log.read_bytes
        if late:
            self._saved_s = now

    def forget(self, shelf: Shelf) -> None:
        for rank, saved in self._saved.items():
            if saved:
                shelf.drop(self.key(rank))

    def key(self, rank: int) -> str:
        return f"{dotted(self.attempt_id)}.{rank}"

    # ---- reading

    @property
    def read_bytes(self) -> int:
        return sum(log.read_bytes for log in self._logs.values())

    def advance(self, limit: int = READ_BYTES) -> int:
        """Read up to `limit` new bytes, of one rank after the other. -> how many; 0: nothing new is there."""
        began = time.perf_counter()
        try:
            for _ in self.ranks:
                log = self._logs[self.ranks[self._turn % len(self.ranks)]]
                self._turn += 1
                read = log.advance(limit)
                if read:
                    return read
            return 0
        finally:
            self.spent_s += time.perf_counter() - began

    def has(self, exits: Sequence[ExitInfo | None]) -> bool:
        """Whether all that the ranks wrote was read, as far as their ends tell."""
        return all(log.has(lengths_of(exits, rank)) for rank, log in self._logs.items())

    def read_beyond_index(self, exits: Sequence[ExitInfo | None]) -> bool:
        """Read what no index tells of; see StoredLog. -> whether all was read then."""
        ready = [
            log.has(lengths_of(exits, rank)) or log.read_beyond_index(lengths_of(exits, rank))
            for rank, log in self._logs.items()
        ]
        return all(ready)

    def missing(self, exits: Sequence[ExitInfo | None]) -> int:
        """Bytes that were written and have not been read."""
        left = 0
        for rank, log in self._logs.items():
            out, err = lengths_of(exits, rank)
            left += max(0, out - log.consumed[0]) + max(0, err - log.consumed[1])
        return left

    def replays(self) -> list[str]:
        """Why logs were read again, and forget it."""
        found = [log.why_replayed for log in self._logs.values() if log.why_replayed]
        for log in self._logs.values():
            log.why_replayed = ""
        return found

    # ---- the end

    def judge(self, wanted: VerdictWanted) -> Verdict:
        """What it died of, by all that was read."""
        return self._judged(self._analyses(), wanted)

    def _judged(self, analyses: Sequence[Analysis], wanted: VerdictWanted) -> Verdict:
        where = [wanted.providers[rank] if rank < len(wanted.providers) else "" for rank in self.ranks]
        newest_first = wanted.history[::-1]
        verdict = judge(analyses, end_of(wanted), newest_first, where, wanted.suspected)
        if self.ranks == tuple(range(len(self.ranks))):
            return verdict
        return replace(verdict, evidence=tuple(self._named(one) for one in verdict.evidence))

    def _named(self, evidence: Evidence) -> Evidence:
        """By the number of its rank, not by its place among those that are read."""
        place, parts, stream = evidence.source.partition("/")
        return replace(evidence, source=f"{self.ranks[int(place)]}/{stream}") if parts else evidence

    def judge_ends(self, wanted: VerdictWanted) -> Verdict:
        """The same by the last lines of its logs alone, whatever was read. Lines are not numbered, and only those are
        told that it rests on."""
        analyses, begins = [], {}
        for rank in self.ranks:
            analysis = Analysis(self._rules, usual=self._usual)
            for stream, name in enumerate(STREAMS):
                data, begin = self._logs[rank].end(stream, END_BYTES)
                analysis.feed(data, stream)
                begins[name if len(self.ranks) == 1 else f"{rank}/{name}"] = begin
            analyses.append(analysis)
        verdict = self._judged(analyses, wanted)
        evidence = tuple(
            replace(one, offset=one.offset + begins[one.source], line=0) if one.line else one
            for one in verdict.evidence
        )
        return replace(verdict, evidence=evidence, incidents=(), benign=())

    def behind(self) -> int:
        """Bytes that are stored and were not read yet."""
        return sum(log.behind() for log in self._logs.values())

    def fresh(self) -> FollowedAttempt:
        """The same, with nothing read: for a full pass beside it."""
        return FollowedAttempt(self._root, self.attempt_id, self.ranks, self._rules, self._usual)

    def fingerprints(self) -> frozenset[str]:
        """Of what it said."""
        return frozenset().union(*(analysis.fingerprints() for analysis in self._analyses()))

    def _analyses(self) -> list[Analysis]:
        return [self._logs[rank].analysis for rank in self.ranks]


def ranks_of(exits: Sequence[ExitInfo | None], count: int) -> list[int]:
    """Which ranks to read, rising: RANKS_MAX at most, those that failed before the others."""
    failed = [rank for rank in range(count) if rank < len(exits) and _failed(exits[rank])]
    rest = [rank for rank in range(count) if rank not in set(failed)]
    return sorted((failed + rest)[:RANKS_MAX])


def lengths_of(exits: Sequence[ExitInfo | None], rank: int) -> tuple[int, int]:
    """How long the streams of a rank will be, as far as its end is known."""
    found = exits[rank] if rank < len(exits) else None
    return (found.out_bytes, found.err_bytes) if found is not None else (0, 0)


def end_of(wanted: VerdictWanted) -> End | None:
    """How the program ended: the first rank that failed of itself, else the first that failed, else any."""
    known = [found for found in wanted.exits if found is not None]
    failed = [found for found in known if _failed(found)]
    own = [found for found in failed if found.cause not in _OURS]
    chosen = next(iter(own or failed or known), None)
    if chosen is not None:
        return End(cause=chosen.cause, code=chosen.code, signal=chosen.signal, text=chosen.text)
    if wanted.state is AttemptState.LOST:
        return End(cause=EndCause.AGENT, text="its provider was lost")
    return None


def _failed(found: ExitInfo | None) -> bool:
    return found is not None and (found.cause is not EndCause.EXITED or found.code != 0)
