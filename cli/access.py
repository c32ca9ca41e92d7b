"""`coord token` and `coord pool`: who may come in, and under which name machines are grouped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.config import CENTURY_MS
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.api_types import NodePools, Pools, TokenEntry, TokenMade, Tokens

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 1000
ROLES = ("admin", "tenant", "read-only", "join")

TOKENS = (
    output.Column("TOKEN", lambda t: t.token_id),
    output.Column("ROLE", lambda t: t.role),
    output.Column("STATE", lambda t: _state(t)),
    output.Column("CREATED", lambda t: humane.ago(t.created_at), right=True),
    output.Column("EXPIRES", lambda t: humane.left(t.expires_at), right=True),
    output.Column("FOR", lambda t: t.provider_id or t.pool or t.tenant or "-"),
    output.Column("NOTE", lambda t: t.note or "-"),
)
POOLS = (
    output.Column("POOL", lambda p: p.name),
    output.Column("PROVIDERS", lambda p: str(p.providers), right=True),
    output.Column("CREATED", lambda p: humane.ago(p.created_at), right=True),
    output.Column("NOTE", lambda p: p.note or "-"),
)


CAPACITY = (
    output.Column("POOL", lambda p: p.name),
    output.Column("TAKE WORK", lambda p: f"{p.online}/{p.providers}", right=True),
    output.Column("CPUS FREE", lambda p: f"{p.cpus_free:g}/{p.cpus:g}", right=True),
    output.Column("MEMORY FREE", lambda p: f"{p.memory_free / 1e9:.0f}/{p.memory / 1e9:.0f} GB", right=True),
    output.Column("GPUS FREE", lambda p: f"{p.gpus_free:g}/{p.gpus}", right=True),
    output.Column("RUNS", lambda p: str(p.attempts), right=True, explained="ATTEMPTS THERE"),
    output.Column("QUEUED", lambda p: str(p.queued), right=True, explained="TASKS QUEUED"),
    output.Column("STARTS", lambda p: _starts(p.eta), right=True, explained="A NEW TASK STARTS"),
    output.Column("DRAINED", lambda p: str(p.drained), right=True, wide=True),
    output.Column("QUARANTINED", lambda p: str(p.quarantined), right=True, wide=True),
    output.Column("NEXT FREE", lambda p: humane.left(p.next_free_at), right=True, wide=True),
)


def _starts(eta: str | None) -> str:
    """Where there is room, now."""
    return "now" if eta is not None and humane.moment(eta) <= datetime.now(UTC) else humane.left(eta)


def _state(entry: TokenEntry) -> str:
    if entry.revoked_at is not None:
        return "revoked"
    over = entry.expires_at is not None and humane.moment(entry.expires_at) <= datetime.now(UTC)
    return "expired" if over else "valid"


@click.group(short_help="Make, list and revoke tokens.")
def token() -> None:
    """Tokens open the API (admin, tenant, read-only) or enrol agents (join). A token's text is shown once.

    \b
    coord token create --role read-only --note dashboard
    coord token create --role join --pool lab --expires 7d
    coord token revoke 4f1c22ab90de
    """


@token.command()
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@click.option("--note", default="", help="What it is for; shown in lists.")
@click.option("--expires", metavar="LENGTH", help="It ends by itself after so long, like 7d.")
@click.option("--pool", help="Of a join token: the pool that it enrols into.")
@click.option("--tenant", help="Of a tenant token: the tenant that it speaks for.")
@click.option(
    "-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True,
    help="table: the token alone.",
)  # fmt: skip
@talks
def create(
    client: Client, role: str, note: str, expires: str | None, pool: str | None, tenant: str | None, output: str
) -> None:
    """Make a token and print it. It is shown this once and kept nowhere.

    \b
    coord token create --role read-only --note dashboard
    coord token create --role join --pool lab --expires 7d > join.token
    """
    from coordinator.timetext import SECOND_MS, asked_duration

    expires_in_s = asked_duration(expires, "--expires", SECOND_MS, CENTURY_MS) / SECOND_MS if expires else None
    print_made(client.create_token(role=role, note=note, expires_in_s=expires_in_s, pool=pool, tenant=tenant), output)


def print_made(made: TokenMade, form: str) -> None:
    """The token's text on stdout, what it is on stderr."""
    if form == "json":
        output.print_json(made)
        return
    click.echo(made.token)
    until = f", until {humane.clock(made.entry.expires_at)} UTC" if made.entry.expires_at else ""
    terminal.say(f"{made.entry.role} token {made.entry.token_id}{until}: keep it now, it is shown this once")


@token.command("list")
@click.option("--limit", type=click.IntRange(0), default=0, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_tokens(client: Client, limit: int, output: output.Format) -> None:
    """List tokens, without their texts.

    \b
    coord token list
    coord token list -o json
    """
    print_tokens(collect(lambda size, page: client.tokens(limit=size, page=page), limit, PAGE_MAX), output)


def print_tokens(answer: Tokens, form: output.Format) -> None:
    output.listing(answer, TOKENS, form, name=lambda t: str(t.token_id))


@token.command(short_help="Revoke a token: from now on it opens nothing.")
@click.argument("token_id")
@talks
def revoke(client: Client, token_id: str) -> None:
    """Revoke a token: from now on it opens nothing, and what it holds open is cut.

    \b
    coord token revoke 4f1c22ab90de
    """
    client.revoke_token(token_id)
    terminal.say(f"token {terminal.safe(token_id)} is revoked")


@click.group(short_help="Make, list and delete pools; what is free in them.")
def pool() -> None:
    """Pools are named groups of providers. `default` is always there.

    \b
    coord pool create lab --note "room B12"
    coord pool list
    coord pool capacity
    """


@pool.command("create")
@click.argument("name")
@click.option("--note", default="", help="What it is for; shown in lists.")
@talks
def create_pool(client: Client, name: str, note: str) -> None:
    """Make a pool.

    \b
    coord pool create lab --note "room B12"
    """
    entry = client.create_pool(name, note=note)
    terminal.say(f"pool {terminal.safe(entry.name)} is there; join it: coord token create --role join --pool {name}")


@pool.command("list")
@output_option
@talks
def list_pools(client: Client, output: output.Format) -> None:
    """List the pools.

    \b
    coord pool list -o json
    """
    print_pools(client.pools(), output)


def print_pools(answer: Pools, form: output.Format) -> None:
    output.listing(answer, POOLS, form, name=lambda p: str(p.name))


@pool.command(short_help="What each pool has, what is free, what waits for it.")
@output_option
@talks
def capacity(client: Client, output: output.Format) -> None:
    """What each pool has, what of it is free, what waits for it, and when a task that is queued now should start.

    \b
    coord pool capacity
    coord pool capacity -o wide
    """
    print_capacity(client.nodepools(), output)


def print_capacity(answer: NodePools, form: output.Format) -> None:
    output.listing(answer, CAPACITY, form, name=lambda p: str(p.name))


@pool.command("delete")
@click.argument("name")
@talks
def delete_pool(client: Client, name: str) -> None:
    """Delete a pool that no provider is in.

    \b
    coord pool delete lab
    """
    client.delete_pool(name)
    terminal.say(f"pool {terminal.safe(name)} is gone")
