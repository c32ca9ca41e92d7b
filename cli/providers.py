"""`coord providers`: the fleet now, and what an operator does to one provider."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_providers
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.api_types.fleet import HeartbeatEntry, ProviderEntry, Providers

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 1000
RUNS_SAID = 16
"""Attempts of one provider that are named; `-o json` has all."""
LIVENESS = ("online", "suspect", "awaited", "lost", "away", "never_seen")
_COLOUR = {"online": "32", "suspect": "33", "awaited": "33", "lost": "31", "away": "36"}


def _state(entry: ProviderEntry) -> str:
    marks = [entry.liveness]
    if entry.drained:
        marks.append("drained")
    if entry.quarantined_until is not None:
        marks.append("quarantined")
    if entry.duplicate is not None:
        marks.append("duplicate!")
    return ",".join(marks)


COLUMNS = (
    output.Column("PROVIDER", lambda e: e.provider_id),
    output.Column("STATE", _state, colour=lambda e: _COLOUR.get(e.liveness, "")),
    output.Column("POOL", lambda e: e.pool),
    output.Column("STAY", lambda e: humane.length(e.stay_seconds), right=True, explained="STAY SO FAR"),
    output.Column("SEEN", lambda e: humane.ago(e.last_heartbeat_at), right=True, explained="LAST HEARTBEAT"),
    output.Column("SCORE", lambda e: humane.number(e.score, 2), right=True),
    output.Column("IN 8H", lambda e: humane.share(e.forecast_8h, 0), right=True, explained="STAYS 8H FROM NOW"),
    output.Column("CPUS", lambda e: f"{e.cpus:g}", right=True, spare=True),
    output.Column("MEMORY", lambda e: f"{e.memory_gb:.0f} GB", right=True, spare=True),
    output.Column("GPUS", lambda e: str(len(e.gpus)), right=True, wide=True),
    output.Column("RUNS", lambda e: str(e.runs), right=True, wide=True),
    output.Column("CPUS FREE", lambda e: f"{e.cpus_free:g}", right=True, wide=True),
    output.Column("MEMORY FREE", lambda e: f"{e.memory_gb_free:.0f} GB", right=True, wide=True),
    output.Column("GPUS FREE", lambda e: f"{e.gpus_free:g}", right=True, wide=True),
    output.Column("PEER", lambda e: e.peer, wide=True),
    output.Column("AGENT VERSION", lambda e: e.agent_version, wide=True),
    output.Column("CLOCK OFFSET", lambda e: _clock(e), right=True, wide=True),
    output.Column("LABELS", lambda e: ",".join(f"{k}={v}" for k, v in sorted(e.labels.items())), wide=True),
    output.Column("DRAIN NOTE", lambda e: e.drain_note, wide=True),
)


SUSPICIONS = (
    output.Column("VERDICT ON", lambda s: s.attempt),
    output.Column("TENANT", lambda s: s.tenant or "-", wide=True),
    output.Column("WHEN", lambda s: humane.ago(s.at), right=True),
    output.Column("CAUSE", lambda s: s.cause),
    output.Column("SURE", lambda s: humane.share(s.confidence, 0), right=True),
    output.Column("LINE", lambda s: s.text),
)


@click.group(short_help="The fleet now; drain, resume or forget a provider.")
def providers() -> None:
    """The providers that are enrolled, and how each stands right now.

    \b
    coord providers list
    coord providers show lab-07
    coord providers drain lab-07 --note "new disk" --until 2026-12-01T08:00:00Z
    """


@providers.command("list")
@click.option("--pool", help="Only of this pool.")
@click.option("--liveness", help=f"Only these, separated by commas: {', '.join(LIVENESS)}.")
@click.option("--label", metavar="NAME[=VALUE]", help="Only with this label.")
@click.option("--limit", type=click.IntRange(0), default=0, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_providers(
    client: Client, pool: str | None, liveness: str | None, label: str | None, limit: int, output: output.Format
) -> None:
    """List the providers in the order of their ids.

    \b
    coord providers list
    coord providers list --liveness suspect,lost -o wide
    coord providers list --pool lab -o name
    """
    answer = collect(
        lambda size, page: client.providers(pool=pool, liveness=liveness, label=label, limit=size, page=page),
        limit, PAGE_MAX,
    )  # fmt: skip
    print_providers(answer, output, filtered=bool(pool or liveness or label))


def print_providers(answer: Providers, form: output.Format, *, filtered: bool = False) -> None:
    empty = "no provider fits; without --pool, --liveness and --label all are listed" if filtered else _EMPTY
    output.listing(answer, COLUMNS, form, name=lambda e: str(e.provider_id), empty=empty)


_EMPTY = "no provider is enrolled: coord agent enrols one"


@providers.command()
@click.argument("provider", shell_complete=live_providers)
@output_option
@talks
def show(client: Client, provider: str, output: output.Format) -> None:
    """Show one provider: what is free there, what it runs, its newest heartbeat.

    \b
    coord providers show lab-07
    coord providers show lab-07 -o json
    """
    print_provider(client.provider(provider), output)


def print_provider(entry: ProviderEntry, form: output.Format) -> None:
    """One provider: facts, a line each, or one of the listings' formats."""
    if form not in ("table", "wide"):
        output.single(entry, form, name=entry.provider_id)
        return
    facts = [
        ("provider", entry.provider_id),
        ("state", _state(entry)),
        ("pool", entry.pool),
        ("stay", f"{humane.length(entry.stay_seconds)}" if entry.stay_seconds is not None else "-"),
        ("connected", humane.when(entry.connected_at)),
        ("last heartbeat", humane.when(entry.last_heartbeat_at)),
        ("score", humane.number(entry.score, 3)),
        ("stays 8 h from now", humane.share(entry.forecast_8h)),
        ("cpus", f"{entry.cpus:g}, {entry.cpus_free:g} free"),
        ("memory", f"{entry.memory_gb:.1f} GB, {entry.memory_gb_free:.1f} GB not held"),
        ("gpus", f"{', '.join(entry.gpus)}, {entry.gpus_free:g} free" if entry.gpus else ""),
        ("runs", _runs(entry)),
        ("labels", ", ".join(f"{k}={v}" for k, v in sorted(entry.labels.items()))),
        ("drain note", entry.drain_note),
        ("away until", humane.when(entry.away_until)),
        ("quarantined", _quarantine(entry)),
        ("suspected", _suspicion(entry)),
        ("isolation", entry.isolation or "-"),
        ("promises", ", ".join(name.replace("_", " ") for name in entry.promises) or "-"),
        ("peer", entry.peer),
        ("agent", entry.agent_version),
        ("machine", entry.machine_id),
        ("enrolled", humane.when(entry.enrolled_at)),
        ("clock", _clock(entry)),
        *_beat(entry.heartbeat),
    ]
    if entry.duplicate is not None:
        twin = entry.duplicate
        facts.append(("duplicate", f"refused {humane.when(twin.at)} from {twin.peer}, held by {twin.holder_peer}"))
    output.print_facts(facts)
    if entry.suspicions:
        sys.stdout.write("\n")
        output.print_table(entry.suspicions, SUSPICIONS, sys.stdout)


