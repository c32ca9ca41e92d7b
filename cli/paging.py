"""Lists that the coordinator gives a page at a time, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

A = TypeVar("A")


def collect(fetch: Callable[[int, str | None], A], limit: int, page_max: int) -> A:
    """Ask page after page until there are `limit` entries (0: all), and return them as one answer.

    `fetch(limit, page)` asks for one page; `page_max` is the most that one may hold.
    """
    answer: Any = fetch(min(limit, page_max) if limit else page_max, None)
    entries = list(answer.entries)
    while answer.next_page is not None and (limit == 0 or len(entries) < limit):
        left = limit - len(entries) if limit else page_max
        answer = fetch(min(left, page_max), answer.next_page)
        entries.extend(answer.entries)
    whole: A = replace(answer, entries=tuple(entries))
    return whole
