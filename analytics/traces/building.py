"""From rows in any order to a canonical `Trace`: strings become numbers, repeated spans become one, all is sorted.

Of several rows with one (trace, span) the finished one stays, of those the one that ended last, and then the smallest
in all its columns: the same whatever the order they came in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from analytics.traces.columns import (
    KINDS,
    NONE,
    SPAN_DTYPES,
    STATUSES,
    UNFINISHED,
    Assets,
    Codes,
    Lineage,
    Spans,
    Trace,
)
from analytics.traces.details import FiledDetails, picked
from analytics.traces.rejects import merged

SPANS_MAX = 20_000_000
"""Rows that one trace may have; 1.5 GB."""
CLOCKS_MAX = 10_000
"""Measured offsets that are held before all but the tightest of each provider are dropped."""
TABLES = {
    "trace": "traces",
    "name": "names",
    "data": "data_ids",
    "batch": "data_ids",
    "source": "data_ids",
    "provider": "providers",
    "label": "labels",
    "key": "labels",
}
"""Which table of a Trace a column of spans points into."""
_TABLE_NAMES = ("traces", "names", "data_ids", "providers", "labels", "guids", "users", "workflows")


class SpanRow(Struct, gc=False, kw_only=True):
    """One span, as every format is understood."""

    trace: str
    """32 hex digits, with or without 0x."""
    span: int
    name: str
    start_ns: int
    end_ns: int = UNFINISHED
    parent: int = 0
    data_id: str | None = None
    batch_id: str | None = None
    source_data_id: str | None = None
    provider: str | None = None
    slot: int = NONE
    attempt: int = 0
    label: str | None = None
    """The task's name."""
    key: str | None = None
    kind: str | None = None
    """One of KINDS; others count as none."""
    status: str = "UNSET"
    """One of STATUSES."""
    flags: int = 0
    clock: tuple[int, int] | None = None
    """Its provider's clock: offset and bound, as the agent measured it."""
    workflow_id: str | None = None
    details: bytes = b"{}"
    """See Trace.details."""


class AssetRow(Struct, gc=False, kw_only=True):
    data_id: str
    asset_guid: str
    version: int = 1
    user_id: str = ""
    created_ns: int = 0


class LineageRow(Struct, gc=False, kw_only=True):
    data_id: str
    source_data_id: str
    created_ns: int = 0


class _Numbers(dict[str | None, int]):
    """A string's number: the next one for a string that is new, NONE for None and, unless it is a name, for the empty
    one."""

    def __init__(self, normal: Callable[[str], str] | None = None, *, names: bool = False) -> None:
        super().__init__({None: NONE} if names else {None: NONE, "": NONE})
        self._normal = normal
        self.strings: list[str] = []

    def __missing__(self, text: str) -> int:
        normal = self._normal(text) if self._normal is not None else text
        if normal != text:
            number = self[text] = self[normal]
            return number
        number = self[text] = len(self.strings)
        self.strings.append(text)
        return number

    def codes(self, values: Sequence[str | None]) -> Codes:
        return np.fromiter(map(self.__getitem__, values), np.int32, len(values))


def trace_text(text: str) -> str:
    """A trace id as `Trace.traces` has it: 32 small hex digits."""
    return text.removeprefix("0x").lower().zfill(32)


_KIND = {name: number for number, name in enumerate(KINDS)}
_STATUS = {name: number for number, name in enumerate(STATUSES)}


