"""What launchers and loggers put before a line: ranks, hosts, times. They go, and what they say is kept."""

from __future__ import annotations

import re2
from msgspec import Struct

NESTED_MAX = 6
_PREFIX = re2.compile(
    rb"^(?:\[(?:rank|default)?(\d{1,5})\]:? ?|(\d{1,5}): |\[\d+,(\d{1,5})\]<std(?:out|err)>:? ?)"
)


class Stripped(Struct, frozen=True, gc=False):
    """`text` is what is left of the line."""

    text: bytes
    rank: int | None = None
    host: bytes = b""
    at_ms: int | None = None


def strip(line: bytes) -> Stripped:
    """Without prefixes, nested ones too; the innermost rank counts."""
    rank: int | None = None
    for _ in range(NESTED_MAX):
        found = _PREFIX.search(line)
        if found is None:
            break
        number = found.group(1) or found.group(2) or found.group(3)
        rank, line = int(number), line[found.end() :]
    return Stripped(line, rank)
