"""Where the ranks of a job parted: which collective of which process group some of them never got to.

In a collective everybody waits for everybody. In a group whose members came to different sequence numbers, those who
are behind are waited for. Who is behind in one group and waits in another is itself held up; who is behind
wherever they differ, and waits for nobody, is where it began. Sends and receives say nothing: their numbers differ
between the ranks of a healthy pipeline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from analytics.attribution.flight_recorder.dumps import Dump, Entry, Found
from coordinator.core.errors import Code, CoordError

ROWS_MAX = 256
RANKS_SHOWN_MAX = 64
TEXT_MAX = 200
"""Characters of a name that a dump gives."""
PLACES_MAX = 1_000_000
"""Members of all groups."""


class Row(Struct, frozen=True, gc=False, kw_only=True):
    """A collective at which a group parted."""

    process_group: str
    description: str
    operation: str
    sequence: int
    """The first that not everybody got to, or through."""
    size: str
    dtype: str
    ranks: tuple[int, ...]
    """Of the group."""
    missing_ranks: tuple[int, ...]
    """Enqueued less than the others: they never came."""
    stalled_ranks: tuple[int, ...]
    """Came, and their devices got less done than the others' did."""
    mismatch: str = ""
    """What the ranks called instead, where they called different things."""


class Parting(Struct, frozen=True, kw_only=True):
    """What the dumps say. `rows` is empty where the ranks did not part."""

    ranks: int
    """Dumps that could be read."""
    missing_ranks: tuple[int, ...]
    """Where it began: missing or stalled, and waiting for nobody."""
    without_dump: tuple[int, ...]
    """Members of groups that left no dump: they were gone, or hung too hard to write one."""
    rows: tuple[Row, ...]
    undecided: bool = False
    """Every rank that is behind waits for another one too: the earliest parting is shown."""
    refused: tuple[tuple[int, str], ...] = ()
    """Ranks whose dumps could not be taken, and why: nothing is said of them."""


class _Place(Struct, gc=False):
    """How far one rank came in one group."""

    enqueued: int
    completed: int


class _Group(Struct, kw_only=True):
    name: str
    description: str
    members: tuple[int, ...]
    places: dict[int, _Place]
    entries: dict[int, list[Entry]]
    missing: set[int] = set()
    stalled: set[int] = set()
    behind: set[int] = set()
    """Missing or stalled; all three are found once, when all places are known."""

    def compare(self) -> None:
        enqueued = max(place.enqueued for place in self.places.values())
        completed = max(place.completed for place in self.places.values())
        self.missing = {rank for rank, place in self.places.items() if place.enqueued < enqueued}
        self.stalled = {rank for rank, place in self.places.items() if place.completed < completed} - self.missing
        self.behind = self.missing | self.stalled


def analyse(found: Found) -> Parting:
    """What the dumps say. Pure; linear in their entries and the members of their groups. CoordError(BAD_REQUEST) for
    groups of more than PLACES_MAX members."""
    groups = _groups(found)
    parted = [group for group in groups if group.behind]
    behind: set[int] = set().union(*(group.behind for group in parted))
    waiting: set[int] = set().union(*(set(group.places) - group.behind for group in parted))
    first = behind - waiting
    undecided = bool(behind) and not first
    if undecided:
        first = min(parted, key=_when).behind
    rows = _rows(parted, first)
    mismatched = [row for group in groups if (row := _mismatch(group)) is not None]
    known = set(found.by_rank)
    members = {rank for group in groups for rank in group.members} - {rank for rank, _ in found.refused}
    return Parting(
        ranks=len(known),
        missing_ranks=tuple(sorted(first)),
        without_dump=tuple(sorted(members - known))[:RANKS_SHOWN_MAX],
        rows=tuple((rows + mismatched)[:ROWS_MAX]),
        undecided=undecided,
        refused=found.refused[:RANKS_SHOWN_MAX],
    )


def _groups(found: Found) -> list[_Group]:
    """The groups of more than one rank that had collectives (and nothing else) under way."""
    by_rank = found.by_rank
    unknown = {rank for rank, _ in found.refused}
    made: dict[str, _Group] = {}
    local: dict[str, int] = {}
    point_to_point: set[str] = set()
    for rank, dump in sorted(by_rank.items()):
        for entry in dump.entries:
            name, description = entry.process_group
            if entry.is_p2p:
                point_to_point.add(name)
                continue
            config = dump.pg_config.get(name)
            group = made.get(name)
            if group is None:
                members = config.members if config is not None else ()
                group = made[name] = _Group(name=name, description=description, members=members, places={}, entries={})
            local.setdefault(name, entry.pg_id)
            group.entries.setdefault(rank, []).append(entry)
    if sum(len(group.members) for group in made.values()) > PLACES_MAX:
        raise CoordError(Code.BAD_REQUEST, f"the groups of these dumps have more than {PLACES_MAX} members")
    for name, group in made.items():
        for rank in group.members or tuple(group.entries):
            place = _place(by_rank.get(rank), local[name], group.entries.get(rank, ()))
            if place is not None:
                group.places[rank] = place
        if any(place.enqueued > place.completed for place in group.places.values()):
            # They wait in a collective; a member that left no dump is not going to come.
            gone = set(group.members) - set(by_rank) - unknown
            group.places.update({rank: _Place(-1, -1) for rank in gone})
    told = [group for name, group in made.items() if name not in point_to_point and len(group.places) > 1]
    for group in told:
        group.compare()
    return told


