"""One source that is read once, from its first byte to its last, in whatever pieces it comes.

Whole blocks pass a gate that finds the lines which may matter; only these, and those within a traceback, are looked at
one by one. What is known afterwards is a fold over lines: the same however the bytes were cut.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec
from msgspec import Struct

from analytics.attribution.case import KEPT_BYTES, Place, line_at
from analytics.attribution.episodes import GATE, HEADER, Episodes, Heard, Saying
from analytics.attribution.incidents import RANKS_KEPT, Incidents, Now, with_rank
from analytics.attribution.judging import verdict_of
from analytics.attribution.lines import Partial
from analytics.attribution.patterns import spans_of
from analytics.attribution.prefixes import Stripped, is_mild, rewrites, strip
from analytics.attribution.progress import Progress
from analytics.attribution.rules import GUARD, Row, Rules
from analytics.attribution.states import State, fingerprint_of, now_of
from analytics.attribution.times import Clock
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Role, Verdict

FORMAT = 4
STREAMS_MAX = 2
BROKEN_OFF = "any_traceback"
"""The row of tracebacks that never came to their end."""
HITS_TRIED = 32
HITS_MANY = 4
"""Where one line of so many passes the gate, the finer gate is not worth its time. What is found stays the same."""
FINGERPRINTS_MAX = 256
USUAL_MAX = 1_024
_WORLD = re.compile(rb"(?i)\b(?:world[_ ]?size|nranks)[\"']?[ =:]{1,4}(\d{1,6})\b")
_BEGINS = spans_of("|".join(GATE))
_WORLD_GATE = r"(?i:world[_ ]?size|nranks)"


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
        self.usual = frozenset(sorted(usual)[:USUAL_MAX])
        """Fingerprints of lines that runs of this job have which went well."""
        self._fine, self._coarse = rules.gates((*GATE, _WORLD_GATE))
        self._gate = self._fine
        self._peeked: tuple[int, Verdict] | None = None
        self._state = State([Partial()], [0], [0], Incidents(), Episodes(), Progress())

    @property
    def consumed(self) -> tuple[int, ...]:
        """Bytes taken, by stream."""
        return tuple(partial.consumed for partial in self._state.partials)

    def feed(self, data: bytes, stream: int = 0) -> None:
        """The next bytes of a stream: 0 is stdout, or the file; 1 is stderr."""
        if not 0 <= stream < STREAMS_MAX:
            raise ValueError(f"there is no stream {stream}")
        state = self._state
        while len(state.partials) <= stream:
            state.partials.append(Partial())
            state.numbers.append(0)
            state.steps.append(0)
        for block, begin in state.partials[stream].blocks(data):
            self._scan(block, begin, stream)

    def so_far(self) -> State:
        """Lines that have no end yet do not count. It is not to be changed."""
        return self._state

    def ended(self) -> State:
        """As if it ended here: the lines without an end count too. What was fed stays as it is."""
        if not any(partial.size for partial in self._state.partials) and not self._state.episodes.unfinished():
            return self._state
        other = Analysis.restore(self.rules, self.save())
        for stream, partial in enumerate(other._state.partials):
            if partial.size:
                other._scan(partial.text() + b"\n", partial.begin, stream)
        other._break_off()
        return other._state

    def _break_off(self) -> None:
        """Tracebacks of which the end never came are something that happened too."""
        row = self.rules.by_id.get(BROKEN_OFF)
        if row is None:
            return
        state = self._state
        for place, rank in state.episodes.unfinished():
            line = line_at(place, text=HEADER, rank=rank)
            state.incidents.add(row, line, "", self.rules, now_of(state))

    def peek(self) -> Verdict:
        """As if it ended here, without the lines that have no end yet. Made once for the same lines."""
        if self._peeked is None or self._peeked[0] != self._state.order:
            self._peeked = (self._state.order, verdict_of((self,), (self._state,)))
        return self._peeked[1]

    def fingerprints(self) -> frozenset[str]:
        """What its telling lines have in common with the same lines of other runs: the first FINGERPRINTS_MAX."""
        return frozenset(self._state.fingerprints)

    def save(self) -> bytes:
        """State and cursor together; less than 256 KiB."""
        return msgspec.msgpack.encode(_Saved(FORMAT, self.rules.digest, sorted(self.usual), self.name, self._state))

    @classmethod
    def restore(cls, rules: Rules, data: bytes) -> Analysis:
        """CoordError(CONFLICT) for what another table or engine saved, or no state: replay from the first byte."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CoordError(Code.CONFLICT, "this is no state of an analysis", "read the log again") from error
        if saved.format != FORMAT or saved.rules != rules.digest:
            raise CoordError(Code.CONFLICT, "the state was saved with other signatures", "read the log again")
        analysis = cls(rules, saved.name, frozenset(saved.usual))
        analysis._state = saved.state
        return analysis

    def _scan(self, block: bytes, begin: int, stream: int) -> None:
        """Whole lines; `begin` is where they do in the stream."""
        state = self._state
        order, number = state.order, state.numbers[stream]
        at = counted = passed = looked = 0
        steps = _Steps(state, stream, block)
        while at < len(block):
            start = at
            passed += block.count(b"\n", counted, at)
            counted = at
            watched = state.episodes.watching(order + passed)
            if not watched:
                span = self._gate.find(block, at)
                if span is None:
                    break
                start = block.rfind(b"\n", at, span[0] + 1) + 1 or at
            passed += block.count(b"\n", counted, start)
            counted = start
            end = block.find(b"\n", start)
            here = _At(order + passed, begin + start, number + passed + 1, stream, start, end + 1)
            self._look(block[start:end], here, steps, watched=watched)
            at = end + 1
            looked += 1
            if looked >= HITS_TRIED:
                self._gate = self._coarse if looked * HITS_MANY > passed else self._fine
        steps.upto(len(block))
        lines = passed + block.count(b"\n", counted)
        self._gate = self._fine
        state.order, state.numbers[stream] = order + lines, number + lines

    def _look(self, raw: bytes, at: _At, steps: _Steps, *, watched: bool) -> None:
        """One line. What neither a row knows nor belongs to an episode leaves no trace: which gate let it through, or
        whether one did at all, must not matter."""
        state = self._state
        if not watched and rewrites(raw) and self._fine.find(raw) is None:
            return
        told = strip(self._telling(raw))
        heard = Heard(Saying.PLAIN, told.text)
        if begins := watched or _BEGINS.find(raw) is not None:
            if b"Traceback" in raw or b'File "' in raw:
                steps.upto(at.start)
            heard = state.episodes.hear(told, self._place(at))
        row = None
        if heard.saying in (Saying.PLAIN, Saying.END):
            row = self.rules.classify(heard.text, heard.frames)
        if row is not None and row.id.startswith(GUARD):
            row = None
        for found in _WORLD.finditer(raw):
            state.world = max(state.world, int(found[1]))
        if row is None and not begins:
            return
        if told.clock is not Clock.NONE:
            state.clock, state.at_ms = told.clock, told.at_ms
        if told.rank is not None and told.rank < RANKS_KEPT:
            state.ranks = with_rank(state.ranks, told.rank)
        if row is not None and row.role is Role.PROGRESS:
            steps.upto(at.end)
            self._progress(row, at)
        elif row is not None:
            steps.upto(at.end)
            self._add(row, told, heard, at, is_mild(raw))

    def _telling(self, raw: bytes) -> bytes:
        """Of a line with bars that were drawn over each other the last part that may matter, else the last one."""
        raw = raw.removesuffix(b"\r")
        if b"\r" not in raw:
            return raw
        spans = deque(self._coarse.spans(raw, 0, len(raw)), maxlen=1)
        if not spans:
            return raw.rstrip(b"\r").rpartition(b"\r")[2]
        begin = raw.rfind(b"\r", 0, spans[0][0] + 1) + 1
        end = raw.find(b"\r", spans[0][1])
        return raw[begin : end if end >= 0 else len(raw)]

    def _add(self, row: Row, told: Stripped, heard: Heard, at: _At, mild: bool) -> None:
        state = self._state
        named = self.rules.named(row, heard.text)
        rank = _rank(named.get("rank")) if "rank" in named else told.rank
        line = line_at(
            self._place(at),
            text=heard.text[:KEPT_BYTES],
            rank=rank if rank is not None else heard.rank,
            host=(named.get("node") or told.host)[:128],
            clock=state.clock,
            at_ms=state.at_ms if state.clock is not Clock.NONE else None,
            episode=heard.episode,
            frames=heard.frames,
            mild=mild,
        )
        usual = False
        if row.role is not Role.BENIGN:
            fingerprint = fingerprint_of(row.id, heard.text)
            usual = fingerprint in self.usual
            if len(state.fingerprints) < FINGERPRINTS_MAX and fingerprint not in state.fingerprints:
                state.fingerprints.append(fingerprint)
        now = now_of(state)
        # Its own stream has come to this line, however much of it came at once.
        now = Now(now.steps, (*now.at[: at.stream], at.offset, *now.at[at.stream + 1 :]))
        state.incidents.add(row, line, heard.exception, self.rules, now, usual=usual, summary=heard.summary)

    def _place(self, at: _At) -> Place:
        """With the progress that was read so far."""
        state = self._state
        apart = sum(partial.begin for stream, partial in enumerate(state.partials) if stream != at.stream)
        return Place(
            order=at.order,
            offset=at.offset,
            number=at.number,
            stream=at.stream,
            steps=state.progress.parts,
            own_steps=state.steps[at.stream],
            apart=apart,
        )

    def _progress(self, row: Row, at: _At) -> None:
        state = self._state
        if row.id.startswith("saved_"):
            state.checkpoints += 1
        elif row.id.startswith("restored_"):
            state.restored = True
        elif row.id.startswith("finished_"):
            state.finished = self._place(at)


class _At(Struct, frozen=True, gc=False):
    """Of a line: order and offset and number as in Line, and where it begins and ends in its block."""

    order: int
    offset: int
    number: int
    stream: int
    start: int
    end: int


class _Steps:
    """Progress within one block, read as far as somebody asks."""

    def __init__(self, state: State, stream: int, block: bytes) -> None:
        self._state = state
        self._stream = stream
        self._block = block
        self._read = 0

    def upto(self, start: int) -> None:
        """Read what was told before `start`, where a line begins."""
        if start > self._read:
            progress = self._state.progress
            before = progress.parts
            progress.read(self._block, self._read, start)
            self._state.steps[self._stream] += progress.parts - before
            self._read = start


def _rank(text: bytes | None) -> int | None:
    return int(text) if text is not None and len(text) <= 6 and text.isdigit() else None
