"""Query parameters into a struct: every name is known, given once, and in range, or the answer says which is not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import unquote_plus

import msgspec

from coordinator.core.errors import Code, CoordError

Q = TypeVar("Q", bound=msgspec.Struct)

PARAMETERS_MAX = 32
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WHERE = re.compile(r" - at `\$\.?(\w*)[^`]*`$")


class NoQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A route without query parameters."""


def parse_query(text: str, into: type[Q]) -> Q:
    """The raw query string as `into`. CoordError(BAD_REQUEST) names the parameter and what it takes."""
    known = into.__struct_encode_fields__
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        if not part:
            continue
        name, _, value = part.partition("=")
        name, value = _plain(name), _plain(value)
        if name not in known:
            raise _unknown(name, known)
        if name in found:
            raise CoordError(Code.BAD_REQUEST, f"query parameter {name} was given twice", "give it once")
        found[name] = value
        if len(found) > PARAMETERS_MAX:
            raise CoordError(Code.BAD_REQUEST, "there are too many query parameters", "docs/reference/http.md")
    try:
        return msgspec.convert(found, into, strict=False)
    except msgspec.ValidationError as error:
        where = _WHERE.search(str(error))
        name = where.group(1) if where else ""
        said = str(error)[: where.start()] if where else str(error)
        given = f"={shown(found[name])}" if name in found else ""
        raise CoordError(
            Code.BAD_REQUEST,
            f"query parameter {name}{given} is not taken: {said[:1].lower()}{said[1:]}",
            "docs/reference/http.md has the parameters of every path",
        ) from None


def _plain(text: str) -> str:
    if _ESCAPE.search(text):
        raise CoordError(Code.BAD_REQUEST, f"{shown(text)} has a broken % escape", "write a lone % as %25")
    try:
        plain = unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise CoordError(Code.BAD_REQUEST, f"{shown(text)} is not UTF-8", "percent-encode UTF-8") from None
    if "\x00" in plain:
        raise CoordError(Code.BAD_REQUEST, f"{shown(text)} holds a NUL", "leave it away")
    return plain


def _unknown(name: str, known: tuple[str, ...]) -> CoordError:
    near = nearest(name, known)
    hint = f"did you mean {near}? " if near else ""
    hint += f"this path takes: {', '.join(known)}" if known else "this path takes no query parameters"
    return CoordError(Code.BAD_REQUEST, f"there is no query parameter {shown(name)} here", hint)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody may have meant."""
    found = difflib.get_close_matches(name[:64], list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def shown(text: str) -> str:
    """What somebody sent, safe and short enough for a message."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")
