"""What every line that a pattern matches must hold: texts, and a simpler pattern made of them. The gate needs them.

Reads the syntax of RE2 as far as needed; what it does not understand requires nothing, which is always true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import re2

CHARS_MIN = 3
"""Shorter texts are in every other line."""
SET_MAX = 64
"""Texts that one pattern may ask for."""
CLASS_MAX = 4
"""Characters of a class that are tried one by one; a larger class requires nothing."""
REPEATS_MAX = 4
DEPTH_MAX = 64
"""Groups within groups."""

Texts = frozenset[str]
ANYTHING = r"[^\n]*"
_NOTHING: Texts = frozenset([""])
_ASSERTIONS = frozenset("bBAz")
_FREQUENT = frozenset(
    (
        "argument",
        "attempt",
        "batch",
        "check",
        "checkpoint",
        "code",
        "complete",
        "config",
        "connect",
        "connection",
        "count",
        "cuda",
        "data",
        "device",
        "epoch",
        "error",
        "exit",
        "file",
        "found",
        "gradient",
        "http",
        "https",
        "image",
        "info",
        "input",
        "invalid",
        "key",
        "layer",
        "load",
        "loading",
        "loss",
        "message",
        "model",
        "module",
        "node",
        "number",
        "option",
        "output",
        "parameter",
        "path",
        "pull",
        "rank",
        "received",
        "request",
        "run",
        "shape",
        "size",
        "status",
        "step",
        "tensor",
        "test",
        "time",
        "token",
        "train",
        "user",
        "value",
        "version",
        "warning",
    )
)
"""Words of which healthy logs are full."""
_CONTROLS = {"t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


@dataclass(frozen=True, slots=True)
class Required:
    """Of one pattern."""

    texts: Texts
    """A match holds one of these, each of at least CHARS_MIN characters."""
    form: str
    """A pattern without classes and counts that matches wherever it does, and seldom elsewhere."""
    folds: bool
    """In any case: so are `texts` meant, and `form`."""


@dataclass(frozen=True, slots=True)
class _Part:
    """`exact`: all that it matches, None if that is too much. `need`: a match holds one of these; None: nothing is.
    `form`: see Required; empty: nothing is needed. `between`: what may stand for it between two texts."""

    exact: Texts | None
    need: Texts | None
    form: str = ""
    between: str = ANYTHING


_ANY = _Part(None, None)
_EMPTY = _Part(_NOTHING, None)


@lru_cache(maxsize=4_096)
def required(pattern: str) -> Required | None:
    """None: nothing of at least CHARS_MIN characters is. ValueError: its groups are nested too deep."""
    reader = _Reader(pattern)
    part = reader.alternatives()
    found = _best(part)
    if reader.at < len(pattern) or found is None or min(map(len, found)) < CHARS_MIN:
        return None
    form = _form(part)
    return Required(found, f"(?i:{form})" if reader.folds else form, reader.folds)


class _Form:
    """Of a sequence: its texts, and what may be between them."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._after = ""

    def text(self, run: Texts) -> None:
        """A short one is looked for behind another one alone."""
        if run == _NOTHING:
            return
        if self._pieces:
            self._pieces += [self._after, _one_of(run)]
        elif min(map(len, run)) >= CHARS_MIN:
            self._pieces = [_one_of(run)]
        self._after = ""

    def part(self, part: _Part) -> None:
        if part.form:
            self._pieces += [ANYTHING, part.form] if self._pieces else [part.form]
            self._after = ANYTHING
        elif self._after != ANYTHING:
            self._after = ANYTHING if part.between == ANYTHING else self._after + part.between

    def whole(self) -> str:
        """What follows the last text counts where it is no more than a class or two."""
        after = "" if self._after.endswith(ANYTHING) else self._after
        return "".join([*self._pieces, after]) if self._pieces else ""


