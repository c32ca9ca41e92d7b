"""RE2 over bytes: the one way in which patterns are compiled here. Time is linear in the text, whatever the pattern."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import re2

MEMORY_BYTES = 1 << 20
UNION_MEMORY_BYTES = 64 << 20
"""Of what many patterns become together: with less its automaton is thrown away and built anew all the time."""


class Match(Protocol):
    """What was found, in bytes. Groups go by number."""

    def start(self, group: int = 0) -> int: ...
    def end(self, group: int = 0) -> int: ...
    def group(self, group: int = 0) -> bytes | None: ...


class Pattern(Protocol):
    """Compiled. `^` and `$` are the text's, unless the pattern says otherwise."""

    @property
    def groupindex(self) -> dict[bytes, int]: ...

    def search(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> Match | None: ...
    def finditer(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> Iterator[Match]: ...


class BadPattern(ValueError):
    """RE2 does not take it."""


def compiled(pattern: str, *, lines: bool = False, memory_bytes: int = MEMORY_BYTES) -> Pattern:
    """Raises BadPattern. Without `lines` no match holds a new line."""
    try:
        found: Pattern = re2.compile(pattern.encode(), _options(memory_bytes, lines))
    except re2.error as error:
        why = error.args[0]
        raise BadPattern(why.decode(errors="replace") if isinstance(why, bytes) else str(why)) from error
    return found


def spans_of(pattern: str) -> Pattern:
    """For where it matches alone, over many lines at once."""
    options = _options(UNION_MEMORY_BYTES, lines=True)
    options.never_capture = True
    found: Pattern = re2.compile(pattern.encode(), options)
    return found


def _options(memory_bytes: int, lines: bool) -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = memory_bytes
    options.never_nl = not lines
    options.log_errors = False
    return options
