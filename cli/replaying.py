"""What `coord simulate --fleet --workload` is given: files into a fleet and jobs, analytics beside the scheduler."""

from __future__ import annotations

import csv
import gzip
import lzma
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import IO, NamedTuple

from msgspec.structs import replace

from analytics.past import PastFigures, PastSession
from cli import progress
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId, TenantName
from coordinator.core.rows import Resources, TenantRow
from coordinator.service.api.session_csv import Limits, parse_sessions
from coordinator.simulator.history import openb, workload
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Fleet, Session, alike, of_sessions
from coordinator.simulator.history.report import Report
from coordinator.simulator.history.saving import Saving
from coordinator.simulator.history.swf import Gather, read_swf
from coordinator.simulator.history.workload import Job, Made, Workload, tenants_of
from coordinator.timetext import duration_text, parse_duration

BYTES_MAX = 2 * 1024**3
ROWS_MAX = 20_000_000
LINE_MAX = 64 * 1024
LINES_MAX = 20_000_000
"""Blank ones and remarks among them: a megabyte may unpack to a thousand million of them."""
FAR_MS: Ms = 253_402_300_799_999
"""A history may be of any time: the future is no mistake here."""
DAY_MS: Ms = 86_400_000
WARM_UP_MS: Ms = 14 * DAY_MS
"""The window of the figures: from then on they are what they are for a fleet that has been watched for long."""
WARM_UP_SHARE = 3
"""Of a short history at most one part in so many."""
TENANTS_TOLD = 8
"""Of those that a workload has, to somebody who named another."""
_MADE = re.compile(r"([0-9a-z.]+(?:\+[0-9a-z.]+)*)@([0-9]+(?:\.[0-9]+)?)(%?)")


class Asked(NamedTuple):
    """The options, as they were given."""

    fleet: str
    workload: str
    policies: Sequence[str]
    seed: int
    load: float | None
    warm_up_ms: Ms | None
    figures_every_ms: Ms
    cpus: float
    told: float | None
    """Time limits are so many times the run time; None: as the workload has them."""
    gather: Gather
    weights: dict[str, int]
    first: int | None
    days: float | None
    """Of a fleet's history, so many from its beginning on."""
    savings: Sequence[Saving | None] = (None,)
    """How jobs save their state; None: not at all."""


class Replayed(NamedTuple):
    """What was replayed, and what came of it."""

    fleet: Fleet
    workload: Workload
    dropped: dict[str, int]
    """Jobs of the file that were not replayed, by reason."""
    runs: list[tuple[Report, Books]]


def replayed(asked: Asked) -> Replayed:
    """Read, fit, run. Raises CoordError where a file or an option is wrong."""
    fleet, past = read_fleet(asked.fleet, asked.cpus)
    if asked.days is not None and fleet.to_ms is not None:
        fleet = replace(fleet, to_ms=min(fleet.to_ms, fleet.from_ms + round(asked.days * DAY_MS)))
    work = read_workload(asked, fleet)
    jobs, dropped = _fitting(work, fleet)
    if asked.first is not None:
        jobs = jobs[: asked.first]
    if not jobs:
        raise CoordError(Code.BAD_REQUEST, "no job is left to be replayed", _told(dropped))
    _check_weights(asked.weights, tenants_of(jobs))
    tenants = [
        TenantRow(name=TenantName(name), created_at_ms=fleet.from_ms, weight=weight)
        for name, weight in asked.weights.items()
    ]
    with progress.Bar("replaying", jobs[-1].at_ms - jobs[0].at_ms, sys.stderr) as bar:
        figures = past.at if past is not None else None

        def told(done: int, of: int) -> None:
            bar.at(done)

        runs = compare(fleet, jobs, asked.policies, figures, asked.figures_every_ms, tenants, told, asked.savings)
    return Replayed(fleet, work, {**work.left_out, **dropped}, runs)


def _check_weights(weights: dict[str, int], tenants: Sequence[TenantName]) -> None:
    """A weight for somebody who has no job would change nothing, and its reader would not know."""
    for name in weights:
        if name not in tenants:
            told = ", ".join(tenants[:TENANTS_TOLD]) + (", ..." if len(tenants) > TENANTS_TOLD else "")
            raise CoordError(
                Code.BAD_REQUEST, f"--weight {name}: nobody in the workload is called so", f"it has {told}"
            )


# ---- the fleet


def read_fleet(text: str, cpus: float) -> tuple[Fleet, PastFigures | None]:
    """The fleet that `text` makes up or names, and what was known of it at any moment (nothing of one that stays)."""
    made = alike(text)
    if made is not None:
        return made, None
    if _header(text, "fleet").startswith("sn,"):
        return openb.read_nodes(_rows(text, "fleet")), None
    with Path(text).open("rb") as raw:
        rows = parse_sessions(raw, Limits(bytes_max=BYTES_MAX, rows_max=ROWS_MAX, now_ms=FAR_MS))
    sessions = [
        Session(
            provider_id=ProviderId(row.provider_id),
            began_ms=row.connected_at_ms,
            ended_ms=row.disconnected_at_ms,
            reason=row.disconnect_reason,
        )
        for row in rows
    ]
    fleet = of_sessions(sessions, Resources(cpus=cpus, memory_gb=4 * cpus))
    past = PastFigures(
        PastSession(s.provider_id, s.began_ms, s.ended_ms, s.reason.value if s.reason is not None else "")
        for s in sessions
    )
    return fleet, past


def _header(text: str, what: str) -> str:
    return next(_lines(text, what), "").strip()