class TraceBuilder:
    """Takes rows, and columns of rows, and gives the trace that they are. Above `spans_max` spans are counted only.
    `details` are kept as a list; of a run that may have millions of spans in FiledDetails."""

    def __init__(self, *, details: bool | FiledDetails = False, spans_max: int = SPANS_MAX) -> None:
        self._numbers = {
            name: _Numbers(trace_text if name == "traces" else None, names=name == "names") for name in _TABLE_NAMES
        }
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in SPAN_DTYPES}
        self._details: list[bytes] | FiledDetails | None = details if isinstance(details, FiledDetails) else None
        if details is True:
            self._details = []
        self._lineage: list[tuple[Codes, Codes, NDArray[np.int64]]] = []
        self._asset_columns: list[tuple[Codes, Codes, NDArray[np.int64], Codes, NDArray[np.int64]]] = []
        self._clocks: set[str] = set()
        self._spans_max = spans_max
        self.spans = 0
        """Rows that were taken."""
        self.overflow = 0
        """Rows that were too many."""

    @property
    def details(self) -> bool:
        """Whether `Trace.details` is kept."""
        return self._details is not None

    def add_spans(self, rows: Iterable[SpanRow]) -> None:
        """Rows whose times, ids and lengths of strings were checked by who read them."""
        rows = list(rows)
        if not rows:
            return
        for row in rows:
            if row.clock is not None and row.provider is not None and "\t" not in row.provider:
                self.add_clock(row.provider, *row.clock)
        self.add_columns(
            details=[row.details for row in rows] if self.details else None,
            workflows=[row.workflow_id for row in rows],
            start=[row.start_ns for row in rows],
            end=[row.end_ns for row in rows],
            span=[row.span for row in rows],
            parent=[row.parent for row in rows],
            trace=[row.trace for row in rows],
            name=[row.name for row in rows],
            data=[row.data_id for row in rows],
            batch=[row.batch_id for row in rows],
            source=[row.source_data_id for row in rows],
            provider=[row.provider for row in rows],
            slot=[row.slot for row in rows],
            attempt=[row.attempt for row in rows],
            label=[row.label for row in rows],
            key=[row.key for row in rows],
            kind=[_KIND.get(row.kind or "", 0) for row in rows],
            status=[_STATUS.get(row.status, 0) for row in rows],
            flags=[row.flags for row in rows],
        )

    def add_columns(
        self, *, details: list[bytes] | None, workflows: Sequence[str | None] | None, **columns: Any
    ) -> None:
        """The same as columns of equal length: strings as lists, numbers as lists or arrays; none of a column that is
        left out. Nothing is taken when one of them cannot be (OverflowError, ValueError)."""
        count = len(columns["start"])
        taken = min(count, self._spans_max - self.spans)
        self.overflow += count - taken
        if not taken:
            return
        made = {}
        for name, dtype in SPAN_DTYPES.items():
            values = columns.get(name)
            if values is None:
                made[name] = np.full(taken, _DEFAULTS.get(name, NONE), dtype)
            elif isinstance(values, np.ndarray):
                made[name] = values[:taken].astype(dtype, copy=False)
            elif name in TABLES:
                made[name] = self._numbers[TABLES[name]].codes(values[:taken])
            else:
                made[name] = np.array(values[:taken], dtype)
        for name, column in made.items():
            self._columns[name].append(column)
        if workflows is not None:
            workflow_numbers = self._numbers["workflows"]
            workflow_numbers.codes(list(set(workflows)))
        if self._details is not None:
            self._details.extend(details[:taken] if details is not None else [b"{}"] * taken)
        self.spans += taken

    def add_assets(self, rows: Sequence[AssetRow]) -> None:
        numbers = self._numbers
        self._asset_columns.append(
            (
                numbers["data_ids"].codes([row.data_id for row in rows]),
                numbers["guids"].codes([row.asset_guid for row in rows]),
                np.array([row.version for row in rows], np.int64),
                numbers["users"].codes([row.user_id for row in rows]),
                np.array([row.created_ns for row in rows], np.int64),
            )
        )

    def add_lineage(self, rows: Sequence[LineageRow]) -> None:
        numbers = self._numbers["data_ids"]
        self._lineage.append(
            (
                numbers.codes([row.data_id for row in rows]),
                numbers.codes([row.source_data_id for row in rows]),
                np.array([row.created_ns for row in rows], np.int64),
            )
        )

    def add_clock(self, provider: str, offset_ns: int, bound_ns: int) -> None:
        """The coordinator's clock less the provider's, as its agent measured it, +- `bound_ns`."""
        self._clocks.add(f"{provider}\t{offset_ns}\t{bound_ns}")
        if len(self._clocks) > CLOCKS_MAX:
            self._clocks = set(tightest(self._clocks))

    def finish(self) -> Trace:
        """What was added, once. The builder is spent."""
        columns = {name: _united(self._columns.pop(name), dtype) for name, dtype in SPAN_DTYPES.items()}
        assets = [_united([part[n] for part in self._asset_columns], dtype) for n, dtype in enumerate(_ASSET_DTYPES)]
        lineage = [_united([part[n] for part in self._lineage], dtype) for n, dtype in enumerate(_LINEAGE_DTYPES)]
        tables = {name: numbers.strings for name, numbers in self._numbers.items()}
        self._numbers = {}
        trace = _canonical(Spans(**columns), Assets(*assets), Lineage(*lineage), tables, self._details, 0)
        trace.clocks = tightest(self._clocks)
        return trace


