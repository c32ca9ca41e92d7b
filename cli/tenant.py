"""`coord tenant`: who submits, pays and is isolated, and how much each may use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from cli import humane, output, terminal
from cli.completion import live_tenants
from cli.options import output_option, talks
from cli.paging import collect
from cli.quantities import DIMENSIONS, amount_text, limit_of
from coordinator.api_types.tenants import DimensionEntry, TenantEntry, Tenants, UsageEntry

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 1000
BAR = 20
"""Characters of a dimension's bar."""
WEIGHT_MAX = 1_000_000

COLUMNS = (
    output.Column("TENANT", lambda t: t.name),
    output.Column("WEIGHT", lambda t: str(t.weight), right=True),
    output.Column("PRIORITY", lambda t: f"to {t.priority_max}", right=True),
    output.Column("LIMITS", lambda t: limits_text(t)),
    output.Column("NOTE", lambda t: t.note or "-"),
    output.Column("WHEN FULL", lambda t: t.on_full, wide=True),
    output.Column("AT THE BUDGET", lambda t: t.on_budget, wide=True),
    output.Column("TAKEN TO RUN", lambda t: humane.length(t.runtime_ms / 1000), right=True, wide=True),
    output.Column("CREATED", lambda t: humane.ago(t.created_at), right=True, wide=True),
)
USE = (
    output.Column("QUOTA", lambda d: d.name),
    output.Column("USED", lambda d: amount_text(d.name, d.used), right=True),
    output.Column("RESERVED", lambda d: amount_text(d.name, d.reserved), right=True),
    output.Column("LIMIT", lambda d: amount_text(d.name, d.limit), right=True),
    output.Column("LEFT", lambda d: amount_text(d.name, left_of(d)), right=True),
    output.Column("", lambda d: bar(d)),
    output.Column("WHAT IT IS", lambda d: DIMENSIONS[d.name].words if d.name in DIMENSIONS else "", spare=True),
)


class TenantView(Struct, frozen=True, kw_only=True):
    """A tenant and what it uses: two answers of the API."""

    tenant: TenantEntry
    usage: UsageEntry


def limit_options(command: Any) -> Any:
    """An option for each dimension of a quota."""
    shapes = {"units": "N", "jobs": "N", "bytes": "SIZE", "money": "AMOUNT"}
    for one in reversed(DIMENSIONS.values()):
        words = f"{one.words[0].upper()}{one.words[1:]}, at most; none: no limit."
        command = click.option(f"--{one.name}", metavar=shapes[one.kind], help=words)(command)
    return command