def _lines(text: str, what: str) -> Iterator[str]:
    """The lines of a file, however it is packed. CoordError where it is damaged, or unpacks to more than is read."""
    hint = "name a log as it was downloaded; docs/explanation/placement.md says what is read"
    seen = 0
    with _unpacked(text, what) as file:
        try:
            for number in count(1):
                line = file.readline(LINE_MAX)
                seen += len(line)
                if not line:
                    return
                if len(line) == LINE_MAX or seen > BYTES_MAX or number > LINES_MAX:
                    said = f"line {number} of the {what} {text} is longer than {LINE_MAX - 1} characters"
                    if seen > BYTES_MAX:
                        said = f"the {what} {text} has more than {BYTES_MAX} characters"
                    elif number > LINES_MAX:
                        said = f"the {what} {text} has more than {LINES_MAX} lines"
                    raise CoordError(Code.TOO_LARGE, said, hint)
                yield line
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as wrong:
            raise CoordError(Code.BAD_IMPORT, f"the {what} {text} is damaged: {wrong}", hint) from wrong


def _rows(text: str, what: str) -> Iterator[dict[str, str]]:
    """The rows of a table with a header."""
    try:
        yield from csv.DictReader(_lines(text, what))
    except csv.Error as wrong:
        raise CoordError(Code.BAD_IMPORT, f"the {what} {text} is no CSV: {wrong}", "see openb's tables") from wrong


def _unpacked(text: str, what: str) -> IO[str]:
    """The lines of a file, plain or packed by gzip or xz."""
    path = Path(text)
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"\x1f\x8b"):
            return gzip.open(path, "rt", encoding="utf-8", errors="replace")
        if magic.startswith(b"\xfd7zXZ"):
            return lzma.open(path, "rt", encoding="utf-8", errors="replace")
        return path.open(encoding="utf-8", errors="replace")
    except OSError as wrong:
        code = Code.NOT_FOUND if isinstance(wrong, FileNotFoundError) else Code.BAD_REQUEST
        hint = f"name a file, or {'128x1' if what == 'fleet' else '8h@30%'}"
        raise CoordError(code, f"the {what} {text} cannot be read: {wrong.strerror}", hint) from wrong


# ---- the workload


def read_workload(asked: Asked, fleet: Fleet) -> Workload:
    """The jobs that `asked.workload` makes up or names, from the end of the warm-up on, fitted to the load."""
    from_ms = fleet.from_ms + _warm_up_ms(asked, fleet)
    made = made_up(asked.workload)
    if made is not None:
        to_ms = fleet.to_ms if fleet.to_ms is not None else from_ms + 100 * max(made.lengths_ms)
        if to_ms <= from_ms:
            raise CoordError(Code.BAD_REQUEST, "the fleet's history is over before the first job", "take a longer one")
        load = asked.load if asked.load is not None else made.load
        slots = fleet.capacity(from_ms, to_ms)[0] / ((to_ms - from_ms) / workload.HOUR_MS)
        dice = Random(asked.seed)  # noqa: S311 - a workload to be made again, no secret
        found = workload.make(Made(lengths_ms=made.lengths_ms, load=load), slots, from_ms, to_ms, dice)
        if not found.jobs:
            span = duration_text((to_ms - from_ms) // 1_000 * 1_000)
            said = f"{asked.workload} makes no job in the {span} from the warm-up to the last known end of a session"
            raise CoordError(Code.BAD_REQUEST, said, "take a longer history, more load or shorter jobs")
        return found
    if _header(asked.workload, "workload").startswith("name,cpu_milli"):
        found = openb.read_pods(_rows(asked.workload, "workload"))
    else:
        found = read_swf(_lines(asked.workload, "workload"), fleet.usual_cpus(), asked.gather)
    if asked.told is not None:
        found = workload.told(found, asked.told)
    if asked.load is None:
        return workload.moved(found, from_ms)
    return workload.loaded(found, fleet, from_ms, asked.load)


def _warm_up_ms(asked: Asked, fleet: Fleet) -> Ms:
    if asked.warm_up_ms is not None:
        return asked.warm_up_ms
    return min(WARM_UP_MS, (fleet.to_ms - fleet.from_ms) // WARM_UP_SHARE) if fleet.to_ms is not None else 0


def made_up(text: str) -> Made | None:
    """`8h@30%`, `1h+24h@0.5`; None when `text` is not of that form."""
    found = _MADE.fullmatch(text)
    if found is None:
        return None
    load = float(found[2]) / (100.0 if found[3] else 1.0)
    try:
        lengths = tuple(parse_duration(length) for length in found[1].split("+"))
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, f"{text}: {error}", "for example 8h@30% or 1h+24h@50%") from None
    if not 0.0 < load <= 10.0 or min(lengths) < 1_000 or max(lengths) > workload.RUN_MAX_MS:
        raise CoordError(Code.BAD_REQUEST, f"{text} is no workload that can be made", "for example 8h@30%")
    return Made(lengths_ms=lengths, load=load)


def _fitting(work: Workload, fleet: Fleet) -> tuple[tuple[Job, ...], dict[str, int]]:
    """The jobs that this fleet could run within its history, and how many could not."""
    late = wide = 0
    kept = []
    for job in work.jobs:
        if fleet.to_ms is not None and job.at_ms >= fleet.to_ms:
            late += 1
        elif job.nodes > len(fleet.machines):
            wide += 1
        else:
            kept.append(job)
    reasons = {"submitted after the fleet's history ended": late, "on more nodes than there are": wide}
    return tuple(kept), {reason: count for reason, count in reasons.items() if count}


def _told(dropped: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the workload is empty"
