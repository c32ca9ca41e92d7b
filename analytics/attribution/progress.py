"""Lines by which a program tells that it goes on: counted over whole blocks, never one by one.

A CR ends a part of a line here, so that progress bars count as often as they were drawn. Of a run of such parts RE2
finds beginning and end; only the first and the last number is read. How blocks are cut changes nothing: what counts is
each part for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from analytics.attribution.patterns import Pattern, spans_of

_END = r"(?:\r?\n|\r)"
_REST = r"[^\r\n]*"
_COUNTED = r"(?:global[_ ]?step|train(?:ing)?[_ ]?step|step|iteration|iter|num_updates|timestep)"
_SEPARATOR = r"[\"']?[ \t]{0,4}[:=#\[(|]?[ \t]{0,12}"
_STEP = rf"(?i:(?:[^\r\n]*[^\w\r\n])?{_COUNTED}{_SEPARATOR}\d{{1,12}})(?:[^\d.\r\n]{_REST})?"
_EPOCH = rf"(?:[^\r\n]*[^\w\r\n])?[Ee](?i:poch){_SEPARATOR}\d{{1,8}}(?:[^\d\r\n]{_REST})?"
_BAR = (
    rf"(?:[^\r\n]{{0,80}}\]:? ?)?(?i:(?:train|epoch|step|iter|fit|sampl)[^\r\n:|]{{0,40}}:)? {{0,4}}\d{{1,3}}%\|{_REST}"
)
_KERAS = rf" {{0,8}}\d{{1,9}}/\d{{1,9}} (?:\[[=>.]|\x{{E2}}\x{{94}}\x{{81}}){_REST}"
_BOOSTED = rf"\[\d{{1,8}}\][ \t]{{1,4}}(?:train|valid|test|eval|training)[\w'-]{{0,20}}[^\r\n]?{_REST}"
_SOLVERS = rf"(?:Time = [\d.]|(?:DAV|RMM|CG ): {{1,4}}\d|ENERGY: {{1,12}}\d|Timing for main){_REST}"
_TASKS = rf"(?:[^\r\n]{{0,80}}[^\w\r\n])?\d{{1,9}} of \d{{1,9}} (?:steps|tasks|jobs) \(\d{{1,3}}%\) done{_REST}"
_PART = "|".join(f"(?:{form})" for form in (_STEP, _EPOCH, _BAR, _KERAS, _BOOSTED, _SOLVERS, _TASKS))

_NUMBERS = (
    rf"(?i:\W{_COUNTED}{_SEPARATOR})\d{{1,12}}",
    r"%\|[^\r\n|]{0,200}\| {0,4}\d{1,12}",
    rf"(?i:\Wepoch{_SEPARATOR})\d{{1,8}}",
    r"(?m:^)(?: {0,8}\d{1,9}/|\[\d{1,8}\][ \t])|(?:DAV|RMM|CG ): {1,4}\d{1,9}|ENERGY: {1,12}\d{1,12}",
)
"""What they count, the most telling first. A match ends with its number, or with signs behind that."""
KINDS = len(_NUMBERS)
ALWAYS_READ = 2


_RUN = spans_of(rf"(?:(?m:^)|\r)(?:(?:{_PART}){_END})+")
_FIRST = [spans_of(number) for number in _NUMBERS]
_LAST = [spans_of(rf"\A(?s:.*)(?:{number})") for number in _NUMBERS]


class Progress(Struct, array_like=True):
    """What was told so far."""

    parts: int = 0
    firsts: list[int | None] = field(default_factory=lambda: [None] * KINDS)
    lasts: list[int | None] = field(default_factory=lambda: [None] * KINDS)
    """By kind of number."""

    def read(self, block: bytes, begin: int, end: int) -> None:
        """The whole lines in `block[begin:end]`."""
        runs = []
        for start, stop in _RUN.spans(block, begin, end):
            self.parts += block.count(b"\n", start, stop)
            if (bars := block.count(b"\r", start, stop)) > 0:
                self.parts += bars - block.count(b"\r\n", start, stop) - (block[start] == 13)
            runs.append((start, stop))
        if runs:
            self._number(block, runs)

    def _number(self, block: bytes, runs: Sequence[tuple[int, int]]) -> None:
        for kind in range(KINDS):
            if kind >= ALWAYS_READ and any(told is not None for told in self.lasts[:kind]):
                self.firsts[kind] = self.lasts[kind] = None  # Nobody asks for a less telling kind.
                continue
            last = _found(_LAST[kind], block, reversed(runs))
            if last is not None:
                self.lasts[kind] = last
                if self.firsts[kind] is None:
                    self.firsts[kind] = _found(_FIRST[kind], block, runs)

    def _kind(self) -> int | None:
        """Of steps and bars what counts further; else the first kind that there is."""
        known = [kind for kind, last in enumerate(self.lasts) if last is not None]
        telling = [kind for kind in known if kind < ALWAYS_READ] or known[:1]
        return max(telling, key=lambda kind: self.lasts[kind] or 0, default=None)

    @property
    def first(self) -> int | None:
        """The first number of the most telling kind that there was."""
        kind = self._kind()
        return self.firsts[kind] if kind is not None else None

    @property
    def last(self) -> int | None:
        kind = self._kind()
        return self.lasts[kind] if kind is not None else None


def _found(pattern: Pattern, block: bytes, runs: Iterable[tuple[int, int]]) -> int | None:
    """The number that the first match in these runs ends with."""
    for start, stop in runs:
        # The character before a name may be the one that ended the line before.
        text = b"\n" + block[start:stop]
        if (span := pattern.find(text)) is not None:
            return _ending(text, span[1])
    return None


def _ending(text: bytes, end: int) -> int | None:
    while end and not text[end - 1 : end].isdigit():
        end -= 1
    begin = end
    while begin and text[begin - 1 : begin].isdigit():
        begin -= 1
    return int(text[begin:end]) if begin < end else None
