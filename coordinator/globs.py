"""Patterns over paths, with one meaning for whoever declares outputs, collects them, and picks from them. Pure.

`*` and `?` stand for characters within a part, `[abc]`, `[a-z]` and `[!abc]` for one of them, a part `**` for any
number of parts. Case counts, a leading dot is nothing special, a backslash is a character like others; `[*]` is a star.

Matched by two greedy walks (over parts, over characters) that go back to the last star alone: at most the product of
both lengths, where a regular expression made of somebody's pattern can take for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from coordinator.core.errors import Code, CoordError
from coordinator.manifest import check_path

T = TypeVar("T")
U = TypeVar("U")

DEEP = "**"
_Sign = str | tuple[bool, tuple[tuple[str, str], ...]]
"""A character, or a class: (excluded?, ranges). `*` and `?` that mean themselves are classes of one."""


def normal(pattern: str) -> str:
    """`pattern` in the one form that `matches` takes: no `./` before it, and `dir/` is `dir/**`, all beneath it.

    CoordError(BAD_REQUEST) for what cannot be a path beneath a directory, and for `**` beside other characters.
    """
    plain = pattern
    while plain.startswith("./"):
        plain = plain[2:].lstrip("/")
    if plain.endswith("/"):
        plain = plain.rstrip("/") + "/" + DEEP
    check_path(plain)
    for part in plain.split("/"):
        if DEEP in part and part != DEEP:
            raise CoordError(
                Code.BAD_REQUEST, f"{pattern[:80]!a}: ** stands beside other characters", "write it alone: dir/**/*.pt"
            )
    return plain


def is_plain(pattern: str) -> bool:
    """Whether it can match one path alone, which it then is."""
    return not any(sign in pattern for sign in "*?[")


def matches(pattern: str, path: str) -> bool:
    """Whether `path` (as `manifest.check_path` has them) is one of those that `pattern` (in normal form) names."""
    wanted = pattern.split("/")
    parts = path.split("/")
    if wanted[-1] == DEEP:
        # Everything beneath a directory is not the directory itself: there has to be a part that it stands for.
        wanted[-1:] = [DEEP, "*"]
    return _walk(wanted, parts, lambda one: one == DEEP, _part_matches)


@lru_cache(maxsize=4096)
def _signs(part: str) -> tuple[_Sign, ...]:
    signs: list[_Sign] = []
    at = 0
    while at < len(part):
        # The first character of a class may be `]` itself.
        begin = at + 2 if part[at + 1 : at + 2] == "!" else at + 1
        end = part.find("]", begin + 1) if part[at] == "[" else -1
        if end == -1:
            signs.append(part[at])
            at += 1
            continue
        signs.append((begin == at + 2, tuple(_ranges(part[begin:end]))))
        at = end + 1
    return tuple(signs)


def _ranges(inner: str) -> Sequence[tuple[str, str]]:
    found = []
    at = 0
    while at < len(inner):
        if inner[at + 1 : at + 2] == "-" and at + 2 < len(inner):
            found.append((inner[at], inner[at + 2]))
            at += 3
        else:
            found.append((inner[at], inner[at]))
            at += 1
    return found


def _part_matches(part: str, name: str) -> bool:
    return _walk(_signs(part), name, lambda sign: sign == "*", _sign_matches)


def _sign_matches(sign: _Sign, character: str) -> bool:
    if isinstance(sign, str):
        return sign in ("?", character)
    excluded, ranges = sign
    return any(low <= character <= high for low, high in ranges) is not excluded


def _walk(wanted: Sequence[T], found: Sequence[U], is_star: Callable[[T], bool], fits: Callable[[T, U], bool]) -> bool:
    """Whether `wanted` stands for all of `found`, where a star stands for any number of them, none included."""
    at = here = 0
    star = back = -1
    while here < len(found):
        if at < len(wanted) and is_star(wanted[at]):
            star, back = at, here
            at += 1
        elif at < len(wanted) and fits(wanted[at], found[here]):
            at += 1
            here += 1
        elif star >= 0:
            back += 1
            at, here = star + 1, back
        else:
            return False
    return all(is_star(one) for one in wanted[at:])
