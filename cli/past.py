"""`coord query sessions|heartbeats`: what was, newest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import humane, output
from cli.completion import live_providers
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.api_types.fleet import WindowOf

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 500
WINDOWS = ("24h", "1d", "7d", "30d")
Namer = Callable[[Any], str]

SESSIONS = (
    output.Column("CONNECTED", lambda s: humane.clock(s.connected_at)),
    output.Column("DISCONNECTED", lambda s: humane.clock(s.disconnected_at) if s.disconnected_at else "open"),
    output.Column("FOR", lambda s: humane.length(s.duration_seconds), right=True),
    output.Column("REASON", lambda s: s.disconnect_reason or "-"),
    output.Column("ID", lambda s: str(s.session_id), right=True, wide=True),
    output.Column("LAST HEARTBEAT", lambda s: humane.clock(s.last_heartbeat_at), wide=True),
    output.Column("COORDINATOR", lambda s: s.coordinator_id, wide=True),
    output.Column("REQUESTS", lambda s: str(s.requests_served), right=True, wide=True),
    output.Column("TOKENS", lambda s: str(s.tokens_generated), right=True, wide=True),
)
HEARTBEATS = (
    output.Column("OBSERVED", lambda b: humane.clock(b.observed_at)),
    output.Column("STATUS", lambda b: b.status),
    output.Column("CPU", lambda b: humane.share(b.cpu_usage, 0), right=True),
    output.Column("PRESSURE", lambda b: humane.share(b.memory_pressure), right=True),
    output.Column("FREE GB", lambda b: humane.number(b.memory_available_gb, 1), right=True),
    output.Column("THERMAL", lambda b: b.thermal_state or "-"),
    output.Column("GPU GB", lambda b: humane.number(b.gpu_memory_active_gb, 1), right=True, wide=True),
    output.Column("GPU CACHE", lambda b: humane.number(b.gpu_memory_cache_gb, 1), right=True, wide=True),
    output.Column("BACKEND", lambda b: b.backend_state or "-", wide=True),
    output.Column("MODEL", lambda b: b.active_model or "-", wide=True),
    output.Column("CAPACITY", lambda b: humane.number(b.capacity, 1), right=True, wide=True),
)
HOURS = (
    output.Column("HOUR", lambda h: humane.clock(h.hour)),
    output.Column("COUNT", lambda h: str(h.count), right=True),
    output.Column("CPU", lambda h: humane.share(h.mean_cpu_usage, 0), right=True),
    output.Column("PRESSURE", lambda h: humane.share(h.mean_memory_pressure), right=True),
    output.Column("FREE GB", lambda h: humane.number(h.mean_memory_available_gb, 1), right=True),
    output.Column("WORST THERMAL", lambda h: h.worst_thermal_state or "-"),
)


@click.command()
@click.argument("provider", shell_complete=live_providers)
@click.option("--window", type=click.Choice(WINDOWS), default="7d", show_default=True, help="How far back.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def sessions(client: Client, provider: str, window: str, limit: int, output: output.Format) -> None:
    """A provider's sessions, newest first.

    \b
    coord query sessions lab-07 --window 30d --limit 0 -o csv
    """
    answer = collect(
        lambda size, page: client.sessions(provider, window=window, limit=size, page=page), limit, PAGE_MAX
    )
    print_rows(answer, SESSIONS, output, lambda s: str(s.session_id))


@click.command(short_help="A provider's heartbeats, or their hourly means.")
@click.argument("provider", shell_complete=live_providers)
@click.option("--window", type=click.Choice(WINDOWS), default="7d", show_default=True, help="How far back.")
@click.option("--hourly", is_flag=True, help="The rollup by whole hours instead.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def heartbeats(client: Client, provider: str, window: str, hourly: bool, limit: int, output: output.Format) -> None:
    """A provider's heartbeats, newest first, or their hourly rollup.

    \b
    coord query heartbeats lab-07 --limit 10
    coord query heartbeats lab-07 --hourly --window 24h -o json
    """
    if hourly:
        hours = collect(
            lambda size, page: client.hours(provider, window=window, limit=size, page=page), limit, PAGE_MAX
        )
        print_rows(hours, HOURS, output, lambda h: str(h.hour))
    else:
        beats = collect(
            lambda size, page: client.heartbeats(provider, window=window, limit=size, page=page), limit, PAGE_MAX
        )
        print_rows(beats, HEARTBEATS, output, lambda b: str(b.observed_at))


def print_rows(answer: WindowOf, columns: Sequence[output.Column], form: output.Format, name: Namer) -> None:
    """A list over a window."""
    empty = f"nothing of {answer.provider_id} in the last {answer.window}: --window looks further back"
    output.listing(answer, columns, form, name=name, empty=empty)
