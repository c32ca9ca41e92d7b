"""What is said of work that is not saved yet: how much a loss cost, how far programs are, who is asked to save or warm.

From rows that are durable and words that programs really said; never from what the core believes.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core import commands
from coordinator.core.data.rows import CheckpointRow
from coordinator.core.ids import AttemptId, Ms, ProviderId, TaskId, dotted
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, AttemptState, SpecRow
from coordinator.simulator.witness.ground import Ground


class Unsaved:
    """Checked commit by commit, and message by message."""

    def __init__(self, ground: Ground) -> None:
        self.counts = {"lost": 0, "told": 0, "asked_to_save": 0, "warmed": 0}
        """What came to pass, for whoever asks whether the worlds are too quiet."""
        self._ground = ground
        self._live: set[AttemptId] = set()
        self._saved_ms: dict[TaskId, Ms] = {}
        self._said: dict[AttemptId, list[float]] = {}
        """What each program said of how far it is, in its order."""
        self._known: dict[AttemptId, float] = {}

    def says(self, attempt_id: AttemptId, fraction: float) -> None:
        """A program says how far it is."""
        self._said.setdefault(attempt_id, []).append(fraction)

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit, in its order."""
        for write in writes:
            match write:
                case commands.Put(row=CheckpointRow(damaged="") as row):
                    task_id = (row.job_id, row.step, row.task)
                    self._saved_ms[task_id] = max(row.taken_ms, self._saved_ms.get(task_id, row.taken_ms))
                case commands.Put(row=AttemptRow() as attempt):
                    self._look_at(attempt)
                case _:
                    pass

    def _look_at(self, row: AttemptRow) -> None:
        if row.progress is not None and row.progress.fraction is not None:
            self._has_come(row, row.progress.fraction)
        if row.state in LIVE_ATTEMPT:
            self._live.add(row.attempt_id)
        elif row.attempt_id in self._live:
            self._live.discard(row.attempt_id)
            self._has_ended(row)

    def _has_come(self, row: AttemptRow, fraction: float) -> None:
        who, said = f"attempt {dotted(row.attempt_id)}", self._said.get(row.attempt_id, [])
        self._ground.expect(fraction in said, f"{who} is said to be {fraction:.3f} done, which it never said")
        before = self._known.get(row.attempt_id, 0.0)
        self._ground.expect(fraction >= before, f"{who} is said to be {fraction:.3f} done, it was {before:.3f} before")
        self.counts["told"] += fraction != before
        self._known[row.attempt_id] = fraction

    def _has_ended(self, row: AttemptRow) -> None:
        """What it lost: no more than it ran since its last checkpoint, and no less where its end is known."""
        who, began_ms, ended_ms = f"attempt {dotted(row.attempt_id)}", row.started_at_ms, row.ended_at_ms
        if row.state in (AttemptState.COMPLETED, AttemptState.TAKEN_BACK) or began_ms is None:
            self._ground.expect(not row.lost_ms, f"{who} {row.state}, and is said to have lost {row.lost_ms} ms")
            return
        assert ended_ms is not None and row.lost_ms is not None
        saved_ms = max(began_ms, self._saved_ms.get(row.task_id, began_ms))
        most_ms = max(0, ended_ms - saved_ms)
        self._ground.expect(
            0 <= row.lost_ms <= most_ms, f"{who} is said to have lost {row.lost_ms} ms, {most_ms} at most"
        )
        exit = row.ranks[0].exit
        ran_ms = exit.ran_ms or exit.lived_ms if exit is not None else 0
        if len(row.ranks) == 1 and ran_ms:
            lost_ms = max(0, min(began_ms + ran_ms, ended_ms) - saved_ms)
            self._ground.expect(row.lost_ms == lost_ms, f"{who} is said to have lost {row.lost_ms} ms, not {lost_ms}")
        self.counts["lost"] += row.lost_ms > 0

    # ---- what agents are asked

    def sent(self, send: commands.Send) -> None:
        match send.message:
            case commands.SaveState(attempt_id=attempt_id):
                row = self._asked_of(send, attempt_id, 0)
                spec = self._ground.disk.rows.get(("spec", attempt_id[0]))
                saves = isinstance(spec, SpecRow) and spec.spec.steps[attempt_id[1]].checkpoint is not None
                self._ground.expect(saves, f"{dotted(attempt_id)} is asked to save itself, and takes no checkpoints")
                launched = row is None or row.ranks[0].launched
                self._ground.expect(launched, f"{dotted(attempt_id)} is asked to save itself, and was not launched")
                self.counts["asked_to_save"] += 1
            case commands.Warm(attempt_id=attempt_id, rank=rank):
                self._asked_of(send, attempt_id, rank)
                self.counts["warmed"] += 1
            case _:
                pass

    def _asked_of(self, send: commands.Send, attempt_id: AttemptId, rank: int) -> AttemptRow | None:
        """Its row; whoever is asked has this rank of it. None: a full disk undid it meanwhile."""
        row = self._ground.disk.rows.get(("attempt", attempt_id))
        provider = self._ground.head.state.provider_of(send.conn_id)
        if not isinstance(row, AttemptRow) or provider is None:
            return None
        whose: ProviderId = row.ranks[rank].provider_id
        who = provider.row.provider_id
        self._ground.expect(whose == who, f"{who} is asked for rank {rank} of {dotted(attempt_id)}, which {whose} has")
        return row