def tightest(clocks: Iterable[str]) -> list[str]:
    """Of each provider the one with the tightest bound; of equal ones the first in the alphabet."""
    best: dict[str, tuple[int, str]] = {}
    for text in clocks:
        provider, _, bound = text.rsplit("\t", 2)
        best[provider] = min(best.get(provider, (2**63, "")), (int(bound), text))
    return sorted(text for _, text in best.values())


def joined(parts: Sequence[Trace]) -> Trace:
    """What several traces hold together; a span that is in more than one is there once. Details are kept where all
    have them."""
    numbers = {name: _Numbers(names=name == "names") for name in _TABLE_NAMES}
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in SPAN_DTYPES}
    assets: list[Assets] = []
    lineage: list[Lineage] = []
    for part in parts:
        codes = {
            name: np.append(numbers[name].codes(getattr(part, name)), np.int32(NONE))
            for name in _TABLE_NAMES
            if name != "workflows"
        }
        for name in SPAN_DTYPES:
            column = getattr(part.spans, name)
            columns[name].append(codes[TABLES[name]][column] if name in TABLES else column)
        held = part.assets
        guids, users = codes["guids"][held.guid], codes["users"][held.user]
        assets.append(Assets(codes["data_ids"][held.data], guids, held.version, users, held.created))
        edges = part.lineage
        lineage.append(Lineage(codes["data_ids"][edges.data], codes["data_ids"][edges.source], edges.created))
        if part.workflow_id:
            numbers["workflows"][part.workflow_id]
    clocks = tightest(chain.from_iterable(part.clocks for part in parts))
    details = None
    if all(part.details is not None for part in parts):
        details = list(chain.from_iterable(part.details or () for part in parts))
    trace = _canonical(
        Spans(**{name: _united(columns.pop(name), dtype) for name, dtype in SPAN_DTYPES.items()}),
        Assets(
            *(_united([getattr(a, n) for a in assets], d) for n, d in zip(_ASSET_NAMES, _ASSET_DTYPES, strict=True))
        ),
        Lineage(
            *(
                _united([getattr(e, n) for e in lineage], d)
                for n, d in zip(_LINEAGE_NAMES, _LINEAGE_DTYPES, strict=True)
            )
        ),
        {name: held.strings for name, held in numbers.items()},
        details,
        sum(part.duplicates for part in parts),
    )
    trace.clocks = clocks
    trace.rejects = merged(chain.from_iterable(part.rejects for part in parts))
    return trace


_DEFAULTS = {"end": UNFINISHED, "parent": 0, "attempt": 0, "kind": 0, "status": 0, "flags": 0}
_ASSET_NAMES, _ASSET_DTYPES = Assets.__slots__, (np.int32, np.int32, np.int64, np.int32, np.int64)
_LINEAGE_NAMES, _LINEAGE_DTYPES = Lineage.__slots__, (np.int32, np.int32, np.int64)
_NUMBER = r"(?:0|[1-9][0-9]{0,14})"
_DOTTED = re.compile(rf"(?:{_NUMBER}(?:\.{_NUMBER}){{0,3}}\n)+", re.ASCII)


