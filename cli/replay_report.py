"""`coord simulate --fleet --workload`: the options read, the replay run, its report printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from cli import exits, humane, output, terminal
from cli.output import Column, Format
from cli.replaying import Asked, Replayed, replayed
from coordinator.core.errors import Code, CoordError
from coordinator.simulator.history.picture import drawn, page
from coordinator.simulator.history.report import Report
from coordinator.simulator.history.saving import Saving
from coordinator.simulator.history.swf import Gather
from coordinator.timetext import asked_duration

HOUR_MS = 3_600_000
TENANTS_SHOWN = 5
PICTURES = {".svg": drawn, ".html": page}


class Compared(Struct, frozen=True, kw_only=True):
    """The answer as JSON."""

    fleet: str
    workload: str
    seed: int
    providers: int
    jobs: int
    job_hours: float
    left_out: dict[str, int]
    entries: tuple[Report, ...]


def run(fleet: str, workload: str, seed: int, quiet: bool, *, picture: Path | None, **options: Any) -> int:
    """Exit status of the command. Raises CoordError where an option or a file is wrong."""
    form: Format = options.pop("output")
    if picture is not None:
        _check_picture(picture)
    asked = _asked(fleet, workload, seed, **options)
    found = replayed(asked)
    reports = tuple(one for one, _ in found.runs)
    if not quiet and form in ("table", "wide"):
        _say_what(asked, found)
    answer = Compared(
        fleet=fleet,
        workload=workload,
        seed=seed,
        providers=len(found.fleet.machines),
        jobs=reports[0].jobs,
        job_hours=found.workload.hours(),
        left_out=found.dropped,
        entries=reports,
    )
    output.listing(answer, COLUMNS, form, name=lambda report: report.name)
    if not quiet and form == "wide":
        _say_tenants(reports)
    if picture is not None:  # last: a disk that is full by now costs nobody the figures
        _write(picture, PICTURES[picture.suffix](f"{workload} on {fleet}", found.runs))
    return exits.OK


def _check_picture(picture: Path) -> None:
    """Before the replay, which may take an hour: whether it can be drawn there at all."""
    if picture.suffix not in PICTURES:
        raise CoordError(Code.BAD_REQUEST, f"{picture} is no picture that can be drawn", "name a .svg or .html file")
    if picture.is_dir() or not picture.parent.is_dir():
        wrong = "it is a directory" if picture.is_dir() else f"there is no directory {picture.parent}"
        raise CoordError(Code.BAD_REQUEST, f"--picture {picture}: {wrong}", "name a file in a directory that is there")


def _write(picture: Path, drawing: str) -> None:
    try:
        picture.write_text(drawing)
    except OSError as wrong:
        hint = "name another file: the same command draws the same picture"
        raise CoordError(Code.BAD_REQUEST, f"--picture {picture}: {wrong.strerror}", hint) from wrong


def _asked(
    fleet: str,
    workload: str,
    seed: int,
    *,
    policies: tuple[str, ...],
    load: float | None,
    told: float | None,
    tenants: str,
    weights: tuple[str, ...],
    cpus: float,
    warm_up: str | None,
    figures_every: str,
    first: int | None,
    days: float | None,
    checkpoints: tuple[str, ...],
    checkpoint_cost: str,
) -> Asked:
    return Asked(
        fleet=fleet,
        workload=workload,
        policies=tuple(dict.fromkeys(policies)) or ("forecast", "random"),
        seed=seed,
        load=load,
        warm_up_ms=asked_duration(warm_up, "--warm-up", 0, 3650 * 24 * HOUR_MS) if warm_up is not None else None,
        figures_every_ms=asked_duration(figures_every, "--figures-every", 60_000, 14 * 24 * HOUR_MS),
        cpus=cpus,
        told=told,
        gather=Gather(tenants),
        weights=dict(_weight(text) for text in weights),
        first=first,
        days=days,
        savings=tuple(_saving(text, checkpoint_cost) for text in dict.fromkeys(checkpoints or ("none",))),
    )


def _saving(text: str, cost: str) -> Saving | None:
    if text == "none":
        return None
    cost_ms = asked_duration(cost, "--checkpoint-cost", 0, 24 * HOUR_MS)
    every_ms = None if text == "auto" else asked_duration(text, "--checkpoint", 1_000, 3650 * 24 * HOUR_MS)
    return Saving(every_ms=every_ms, cost_ms=cost_ms, name=text)


def _weight(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not name or not equals or not number.isdecimal() or not int(number):
        raise CoordError(Code.BAD_REQUEST, f"--weight {text}: is no weight", "write TENANT=N, for example user-4=3")
    return name, int(number)


COLUMNS = (
    Column("POLICY", lambda r: r.policy),
    Column("CHECKPOINT", lambda r: r.checkpoint),
    Column("DONE", lambda r: f"{r.completed}/{r.jobs}", right=True),
    Column("LOST", lambda r: str(r.lost), right=True, explained="ATTEMPTS LOST"),
    Column("WASTED H", lambda r: f"{r.wasted_h:,.1f}", right=True),
    Column("WASTED", lambda r: humane_share(r.wasted_share), right=True),
    Column("BUSY", lambda r: humane_share(r.utilisation), right=True),
    Column("WAIT", lambda r: humane.length(r.waits.mean_s), right=True, explained="MEAN WAIT"),
    Column("P95", lambda r: humane.length(r.waits.p95_s), right=True, explained="P95 WAIT"),
    Column("SLOWDOWN", lambda r: f"{r.slowdown_mean:.2f}", right=True),
    Column("FAIR", lambda r: f"{r.jain:.2f}", right=True),
    Column("LOST H", lambda r: f"{r.lost_h:,.1f}", right=True, wide=True),
    Column("SAVING H", lambda r: f"{r.saving_h:,.1f}", right=True, wide=True),
    Column("MOST TRIES", lambda r: str(r.retried_most), right=True, wide=True),
    Column("P50 WAIT", lambda r: humane.length(r.waits.p50_s), right=True, wide=True),
    Column("GPUS BUSY", lambda r: humane_share(r.utilisation_gpus), right=True, wide=True),
    Column("TURNAROUND", lambda r: humane.length(r.turnaround_mean_s), right=True, wide=True),
)


def humane_share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _say_what(asked: Asked, found: Replayed) -> None:
    first = found.runs[0][0]
    hours = f"{found.workload.hours():,.0f} CPU hours"
    terminal.say(
        f"{humane.count(len(found.fleet.machines), 'provider')}, {humane.count(first.jobs, 'job')}, {hours}, "
        f"{humane.length(first.makespan_s)} from the first submission on"
    )
    for reason, number in found.dropped.items():
        terminal.say(f"left out: {humane.count(number, 'job')}: {reason}")


def _say_tenants(reports: tuple[Report, ...]) -> None:
    for one in reports:
        for entry in one.tenants[:TENANTS_SHOWN]:
            click.echo(
                f"{one.name}  {terminal.safe(entry.tenant)}: {entry.jobs} jobs, {entry.hours:.1f} h, "
                f"{humane_share(entry.crowded_share)} of what was short, weight {entry.weight}, "
                f"mean wait {humane.length(entry.wait_mean_s)}"
            )
