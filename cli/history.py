"""`coord import`: history from elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from cli import humane, output, progress, terminal
from cli.options import Reach, json_option, reaches
from coordinator.api_types.operations import ImportAnswer
from coordinator.core.errors import Code, CoordError


@click.group("import", short_help="Take in history from elsewhere.")
def history() -> None:
    """Take in what another system knows of the same machines.

    \b
    coord import sessions history.csv.xz
    """


@history.command(short_help="Import sessions from a CSV file.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@reaches
def sessions(reach: Reach, file: Path, output: str) -> None:
    """Import sessions from a CSV file, plain or compressed by gzip or xz (`-` reads stdin).

    The header is provider_id,connected_at,disconnected_at,disconnect_reason; times are Unix seconds or
    ISO 8601 with a zone; an empty end is a session that is still open. All rows are taken, or none: bad ones
    are named with their line. The same file again changes nothing.

    \b
    coord import sessions history.csv.xz
    zcat history.csv.gz | coord import sessions -
    """
    with (
        _opened(file) as body,
        reach.client() as client,
        progress.Bar("importing", os.fstat(body.fileno()).st_size, sys.stderr) as bar,
    ):
        answer = client.import_sessions(body, bar.at)
    print_import(answer, output)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as wrong:
        code = Code.NOT_FOUND if isinstance(wrong, FileNotFoundError) else Code.BAD_REQUEST
        raise CoordError(code, f"{path} cannot be read: {wrong.strerror}", "name a CSV file") from wrong
    with file:
        yield file


def print_import(answer: ImportAnswer, form: str) -> None:
    if form == "json":
        output.print_json(answer)
        return
    taken = f"{humane.count(answer.rows, 'session')} of {humane.count(answer.providers, 'provider')}"
    click.echo(f"{taken}: {answer.added} added, {answer.closed} closed, {answer.unchanged} known already")
    if answer.first_at is not None:
        terminal.say(f"from {humane.clock(answer.first_at)} to {humane.clock(answer.last_at)} UTC")
