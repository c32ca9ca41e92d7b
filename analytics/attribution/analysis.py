"""One source that is read once, from its first byte to its last, in whatever pieces it comes."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import msgspec
import re2
from msgspec import Struct

from analytics.attribution.case import KEPT_BYTES, Line
from analytics.attribution.incidents import Incidents
from analytics.attribution.lines import Partial
from analytics.attribution.prefixes import strip
from analytics.attribution.rules import Rules
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Role, Seen, Verdict

FORMAT = 1
_STEP = re2.compile(rb"(?i)\b(?:global_?step|step|iteration|iter|epoch)s?[ :=\[#]{0,4}(\d{1,12})")


class State(Struct, array_like=True):
    """All that an analysis knows: what is saved."""

    partials: list[Partial]
    numbers: list[int]
    """Lines by stream."""
    incidents: Incidents
    order: int = 0
    """Lines of all streams."""
    steps: int = 0
    first_step: int | None = None
    last_step: int | None = None
    checkpoints: int = 0
    restored: bool = False
    finished: bool = False


class _Saved(Struct, array_like=True):
    format: int
    rules: str
    usual: list[str]
    name: str
    state: State


class Analysis:
    """Fed with the bytes of a file, or of one rank's two streams in the order in which they were stored."""

    def __init__(self, rules: Rules, name: str = "", usual: frozenset[str] = frozenset()) -> None:
        self.rules = rules
        self.name = name
        self.usual = usual
        """Fingerprints of lines that runs of this job have which went well."""
        self._state = State([Partial()], [0], Incidents())

    @property
    def consumed(self) -> tuple[int, ...]:
        """Bytes taken, by stream."""
        return tuple(partial.consumed for partial in self._state.partials)

    def feed(self, data: bytes, stream: int = 0) -> None:
        """The next bytes of a stream: 0 is stdout, or the file; 1 is stderr."""
        state = self._state
        while len(state.partials) <= stream:
            state.partials.append(Partial())
            state.numbers.append(0)
        for block, begin in state.partials[stream].blocks(data):
            self._scan(block, begin, stream)

    def ended(self) -> State:
        """As if it ended here: the lines without an end count too. What was fed stays as it is."""
        if not any(partial.size for partial in self._state.partials):
            return self._state
        other = copy.copy(self)
        other._state = copy.deepcopy(self._state)
        for stream, partial in enumerate(other._state.partials):
            if partial.size:
                other._scan(partial.text() + b"\n", partial.begin, stream)
        return other._state

    def so_far(self) -> State:
        """Lines that have no end yet do not count."""
        return self._state

    def peek(self) -> Verdict:
        """As if it ended here, without the lines that have no end yet."""
        from analytics.attribution.judging import verdict_of

        return verdict_of((self,), (self.so_far(),))

    def fingerprints(self) -> frozenset[str]:
        """What the lines have in common with the same lines of other runs."""
        return frozenset()

    def save(self) -> bytes:
        """State and cursor together."""
        return msgspec.msgpack.encode(_Saved(FORMAT, self.rules.digest, sorted(self.usual), self.name, self._state))

    @classmethod
    def restore(cls, rules: Rules, data: bytes) -> Analysis:
        """CoordError(CONFLICT) for what another table or engine saved, or no state: replay from the first byte."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.MsgspecError as error:
            raise CoordError(Code.CONFLICT, "this is no state of an analysis", "read the log again") from error
        if saved.format != FORMAT or saved.rules != rules.digest:
            raise CoordError(Code.CONFLICT, "the state was saved with other signatures", "read the log again")
        analysis = cls(rules, saved.name, frozenset(saved.usual))
        analysis._state = saved.state
        return analysis

    def _scan(self, block: bytes, begin: int, stream: int) -> None:
        at = 0
        for raw in block.split(b"\n")[:-1]:
            self._take(raw.removesuffix(b"\r"), begin + at, stream)
            at += len(raw) + 1

    def _take(self, raw: bytes, offset: int, stream: int) -> None:
        state = self._state
        step = _STEP.search(raw)
        if step is not None:
            state.steps += 1
            state.last_step = int(step.group(1))
            if state.first_step is None:
                state.first_step = state.last_step
        told = strip(raw)
        row = self.rules.classify(told.text)
        if row is not None and row.role is Role.PROGRESS:
            state.checkpoints += row.id.startswith("saved")
            state.restored |= row.id.startswith("restored")
            state.finished |= row.id.startswith("finished")
        elif row is not None:
            line = Line(
                order=state.order,
                offset=offset,
                number=state.numbers[stream] + 1,
                stream=stream,
                text=told.text[:KEPT_BYTES],
                rank=told.rank,
                host=told.host,
                at_ms=told.at_ms,
                steps=state.steps,
                episode=0,
                frames=b"",
            )
            state.incidents.add(row, line, "", usual=False)
        state.order += 1
        state.numbers[stream] += 1


def seen_of(states: Iterable[State]) -> Seen:
    """How far the program came, over all of its sources."""
    all_states = tuple(states)
    firsts = [state.first_step for state in all_states if state.first_step is not None]
    lasts = [state.last_step for state in all_states if state.last_step is not None]
    return Seen(
        lines=sum(state.order for state in all_states),
        steps=max((state.steps for state in all_states), default=0),
        first_step=min(firsts, default=None),
        last_step=max(lasts, default=None),
        checkpoints=max((state.checkpoints for state in all_states), default=0),
        restored=any(state.restored for state in all_states),
        finished=any(state.finished for state in all_states),
    )