def _place(dump: Dump | None, local: int, entries: Iterable[Entry]) -> _Place | None:
    """From the rank's own figures, and from its entries where it keeps none; None: nothing is known of it."""
    if dump is None:
        return None
    status = dump.pg_status.get(str(local))
    numbers = [entry.collective_seq_id for entry in entries]
    done = [entry.collective_seq_id for entry in entries if entry.state == "completed"]
    if status is None and not numbers:
        return None
    if status is None:
        return _Place(max(numbers), max(done) if done else min(numbers) - 1)
    return _Place(max([status.last_enqueued_collective, *numbers]), max([status.last_completed_collective, *done]))


def _opening(group: _Group) -> Entry | None:
    """The first operation that not all came to, or through; as one who did recorded it."""
    behind = group.behind
    reached = min((min(p.enqueued, p.completed) for r, p in group.places.items() if r in behind), default=0)
    if group.missing:
        reached = min(group.places[rank].enqueued for rank in group.missing)
    ahead = [
        entry
        for rank, entries in group.entries.items()
        if rank not in behind
        for entry in entries
        if entry.collective_seq_id > reached
    ]
    every = ahead or [entry for entries in group.entries.values() for entry in entries]
    return min(every, key=lambda entry: (entry.collective_seq_id, entry.time_created_ns), default=None)


def _when(group: _Group) -> tuple[int, str]:
    opening = _opening(group)
    return (opening.time_created_ns if opening is not None else 0, group.name)


def _rows(parted: list[_Group], first: set[int]) -> list[Row]:
    """For each rank where it began the earliest group in which it is behind; a group once."""
    earliest: list[tuple[int, _Group]] = []
    left = set(first)
    for group in sorted(parted, key=_when):
        if here := left & group.behind:
            earliest.append((min(here), group))
            left -= here
    return [_row(group, first) for _, group in sorted(earliest, key=lambda one: one[0])[:ROWS_MAX]]


def _row(group: _Group, first: set[int]) -> Row:
    opening = _opening(group)
    sizes = opening.input_sizes[0] if opening is not None and opening.input_sizes else ()
    return Row(
        process_group=group.name[:TEXT_MAX],
        description=group.description[:TEXT_MAX],
        operation=opening.profiling_name[:TEXT_MAX] if opening is not None else "",
        sequence=opening.collective_seq_id if opening is not None else 0,
        size="x".join(str(size) for size in sizes[:16])[:TEXT_MAX],
        dtype=opening.input_dtypes[0][:TEXT_MAX] if opening is not None and opening.input_dtypes else "",
        ranks=tuple(sorted(group.members))[:RANKS_SHOWN_MAX],
        missing_ranks=tuple(sorted(group.missing & first)),
        stalled_ranks=tuple(sorted(group.stalled & first)),
    )


def _mismatch(group: _Group) -> Row | None:
    """The first number under which ranks called different operations."""
    called: dict[int, dict[int, Entry]] = {}
    for rank, entries in group.entries.items():
        for entry in entries:
            called.setdefault(entry.collective_seq_id, {})[rank] = entry
    for sequence, by_rank in sorted(called.items()):
        names = Counter(entry.profiling_name for entry in by_rank.values())
        if len(names) > 1:
            usual = names.most_common(1)[0][0]
            other = tuple(sorted(rank for rank, entry in by_rank.items() if entry.profiling_name != usual))
            told = ", ".join(f"{rank}: {by_rank[rank].profiling_name[:TEXT_MAX]}" for rank in other[:8])
            row = _row(group, set())
            return Row(
                process_group=row.process_group, description=row.description, operation=usual[:TEXT_MAX],
                sequence=sequence, size=row.size, dtype=row.dtype, ranks=row.ranks, missing_ranks=(), stalled_ranks=(),
                mismatch=told,
            )  # fmt: skip
    return None


def table(parting: Parting) -> str:
    """The partings for people: group, operation, and who was missing."""
    if not parting.rows:
        return "the ranks did not part: every collective that was begun has all of its ranks"
    lines = ["PGID   | Process Group Desc | Op Type | Size | Dtype | Missing Ranks | Stalled Ranks"]
    for row in parting.rows:
        missing, stalled = (",".join(str(rank) for rank in some) for some in (row.missing_ranks, row.stalled_ranks))
        cells = (f"{row.process_group:<6}", row.description, row.operation, row.size, row.dtype, missing, stalled)
        lines.append(" | ".join(cells).rstrip(" |") + (f" | called instead: {row.mismatch}" if row.mismatch else ""))
    return "\n".join(lines)
