"""Spans in the order and the terms that exports need: ends that are there, parents by position, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from analytics.traces.columns import KINDS, NONE, UNFINISHED, Ints, Trace

Attributes = dict[str, Any]


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What a span said of itself beyond the columns."""

    attributes: Attributes = {}
    events: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    kind: int = 0
    status_message: str = ""
    resource: Attributes = {}


_DETAILS = msgspec.json.Decoder(Details, strict=False)
_NOTHING = Details()


@dataclass(slots=True)
class Rows:
    """`end` is when it was looked at where a span has none; `parent` is a position, -1 where its parent is not here."""

    start: list[int]
    end: list[int]
    parent: list[int]
    open: list[bool]
    first: int
    """The earliest time of all."""
    last: int


def rows_of(trace: Trace, until_ns: int | None = None) -> Rows:
    """Python lists, which loops read faster than columns. `until_ns`: when unfinished spans were looked at."""
    spans = trace.spans
    if not len(spans):
        return Rows([], [], [], [], 0, 0)
    unended = spans.end == UNFINISHED
    latest = max(int(spans.start.max()), int(spans.end.max()), until_ns or 0)
    ends = np.maximum(np.where(unended, latest, spans.end), spans.start)
    return Rows(
        spans.start.tolist(), ends.tolist(), positions(trace).tolist(), unended.tolist(), int(spans.start.min()), latest
    )


def positions(trace: Trace) -> Ints:
    """Of each span its parent's position, -1 for none: the ids of one trace are looked up among its own."""
    spans = trace.spans
    keys = np.empty(len(spans), dtype=[("trace", np.int32), ("span", np.uint64)])
    keys["trace"], keys["span"] = spans.trace, spans.span
    order = np.lexsort((spans.span, spans.trace))
    wanted = np.empty(len(spans), dtype=keys.dtype)
    wanted["trace"], wanted["span"] = spans.trace, spans.parent
    at = _search(keys[order], wanted)
    found = np.where(at < len(spans), at, 0)
    position = order[found]
    here = (spans.parent != 0) & (spans.trace[position] == spans.trace) & (spans.span[position] == spans.parent)
    return np.where(here & (position != np.arange(len(spans))), position, -1)


def _search(sorted_keys: Any, wanted: Any) -> Any:
    """searchsorted over (trace, span): ranks of the ids within each trace, in one column each."""
    if not len(sorted_keys):
        return np.zeros(len(wanted), np.int64)
    ids = np.unique(np.concatenate([sorted_keys["span"], wanted["span"]]))
    width = np.int64(len(ids))
    left = sorted_keys["trace"].astype(np.int64) * width + np.searchsorted(ids, sorted_keys["span"])
    right = wanted["trace"].astype(np.int64) * width + np.searchsorted(ids, wanted["span"])
    return np.searchsorted(left, right)


def details_of(trace: Trace, at: int) -> Details:
    """What the span said of itself; nothing where it was not kept, or is no object."""
    if trace.details is None or not trace.details[at]:
        return _NOTHING
    try:
        return _DETAILS.decode(trace.details[at])
    except msgspec.MsgspecError:
        return _NOTHING


def attributes_of(trace: Trace, at: int) -> Attributes:
    """Its attributes as they came, and what the columns know of it where these do not say it."""
    spans = trace.spans
    found = dict(details_of(trace, at).attributes)
    for name, table, code in (
        ("data_id", trace.data_ids, int(spans.data[at])),
        ("batch_id", trace.data_ids, int(spans.batch[at])),
        ("source_data_id", trace.data_ids, int(spans.source[at])),
        ("worker.id", trace.providers, int(spans.provider[at])),
        ("flowmesh.type", KINDS, int(spans.kind[at]) or NONE),
    ):
        if code != NONE:
            found.setdefault(name, table[code])
    if spans.attempt[at]:
        found.setdefault("attempt", int(spans.attempt[at]))
    return found


def named(table: Sequence[str], code: int) -> str:
    """The string of a code; empty for none."""
    return table[code] if code != NONE else ""