def other_options(command: Any) -> Any:
    """What else can be said of a tenant."""
    for option in reversed((
        click.option("--weight", type=click.IntRange(1, WEIGHT_MAX), help="Of its fair share; 3 beside 1: 3/4. [1]"),
        click.option("--priority-max", type=click.IntRange(-100, 100), help="The highest that its tokens may ask. [0]"),
        click.option("--on-full", type=click.Choice(("queue", "refuse")), help="No room now under its limits. [queue]"),
        click.option(
            "--on-budget", type=click.Choice(("continue", "stop")), help="What runs at the budget's end. [continue]"
        ),
        click.option("--default-runtime", metavar="LENGTH", help="Taken for tasks that name none, like 1h. [1h]"),
        click.option("--note", help="What it is for; shown in lists."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group(short_help="Tenants: who submits and pays, and how much each may use.")
def tenant() -> None:
    """Tenants own jobs, pay for them and see nothing of each other. `default` is always there, without limits.

    \b
    coord tenant create physics --cpus 64 --gpus 8 --memory 512GiB --budget 1000 --weight 3
    coord token create --role tenant --tenant physics --out physics.token
    coord tenant show physics
    """


@tenant.command()
@click.argument("name")
@limit_options
@other_options
@talks
def create(client: Client, name: str, **options: Any) -> None:
    """Make a tenant. Without a limit it may use whatever is there.

    \b
    coord tenant create physics --cpus 64 --memory 512GiB --budget 1000 --weight 3 --note "room B12"
    """
    entry = client.tenants.create(name, **changes_of(options))
    terminal.say(f"tenant {terminal.safe(entry.name)} is there: {terminal.safe(limits_text(entry))}")
    _say_rails(client, entry)
    terminal.say(f"its token: coord token create --role tenant --tenant {terminal.safe(entry.name)} --out FILE")


@tenant.command("list")
@click.option("--limit", type=click.IntRange(0), default=0, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_tenants(client: Client, limit: int, output: output.Format) -> None:
    """List the tenants with their limits; `coord usage` has what they use.

    \b
    coord tenant list
    coord tenant list -o wide
    """
    print_tenants(collect(lambda size, page: client.tenants.list(limit=size, page=page), limit, PAGE_MAX), output)


def print_tenants(answer: Tenants, form: output.Format) -> None:
    output.listing(answer, COLUMNS, form, name=lambda t: str(t.name))


@tenant.command()
@click.argument("name", shell_complete=live_tenants)
@output_option
@talks
def show(client: Client, name: str, output: output.Format) -> None:
    """Show a tenant: its limits, what is used and reserved of them now, and what is left.

    \b
    coord tenant show physics
    coord tenant show physics -o json
    """
    entry = client.tenants.show(name)
    print_tenant(TenantView(tenant=entry, usage=client.tenants.usage(name).entries[0]), output)


@tenant.command("set")
@click.argument("name", shell_complete=live_tenants)
@limit_options
@other_options
@talks
def change(client: Client, name: str, **options: Any) -> None:
    """Change what is named of a tenant; the rest stays. What it holds beyond a lower limit stays until it ends.

    \b
    coord tenant set physics --gpus 16 --budget none
    coord tenant set physics --weight 5
    """
    asked = changes_of(options)
    if not asked:
        raise click.UsageError(f"nothing to change: coord tenant set {terminal.safe(name)} --cpus 32")
    entry = client.tenants.change(name, **asked)
    terminal.say(f"tenant {terminal.safe(entry.name)}: {terminal.safe(limits_text(entry))}, weight {entry.weight}")
    _say_rails(client, entry)


def _say_rails(client: Client, entry: TenantEntry) -> None:
    """How far its limits are filled, where that is not up to the limit: of 2 GPUs, say, one whole one."""
    if any(limit is not None for limit in entry.quota.values()):
        rails = rails_text(client.tenants.usage(entry.name).entries[0])
        if rails:
            terminal.say(f"filled up to {rails}")


@tenant.command()
@click.argument("name", shell_complete=live_tenants)
@talks
def delete(client: Client, name: str) -> None:
    """Delete a tenant that has no live job and no valid token. What it was charged stays in the ledger.

    \b
    coord tenant delete physics
    """
    client.tenants.delete(name)
    terminal.say(f"tenant {terminal.safe(name)} is gone")


def changes_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the API's words: only those that were given."""
    from coordinator.timetext import SECOND_MS, asked_duration

    quota = {name: limit_of(name, options[name], f"--{name}") for name in DIMENSIONS if options.get(name) is not None}
    asked: dict[str, Any] = {
        name: options[name]
        for name in ("note", "weight", "priority_max", "on_full", "on_budget")
        if options[name] is not None
    }
    if options["default_runtime"] is not None:
        asked["runtime_ms"] = asked_duration(options["default_runtime"], "--default-runtime", SECOND_MS, RUNTIME_MAX_MS)
    return asked | ({"quota": quota} if quota else {})


RUNTIME_MAX_MS = 366 * 86_400_000


def limits_text(entry: TenantEntry) -> str:
    """`64 cpus, memory 512 GiB, budget 1000`, or that there are none."""
    return ", ".join(_named(name, limit) for name, limit in entry.quota.items() if limit is not None) or "no limits"


def rails_text(usage: UsageEntry) -> str:
    """`57.6 cpus, budget 900`: of the limits that are not filled to their end what may be used of them."""
    return ", ".join(
        _named(one.name, one.guardrail)
        for one in usage.dimensions
        if one.guardrail is not None and one.guardrail != one.limit
    )


def _named(name: str, amount: int) -> str:
    text = amount_text(name, amount)
    return f"{text} {name}" if name in ("cpus", "gpus", "running", "queued") else f"{name} {text}"


def print_tenant(view: TenantView, form: output.Format) -> None:
    """Facts, then a line for each dimension that is limited or used."""
    entry, usage = view.tenant, view.usage
    if form not in ("table", "wide"):
        output.single(view, form, name=entry.name)
        return
    output.print_facts([
        ("tenant", entry.name),
        ("note", entry.note),
        ("created", humane.when(entry.created_at)),
        ("live jobs", str(usage.live_jobs)),
        ("share", f"{humane.share(usage.share)} of the fleet now, {humane.share(usage.share_decayed)} remembered"),
        ("weight", str(entry.weight)),
        ("priority", f"up to {entry.priority_max}"),
        ("when full", entry.on_full),
        ("at its budget", "nothing new starts, what runs " + ("stops" if entry.on_budget == "stop" else "goes on")),
        ("taken to run", humane.length(entry.runtime_ms / 1000)),
    ])  # fmt: skip
    sys.stdout.write("\n")
    print_use(usage)


def print_use(usage: UsageEntry) -> None:
    """A line for each dimension that is limited or used."""
    said = [one for one in usage.dimensions if one.limit is not None or one.used or one.reserved]
    if not said:
        terminal.say("nothing is used, and nothing is limited")
        return
    output.print_table(said, USE, sys.stdout, fit=terminal.width(sys.stdout) if sys.stdout.isatty() else None)


def left_of(one: DimensionEntry) -> int | None:
    """What fits beside what is used and promised, up to the guardrail; None without a limit."""
    most = one.guardrail if one.guardrail is not None else one.limit
    return None if most is None else max(0, most - one.used - one.reserved)


def bar(one: DimensionEntry) -> str:
    """`[#####---......|..]`: # is used, - reserved, | is the guardrail; empty without a limit."""
    if not one.limit:
        return ""

    def at(amount: int) -> int:
        return min(BAR, -(-amount * BAR // one.limit)) if one.limit else 0

    used, promised = at(one.used), at(one.used + one.reserved)
    cells = ["#"] * used + ["-"] * (promised - used) + ["."] * (BAR - promised)
    rail = at(one.guardrail) if one.guardrail is not None else BAR
    if rail < BAR and cells[rail] == ".":
        cells[rail] = "|"
    return f"[{''.join(cells)}]"