class _Reader:
    """By recursive descent. Where any part ignores case, all do: the gate then lets a little more through."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0
        self.folds = False
        self._depth = 0

    def alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            parts.append(self._sequence())
        if len(parts) == 1:
            return parts[0]
        exact = _union([part.exact for part in parts])
        forms = [_form(part) for part in parts]
        form = f"(?:{'|'.join(forms)})" if all(forms) else ""
        return _Part(exact, _union([_best(part) for part in parts]), form)

    def _sequence(self) -> _Part:
        exact: Texts | None = _NOTHING
        run: Texts = _NOTHING
        needs: list[Texts] = []
        form = _Form()
        while self._peek() not in ("", "|", ")"):
            part = self._repeated(self._one())
            if part.exact is not None and len(run) * len(part.exact) <= SET_MAX:
                run = frozenset(begun + more for begun in run for more in part.exact)
                continue
            exact = None
            needs.append(run)
            form.text(run)
            run = part.exact if part.exact is not None else _NOTHING
            if part.need is not None:
                needs.append(part.need)
            if part.exact is None:
                form.part(part)
        if exact is not None:
            return _Part(run, None)
        form.text(run)
        return _Part(None, max([*needs, run], key=_worth) or None, form.whole())

    def _one(self) -> _Part:
        begin = self.at
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return self._sourced(self._class(), begin)
        if character == "\\":
            return self._sourced(self._escaped(), begin)
        if character == ".":
            return _ANY
        return _EMPTY if character in "^$" else self._literal(character)

    def _sourced(self, part: _Part, begin: int) -> _Part:
        """A class stands for itself between two texts."""
        return part if part.exact is not None else _Part(None, None, "", self._pattern[begin : self.at])

    def _repeated(self, part: _Part) -> _Part:
        while True:
            low, high = 1, 1
            sign = self._peek()
            if sign in ("*", "+", "?"):
                self.at += 1
                low, high = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[sign]
            elif sign == "{" and (bounds := self._bounds()) is not None:
                low, high = bounds
            else:
                return part
            if self._peek() == "?":
                self.at += 1
            part = _repeat(part, low, high)

    def _bounds(self) -> tuple[int, int] | None:
        end = self._pattern.find("}", self.at)
        low, comma, high = self._pattern[self.at + 1 : end].partition(",")
        if end < 0 or not low.isdecimal() or (high and not high.isdecimal()):
            return None
        self.at = end + 1
        return int(low), int(high) if high else -1 if comma else int(low)

    def _group(self) -> _Part:
        if self._peek() == "?":
            end = min((found for found in map(self._find, ":>)") if found >= 0), default=len(self._pattern))
            head, self.at = self._pattern[self.at : end + 1], end + 1
            self.folds |= "i" in head.partition("-")[0] and not head.startswith(("?P<", "?<"))
            if head.endswith(")"):
                return _EMPTY
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ValueError(f"its groups are nested more than {DEPTH_MAX} deep")
        part = self.alternatives()
        self._depth -= 1
        self.at += 1
        return part

    def _class(self) -> _Part:
        begin = self.at
        end = self._pattern.find("]", begin + 1 + (self._peek() == "^"))
        while end > 0 and self._escapes(begin, end):
            end = self._pattern.find("]", end + 1)
        members = self._pattern[begin:end]
        self.at = end + 1 if end > 0 else len(self._pattern)
        if "[:" in members:
            self.at = len(self._pattern)
            return _ANY
        if end < 0 or len(members) > CLASS_MAX or any(sign in members for sign in "^\\-"):
            return _ANY
        return _Part(frozenset(self._cased(member) for member in members), None)

    def _escapes(self, begin: int, end: int) -> bool:
        before = self._pattern[begin:end]
        return (len(before) - len(before.rstrip("\\"))) % 2 == 1

    def _escaped(self) -> _Part:
        character = self._take()
        if character in _ASSERTIONS:
            return _EMPTY
        if character in _CONTROLS:
            return self._literal(_CONTROLS[character])
        if not character.isalnum():
            return self._literal(character)
        if character in "xpPQC":
            self.at = len(self._pattern)
        return _ANY

    def _literal(self, character: str) -> _Part:
        return _Part(frozenset([self._cased(character)]), None)

    def _cased(self, character: str) -> str:
        return character.lower() if self.folds else character

    def _peek(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _take(self) -> str:
        self.at += 1
        return self._pattern[self.at - 1 : self.at]

    def _find(self, character: str) -> int:
        return self._pattern.find(character, self.at)


def _repeat(part: _Part, low: int, high: int) -> _Part:
    if part.exact is not None and high == 1:
        return _Part(part.exact | _NOTHING if low == 0 else part.exact, None)
    if part.exact is not None and low == high <= REPEATS_MAX and len(part.exact) == 1:
        (text,) = part.exact
        return _Part(frozenset([text * low]), None)
    return _Part(None, _best(part) if low else None, _form(part) if low else "", _relaxed(part.between, low, high))


def _relaxed(between: str, low: int, high: int) -> str:
    """Without counts: these are what makes automatons large."""
    if between == ANYTHING or (low, high) == (1, 1):
        return between
    return f"(?:{between})" + {(0, 1): "?", (1, -1): "+"}.get((low, high), "*" if low == 0 else "+")


def _best(part: _Part) -> Texts | None:
    found = part.exact if part.exact is not None else part.need
    return found if found and "" not in found else None


def _form(part: _Part) -> str:
    if part.exact is None:
        return part.form
    return _one_of(part.exact) if min(map(len, part.exact)) >= CHARS_MIN else ""


def _one_of(texts: Texts) -> str:
    escaped = [re2.escape(text) for text in sorted(texts)]
    return f"(?:{'|'.join(escaped)})" if len(escaped) > 1 else escaped[0]


def _union(sets: list[Texts | None]) -> Texts | None:
    together: set[str] = set()
    for one in sets:
        if one is None:
            return None
        together |= one
    return frozenset(together) if len(together) <= SET_MAX else None


def _worth(texts: Texts) -> tuple[int, int]:
    """The longer and the rarer its most frequent text is, the better; then the fewer texts."""
    return (min(map(_rarity, texts)), -len(texts))


def _rarity(text: str) -> int:
    word = text.strip(" :=.,'\"()[]").lower()
    return min(len(word), 2) if word in _FREQUENT or word.isdigit() else len(text)
