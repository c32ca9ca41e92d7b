"""Spans in the order and the terms that exports need: ends that are there, parents by position, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import KINDS, NONE, UNFINISHED, Trace
from analytics.traces.tree import tree_of
from coordinator.api_types.trace import Profile

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
    """`end` is when it was looked at where a span has none; `parent` is a position, -1 where its parent is not here, or
    lies within it."""

    start: Sequence[int]
    end: Sequence[int]
    parent: Sequence[int]
    open: Sequence[bool]
    first: int
    """The earliest time of all."""
    last: int


def rows_of(trace: Trace, profile: Profile) -> Rows:
    """Columns as loops read them. Times are those of the analysis: where it set providers' clocks right these are;
    spans without an end last until it was looked at."""
    spans = trace.spans
    until = profile.real_critical_path.end_ns
    if not len(spans):
        return Rows([], [], [], [], until, until)
    ahead = np.zeros(len(trace.providers) + 1, np.int64)  # the last is for NONE
    if profile.skew.corrected:
        codes = {name: code for code, name in enumerate(trace.providers)}
        for one in profile.skew.offsets:
            if one.provider in codes:
                ahead[codes[one.provider]] = one.offset_ns
    by = ahead[spans.provider]
    unended = spans.end == UNFINISHED
    starts = spans.start - by
    ends = np.where(unended, until, spans.end - by)
    latest = max(int(starts.max()), int(ends.max()), until)
    ends = np.maximum(np.where(unended, latest, ends), starts)
    parents = tree_of(trace).parent
    return Rows(plain(starts), plain(ends), plain(parents), plain(unended), int(starts.min()), latest)


def plain(column: NDArray[Any]) -> Any:
    """A column as a sequence of Python's own numbers, made one at a time: a list of a million of them is 40 MB."""
    return column.data


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