def _runs(entry: ProviderEntry) -> str:
    """The attempts that hold something there or are lined up, the first of many."""
    more = f" and {len(entry.attempts) - RUNS_SAID} more" if len(entry.attempts) > RUNS_SAID else ""
    return (", ".join(entry.attempts[:RUNS_SAID]) or "nothing") + more


def _suspicion(entry: ProviderEntry) -> str:
    """`a run fails there with 25 %, by 1 verdict`; empty when no verdict speaks against it."""
    if not entry.suspicion:
        return ""
    count = humane.count(len(entry.suspicions), "verdict")
    return f"a run fails there by its fault with {humane.share(entry.suspicion)}, as {count} of 7 days say"


def _beat(beat: HeartbeatEntry | None) -> list[tuple[str, str]]:
    if beat is None:
        return []
    return [
        ("status", beat.status),
        ("cpu usage", humane.share(beat.cpu_usage)),
        ("memory pressure", humane.share(beat.memory_pressure)),
        ("memory free", f"{humane.number(beat.memory_available_gb, 1)} GB" if beat.memory_available_gb else "-"),
        ("thermal state", beat.thermal_state or "-"),
        ("backend", beat.backend_state or "-"),
        ("model", beat.active_model or "-"),
    ]


def _quarantine(entry: ProviderEntry) -> str:
    if entry.quarantined_until is None:
        return ""
    until = f"until {humane.clock(entry.quarantined_until)} UTC ({humane.left(entry.quarantined_until)})"
    return f"{until}: {entry.quarantine_why}; coord providers resume {entry.provider_id} ends it"


def _clock(entry: ProviderEntry) -> str:
    if entry.clock_offset_ms is None:
        return "-"
    bound = f" ± {entry.clock_bound_ms:.1f}" if entry.clock_bound_ms is not None else ""
    return f"{entry.clock_offset_ms:+.1f}{bound} ms"


@providers.command()
@click.argument("provider", shell_complete=live_providers)
@click.option("--note", default="", help="Why; shown in lists.")
@click.option("--until", metavar="TIME", help="When it will be back: Unix seconds or ISO 8601 with a zone.")
@talks
def drain(client: Client, provider: str, note: str, until: str | None) -> None:
    """Give a provider no new work. It stays connected; `resume` ends it.

    \b
    coord providers drain lab-07 --note "new disk"
    coord providers drain lab-07 --until 2026-12-01T08:00:00Z
    """
    entry = client.drain(provider, note=note, away_until=until)
    terminal.say(f"{terminal.safe(entry.provider_id)} is drained ({entry.liveness}): it gets no new work")


@providers.command(short_help="End a provider's drain or quarantine.")
@click.argument("provider", shell_complete=live_providers)
@talks
def resume(client: Client, provider: str) -> None:
    """End a provider's drain, or its quarantine after failures in a row.

    \b
    coord providers resume lab-07
    """
    entry = client.resume(provider)
    terminal.say(f"{terminal.safe(entry.provider_id)} takes work again ({entry.liveness})")


@providers.command()
@click.argument("provider", shell_complete=live_providers)
@click.option("--yes", is_flag=True, help="Do not ask.")
@talks
def forget(client: Client, provider: str, yes: bool) -> None:
    """Remove a provider's enrolment and credential. Its history stays until its retention.

    \b
    coord providers forget lab-07 --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this cannot be undone, and there is nobody to ask: say --yes")
        click.confirm(f"Remove the enrolment of {terminal.safe(provider)}?", abort=True, err=True)
    client.forget(provider)
    terminal.say(f"{terminal.safe(provider)} is forgotten; its agent has to enrol again")
