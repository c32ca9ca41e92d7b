"""`coord token`: who may come in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_pools, live_tenants
from cli.config import CENTURY_MS
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.api_types.access import TokenEntry, TokenMade, Tokens
from coordinator.core.errors import Code, CoordError

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
@click.option("--pool", shell_complete=live_pools, help="Of a join token: the pool that it enrols into.")
@click.option(
    "--tenant", shell_complete=live_tenants,
    help="Of a tenant token: the tenant that it speaks for; of a read-only one: the only tenant that it sees.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="Write it into this new file, that its owner alone may read, instead of to stdout.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True,
    help="table: the token alone.",
)  # fmt: skip
@talks
def create(
    client: Client,
    role: str,
    note: str,
    expires: str | None,
    pool: str | None,
    tenant: str | None,
    out: Path | None,
    output: str,
) -> None:
    """Make a token and print it. It is shown this once and kept nowhere.

    \b
    coord token create --role tenant --tenant physics --out physics.token
    coord token create --role read-only --note dashboard
    coord token create --role join --pool lab --expires 7d > join.token
    """
    from coordinator.timetext import SECOND_MS, asked_duration

    expires_in_s = asked_duration(expires, "--expires", SECOND_MS, CENTURY_MS) / SECOND_MS if expires else None
    with private(out) if out is not None else nullcontext() as file:
        made = client.create_token(role=role, note=note, expires_in_s=expires_in_s, pool=pool, tenant=tenant)
        print_made(made, output, file, out)


@contextmanager
def private(path: Path) -> Iterator[IO[str]]:
    """A new file of mode 0600, made before the token is: a token that was made and lost would have to be revoked.

    It is gone again when no token came. CoordError(CONFLICT) when there is such a file: it may hold another one.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as there:
        raise CoordError(Code.CONFLICT, f"{path} is there already", "name a new file, or remove that one") from there
    except OSError as wrong:
        raise CoordError(
            Code.BAD_REQUEST, f"{path} cannot be written: {wrong.strerror}", "name a file in a directory of yours"
        ) from wrong
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def print_made(made: TokenMade, form: str, file: IO[str] | None = None, path: Path | None = None) -> None:
    """The token's text into `file`, which is at `path`, else on stdout; what it is on stderr."""
    if form == "json" and file is None:
        output.print_json(made)
        return
    click.echo(made.token, file=file)
    entry = made.entry
    until = f", until {humane.clock(entry.expires_at)} UTC" if entry.expires_at else ""
    whose = f" of tenant {terminal.safe(entry.tenant)}" if entry.tenant else ""
    where = f"in {terminal.safe(str(path))}" if path is not None else "keep it now, it is shown this once"
    if form == "json":
        output.print_json(entry)
    terminal.say(f"{entry.role} token {entry.token_id}{whose}{until}: {where}")


@token.command("list")
@click.option("--tenant", shell_complete=live_tenants, help="Only those of this tenant.")
@click.option("--role", type=click.Choice(ROLES), help="Only of this role.")
@click.option("--limit", type=click.IntRange(0), default=0, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_tokens(client: Client, tenant: str | None, role: str | None, limit: int, output: output.Format) -> None:
    """List tokens, without their texts.

    \b
    coord token list
    coord token list --tenant physics -o json
    """
    asked = 0 if tenant else limit  # which are the tenant's is looked for here
    answer = collect(lambda size, page: client.tokens(role=role, limit=size, page=page), asked, PAGE_MAX)
    if tenant is not None:
        own = tuple(one for one in answer.entries if one.tenant == tenant)
        answer = Tokens(entries=own[:limit] if limit else own)
    print_tokens(answer, output)


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