def _united(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _sorted_table(strings: list[str], dotted: bool) -> tuple[list[str], Codes]:
    """The strings sorted, and the new number of each old one; the last is NONE's. Where all are dotted numbers, these
    are what is sorted by."""
    order = _dotted_order(strings) if dotted else None
    if order is None:
        order = sorted(range(len(strings)), key=strings.__getitem__)
    ranks = np.full(len(strings) + 1, NONE, np.int32)
    ranks[order] = np.arange(len(strings), dtype=np.int32)
    return [strings[number] for number in order], ranks


def _dotted_order(strings: list[str]) -> list[int] | None:
    """Looked at as one text: 200,000 ids take 60 ms, one by one they took 400."""
    text = "\n".join(strings) + "\n"
    if _DOTTED.fullmatch(text) is None or text.count("\n") != len(strings):
        return None
    numbers = np.array(text.replace(".", "\n").split(), np.int64)
    parts = strings[0].count(".") + 1
    if len(numbers) == parts * len(strings) and all(one.count(".") == parts - 1 for one in strings):
        order: list[int] = np.lexsort(numbers.reshape(-1, parts).T[::-1]).tolist()
        return order
    keys = [tuple(map(int, one.split("."))) for one in strings]
    return sorted(range(len(strings)), key=keys.__getitem__)


def _canonical(
    spans: Spans,
    assets: Assets,
    lineage: Lineage,
    tables: dict[str, list[str]],
    details: Sequence[bytes] | None,
    duplicates: int,
) -> Trace:
    ranks: dict[str, Codes] = {}
    for name, strings in tables.items():
        tables[name], ranks[name] = _sorted_table(strings, name == "data_ids")
    for name, table in TABLES.items():
        setattr(spans, name, ranks[table][getattr(spans, name)])
    data = ranks["data_ids"]
    assets = Assets(
        data[assets.data], ranks["guids"][assets.guid], assets.version, ranks["users"][assets.user], assets.created
    )
    lineage = Lineage(data[lineage.data], data[lineage.source], lineage.created)
    kept = _span_order(spans, details)
    duplicates += len(spans) - len(kept)
    for name in SPAN_DTYPES:
        setattr(spans, name, getattr(spans, name)[kept])
    if details is not None:
        details = picked(details, kept)
    versions = _first_of((assets.data, assets.guid, assets.version), (assets.created, assets.user))
    edges = _first_of((lineage.data, lineage.source), (lineage.created,))
    duplicates += len(assets) - len(versions) + len(lineage) - len(edges)
    workflows = tables["workflows"]
    return Trace(
        spans=spans,
        assets=Assets(*(getattr(assets, name)[versions] for name in _ASSET_NAMES)),
        lineage=Lineage(*(getattr(lineage, name)[edges] for name in _LINEAGE_NAMES)),
        workflow_id=workflows[0] if len(workflows) == 1 else "",
        details=details,
        duplicates=duplicates,
        **{name: tables[name] for name in _TABLE_NAMES if name != "workflows"},
    )


def _span_order(spans: Spans, details: Sequence[bytes] | None) -> NDArray[np.intp]:
    """The rows that stay, in the order of (start, end, trace, span)."""
    order = np.lexsort((spans.span, spans.trace, spans.end, spans.start))
    ids = np.sort(spans.span)
    twice = ids[1:][ids[1:] == ids[:-1]]
    if not len(twice):
        return order
    rows = np.flatnonzero(np.isin(spans.span, twice))
    rest = [getattr(spans, name)[rows] for name in SPAN_DTYPES if name not in ("trace", "span", "end")]
    if details is not None:
        rest.append(np.unique(np.array(list(picked(details, rows)), object), return_inverse=True)[1])
    best = rows[np.lexsort((*rest, -spans.end[rows], spans.span[rows], spans.trace[rows]))]
    span, trace = spans.span[best], spans.trace[best]
    again = np.zeros(len(spans), bool)
    again[best[1:]] = (span[1:] == span[:-1]) & (trace[1:] == trace[:-1])
    return order[~again[order]]


def _first_of(keys: tuple[NDArray[Any], ...], rest: tuple[NDArray[Any], ...]) -> NDArray[np.intp]:
    """Rows with the smallest `rest` of each different `keys`, in the order of the keys."""
    order = np.lexsort((*reversed(rest), *reversed(keys)))
    if not len(order):
        return order
    new = np.ones(len(order), bool)
    new[1:] = False
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order[new]
