"""`coord usage`: what tenants use now, and what they were charged for."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_tenants
from cli.moving import round_size
from cli.options import output_option, talks
from cli.paging import collect
from cli.quantities import amount_text
from cli.tenant import left_of, print_use
from coordinator.api_types.tenants import DimensionEntry, Ledger, LedgerEntry, UsageBy, UsageEntry, Usages

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 1000
SUMS = ("job", "pool", "day", "month", "tenant")
HOUR_MS = 3_600_000
MB_S_OF_GB_HOUR = 3_600_000
"""Megabytes times seconds: a gigabyte kept for an hour."""


def _dimension(entry: UsageEntry, name: str) -> DimensionEntry | None:
    return next((one for one in entry.dimensions if one.name == name), None)


def _of_limit(entry: UsageEntry, name: str) -> str:
    """`12/64`: what is used of the limit; alone where there is none."""
    one = _dimension(entry, name)
    if one is None:
        return "-"
    used = amount_text(name, one.used)
    return used if one.limit is None else f"{used}/{amount_text(name, one.limit)}"


def _left(entry: UsageEntry) -> str:
    one = _dimension(entry, "budget")
    return amount_text("budget", left_of(one)) if one is not None else "-"


def _reserved(entry: UsageEntry) -> str:
    one = _dimension(entry, "budget")
    return amount_text("budget", one.reserved) if one is not None else "-"


NOW = (
    output.Column("TENANT", lambda u: u.tenant),
    output.Column("JOBS", lambda u: str(u.live_jobs), right=True, explained="LIVE JOBS"),
    output.Column("RUN", lambda u: _of_limit(u, "running"), right=True, explained="JOBS RUNNING"),
    output.Column("CPUS", lambda u: _of_limit(u, "cpus"), right=True, explained="CPUS HELD"),
    output.Column("GPUS", lambda u: _of_limit(u, "gpus"), right=True, explained="GPUS HELD"),
    output.Column("MEMORY", lambda u: _of_limit(u, "memory"), right=True, spare=True, explained="MEMORY HELD"),
    output.Column("SHARE", lambda u: humane.share(u.share), right=True, explained="SHARE OF THE FLEET NOW"),
    output.Column("LATELY", lambda u: humane.share(u.share_decayed), right=True, spare=True, explained="SHARE LATELY"),
    output.Column("WEIGHT", lambda u: str(u.weight), right=True, spare=True),
    output.Column("COST", lambda u: _of_limit(u, "budget"), right=True, explained="COST THIS MONTH"),
    output.Column("RESERVED", _reserved, right=True, spare=True, explained="COST RESERVED"),
    output.Column("LEFT", _left, right=True, explained="LEFT OF THE BUDGET"),
    output.Column("STORAGE", lambda u: _of_limit(u, "storage"), right=True, spare=True, explained="STORAGE KEPT"),
    output.Column("IN", lambda u: _of_limit(u, "ingress"), right=True, spare=True, explained="INGRESS THIS MONTH"),
    output.Column("OUT", lambda u: _of_limit(u, "egress"), right=True, spare=True, explained="EGRESS THIS MONTH"),
)
BYTES = {"STORAGE": "storage", "IN": "ingress", "OUT": "egress"}
"""Columns that stand in a table only where some tenant has moved or kept bytes, or may only so many."""


def moved_text(charge: LedgerEntry) -> str:
    """`1.2 GiB`, of storage `3.1 GB hours`: what bytes were charged for, in one hour."""
    if charge.kind == "storage":
        return f"{charge.amount / MB_S_OF_GB_HOUR:.3g} GB hours"
    return round_size(charge.amount)


def _run(charge: LedgerEntry, text: str) -> str:
    """What only charges of what ran have."""
    return text if charge.kind == "run" else "-"


SUMMED = (
    output.Column("", lambda u: u.key),
    output.Column("COST", lambda u: u.cost_text, right=True),
    output.Column("RAN", lambda u: humane.length(u.ran_ms / 1000), right=True),
    output.Column("CPU HOURS", lambda u: f"{u.cpu_ms / HOUR_MS:.3f}", right=True),
    output.Column("GPU HOURS", lambda u: f"{u.gpu_ms / HOUR_MS:.3f}", right=True),
    output.Column("CHARGES", lambda u: str(u.charges), right=True),
    output.Column("IN", lambda u: round_size(u.ingress), right=True, explained="INGRESS"),
    output.Column("OUT", lambda u: round_size(u.egress), right=True, explained="EGRESS"),
    output.Column(
        "GB HOURS", lambda u: f"{u.storage_mb_s / MB_S_OF_GB_HOUR:.3f}", right=True, explained="STORED GB HOURS"
    ),
)
LEDGER = (
    output.Column("CHARGE", lambda c: str(c.seq), right=True),
    output.Column("AT", lambda c: humane.clock(c.at)),
    output.Column("TENANT", lambda c: c.tenant),
    output.Column("FOR", lambda c: c.attempt if c.kind == "run" else f"{c.kind} of {moved_text(c)}"),
    output.Column("WHERE", lambda c: c.provider_id),
    output.Column("POOL", lambda c: c.pool),
    output.Column("RAN", lambda c: _run(c, humane.length(c.ran_ms / 1000)), right=True),
    output.Column("CPUS", lambda c: _run(c, amount_text("cpus", c.cpus)), right=True),
    output.Column("GPUS", lambda c: _run(c, amount_text("gpus", c.gpus)), right=True),
    output.Column("MEMORY", lambda c: _run(c, amount_text("memory", c.memory)), right=True),
    output.Column("COST", lambda c: c.cost_text, right=True),
    output.Column("RANK", lambda c: _run(c, str(c.rank)), right=True, wide=True),
    output.Column("CPU/H", lambda c: amount_text("budget", c.price.cpu), right=True, wide=True),
    output.Column("GPU/H", lambda c: amount_text("budget", c.price.gpu), right=True, wide=True),
    output.Column("GB/H", lambda c: amount_text("budget", c.price.memory), right=True, wide=True),
)


@click.command(short_help="What tenants use now, and what they were charged for.")
@click.argument("tenant", required=False, shell_complete=live_tenants)
@click.option("--month", metavar="YYYY-MM", help="Charges of this month (UTC), instead of what is used now.")
@click.option("--by", type=click.Choice(SUMS), help="Charges summed by this. [tenant; day for one tenant]")
@click.option("--ledger", is_flag=True, help="Charges one by one, newest first.")
@click.option("--job", type=click.IntRange(1), metavar="JOB", help="Only charges of this job.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Charges at most; 0: all.")
@output_option
@talks
def usage(
    client: Client,
    tenant: str | None,
    month: str | None,
    by: str | None,
    ledger: bool,
    job: int | None,
    limit: int,
    output: output.Format,
) -> None:
    """What each tenant holds, has reserved and has left at this moment; with --month, --by or --ledger its charges.

    \b
    coord usage
    coord usage physics
    coord usage physics --month 2026-11 --by job
    coord usage --ledger --job 12 -o csv
    """
    if ledger and by:
        raise click.UsageError("--ledger has the charges one by one, --by sums them: say one of them")
    number = month_of(month) if month is not None else None
    if ledger:
        answer = collect(
            lambda size, page: client.tenants.ledger(
                tenant=tenant, month=number, job_id=job, limit=size, page=page
            ),
            limit, PAGE_MAX,
        )  # fmt: skip
        print_ledger(answer, output)
    elif by or month or job:
        key = by or ("day" if tenant or job else "tenant")
        print_sums(client.tenants.usage_by(key, tenant=tenant, month=number, job_id=job), output)
    else:
        every = collect(lambda size, page: client.tenants.usage(tenant, limit=size, page=page), 0, PAGE_MAX)
        print_usage(every, output)


def month_of(text: str) -> int:
    """`2026-11` as 202611."""
    found = re.fullmatch(r"(\d{4})-?(0[1-9]|1[0-2])", text, re.ASCII)
    if found is None:
        raise click.UsageError(f"--month {text!a} is no month: write it like 2026-11")
    return int(found[1] + found[2])


def print_usage(answer: Usages, form: output.Format) -> None:
    """A line for each tenant; of a single one every dimension."""
    if form == "table" and len(answer.entries) == 1:
        (one,) = answer.entries
        share = f"{humane.share(one.share)} of the fleet now, {humane.share(one.share_decayed)} remembered"
        output.print_facts([
            ("tenant", one.tenant), ("month", month_text(one.month)), ("live jobs", str(one.live_jobs)),
            ("share", share), ("weight", str(one.weight)),
        ])  # fmt: skip
        sys.stdout.write("\n")
        print_use(one)
    else:
        output.listing(answer, columns_of(answer, form), form, name=lambda u: str(u.tenant))


def columns_of(answer: Usages, form: output.Format) -> list[output.Column]:
    """Those that say something."""
    said = {one.name for entry in answer.entries for one in entry.dimensions if one.used or one.reserved or one.limit}
    return [column for column in NOW if form == "wide" or BYTES.get(column.title, "") in {"", *said}]


def print_sums(answer: UsageBy, form: output.Format) -> None:
    moved = any(one.ingress or one.egress or one.storage_mb_s for one in answer.entries)
    columns = [SUMMED[0]._replace(title=answer.by.upper()), *(SUMMED[1:] if moved else SUMMED[1:-3])]
    output.listing(answer, columns, form, name=lambda u: str(u.key), empty="nothing was charged")
    if form in ("table", "wide") and len(answer.entries) > 1:
        total = sum(one.cost for one in answer.entries)
        sys.stdout.flush()
        terminal.say(f"together {amount_text('budget', total)}")


def print_ledger(answer: Ledger, form: output.Format) -> None:
    output.listing(answer, LEDGER, form, name=lambda c: str(c.seq), empty="nothing was charged")
    if answer.next_page is not None and form in ("table", "wide"):
        sys.stdout.flush()
        terminal.say("older ones: --limit 0")


def month_text(month: int) -> str:
    """`2026-11` for 202611."""
    return f"{month // 100:04d}-{month % 100:02d}"
