"""`coord artifacts`: stored bytes with names, put there, fetched, and their names taken away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_artifacts, live_tenants
from cli.moving import Moving, round_size
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import digest_named

if TYPE_CHECKING:
    from coordinator.api_types.data import ArtifactDetails, ArtifactEntry
    from coordinator.client import Client

PAGE_MAX = 1000
DIGEST_CHARS = 12
"""Of a digest in a table; `-o wide` has all 64."""
COLUMNS = (
    output.Column("NAME", lambda a: a.name),
    output.Column("SIZE", lambda a: round_size(a.size), right=True),
    output.Column("STORED", lambda a: humane.ago(a.created_at), right=True),
    output.Column("DIGEST", lambda a: a.digest[:DIGEST_CHARS], explained="BLAKE3", full=lambda a: a.digest),
    output.Column("TENANT", lambda a: a.tenant, wide=True),
    output.Column("EXECUTABLE", lambda a: "yes" if a.executable else "no", wide=True),
    output.Column("BY", lambda a: a.by, wide=True),
)
tenant_option = click.option("--tenant", shell_complete=live_tenants, help="Of this tenant (an admin may).")


@click.group(short_help="Stored files with names: list, show, put, get, rm.")
def artifacts() -> None:
    """Files that are stored under a name, for jobs to take in (inputs = ["artifact:NAME"]) and for people.

    The same bytes are stored once, however many names and jobs refer to them, and go when nothing does any more.

    \b
    coord artifacts put model.pt
    coord artifacts list 'model*'
    coord artifacts get model.pt
    """


@artifacts.command("list")
@click.argument("pattern", required=False)
@tenant_option
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_artifacts(client: Client, pattern: str | None, tenant: str | None, limit: int, output: output.Format) -> None:
    """List the artifacts, or those whose names are like PATTERN, where * and ? stand for anything.

    \b
    coord artifacts list
    coord artifacts list 'model*' -o wide
    """
    print_artifacts(client, pattern, tenant, limit, output)


def print_artifacts(client: Client, pattern: str | None, tenant: str | None, limit: int, form: output.Format) -> None:
    answer = collect(
        lambda size, page: client.artifacts.list(name=pattern, tenant=tenant, limit=size, page=page), limit, PAGE_MAX
    )
    empty = "no artifact is called like that" if pattern else "there is no artifact yet: coord artifacts put FILE"
    output.listing(answer, COLUMNS, form, name=lambda a: str(a.name), empty=empty)
    if answer.next_page is not None and form in ("table", "wide") and sys.stdout.isatty():
        terminal.say("there are more: --limit 0")


@artifacts.command()
@click.argument("name", shell_complete=live_artifacts)
@tenant_option
@output_option
@talks
def show(client: Client, name: str, tenant: str | None, output: output.Format) -> None:
    """Show an artifact, or stored bytes by their digest (blake3:HEX or sha256:HEX), and who keeps them.

    \b
    coord artifacts show model.pt
    """
    print_details(client.artifacts.show(name, tenant=tenant), output)


def print_details(answer: ArtifactDetails, form: output.Format) -> None:
    named = answer.artifact
    if form not in ("table", "wide"):
        output.single(answer, form, name=named.name if named is not None else answer.digest)
        return
    output.print_facts([
        ("artifact", named.name if named is not None else ""),
        ("size", f"{humane.size_text(answer.size)} ({answer.size} bytes)"),
        ("blake3", answer.digest),
        ("sha256", answer.sha256 or ""),
        ("executable", "yes" if named is not None and named.executable else ""),
        ("stored", humane.when(answer.stored_at)),
        ("named", f"{humane.when(named.created_at)} by {named.by}" if named is not None else ""),
        ("tenant", answer.tenant),
        ("kept by", ", ".join(kept_by(answer)) or "nobody: it goes some time after it was last asked for"),
    ])  # fmt: skip


def kept_by(answer: ArtifactDetails) -> list[str]:
    """Who keeps it, in words: `job 12 (input)`, `task 12.0.3 (output)`."""
    words = {"job": "(input)", "task": "(output)"}
    said = []
    for holder in answer.held_by:
        kind, _, name = holder.partition(":")
        said.append(f"{kind} {name} {words.get(kind, '')}".rstrip())
    return said


@artifacts.command()
@click.argument("files", nargs=-1, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--name", help="What it is called; of a single file. [its own name]")
@click.option("--digest", metavar="HEX", help="Instead of a file: name bytes that are stored already, like a result's.")
@tenant_option
@click.option("-q", "--quiet", is_flag=True, help="Print no names.")
@talks
def put(
    client: Client, files: tuple[Path, ...], name: str | None, digest: str | None, tenant: str | None, quiet: bool
) -> None:
    """Store files under their names, or one under another. What had a name before gives way. Bytes that are stored
    already are not sent again; what broke off is gone on with by the same command.

    \b
    coord artifacts put model.pt
    coord artifacts put build/tool --name tool-1.2
    coord artifacts put --digest blake3:4f1c... --name best.pt
    """
    if (digest is None) == (not files) or (name is not None and len(files) > 1) or (digest is not None and not name):
        raise click.UsageError("name files to store, or one and its --name, or a --digest and its --name")
    if digest is not None:
        found = client.artifacts.show(":".join(digest_named(digest)), tenant=tenant)
        assert name is not None
        _tell(client.artifacts.name(name, found.digest, tenant=tenant), quiet)
        return
    for path in files:
        with Moving(sys.stderr) as moving:
            entry = client.artifacts.put(path, name, tenant=tenant, begin=moving.begin)
        _tell(entry, quiet)


def _tell(entry: ArtifactEntry, quiet: bool) -> None:
    if not quiet:
        click.echo(f"{terminal.safe(entry.name)}  {round_size(entry.size)}  blake3:{entry.digest}")


@artifacts.command()
@click.argument("name", shell_complete=live_artifacts)
@click.argument("to", required=False, type=click.Path(), metavar="[FILE | DIR/]")
@click.option("--force", is_flag=True, help="Also in place of another file.")
@tenant_option
@talks
def get(client: Client, name: str, to: str | None, force: bool, tenant: str | None) -> None:
    """Fetch an artifact, or stored bytes by their digest, into this directory, another one, or a file. It is verified;
    what broke off is gone on with by the same command.

    \b
    coord artifacts get model.pt
    coord artifacts get model.pt models/
    coord artifacts get blake3:4f1c... best.pt
    """
    root, path = where(to)
    with Moving(sys.stderr) as moving:
        found = client.artifacts.get(name, root, path, tenant=tenant, force=force, begin=moving.begin)
    there = root / (path or (found.artifact.name if found.artifact is not None else found.digest))
    click.echo(f"{terminal.safe(str(there))}  {round_size(found.size)}")


def where(to: str | None) -> tuple[Path, str | None]:
    """The directory that it goes to and its name there; None: its own. With `/` at its end it is a directory."""
    if to == "-":
        raise CoordError(
            Code.BAD_REQUEST, "stdout is no place for a file that is verified when it is whole", "name a file"
        )
    path = Path(to or ".")
    if to is None or to.endswith("/") or path.is_dir():
        return path, None
    if path.name in ("", ".."):
        raise CoordError(Code.BAD_REQUEST, f"{to} is no place for a file", "name a directory that is there, or a file")
    return path.parent, path.name


@artifacts.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=live_artifacts)
@tenant_option
@talks
def rm(client: Client, names: tuple[str, ...], tenant: str | None) -> None:
    """Take names away. The bytes stay as long as another name or a job refers to them, and some time (a day) longer.

    \b
    coord artifacts rm model.pt
    """
    for name in names:
        client.artifacts.remove(name, tenant=tenant)
        terminal.say(f"{terminal.safe(name)} is no name any more")
