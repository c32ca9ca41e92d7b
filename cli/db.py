"""`coord db`: backup, restore and check of the data directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import exits, output, terminal
from cli.config import Config
from cli.options import Reach, config_option, data_option, given, json_option, reaches, talks
from coordinator.api_types.operations import CheckAnswer
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.client import Client


@click.group(short_help="Back up, restore and check the data directory.")
def db() -> None:
    """The data directory is the truth: two SQLite databases, sealed segments, logs and blobs.

    \b
    coord db backup
    coord db check
    coord db restore /srv/coord/backups/coord-20261122T043105Z-1ba0 --data /srv/coord-new
    """


@db.command(short_help="Have the coordinator write a verified backup.")
@click.option("--name", help="A directory below backups/ for this copy and later ones of that name.")
@json_option
@talks
def backup(client: Client, name: str | None, output: str) -> None:
    """Have the running coordinator write a consistent, verified copy below its data directory; prints its path.

    Every copy is a directory of its own, named after the time: none is ever overwritten.

    \b
    coord db backup
    coord db backup --name before-upgrade
    rsync -a "$(coord db backup)" elsewhere:/backups/
    """
    answer = client.backup(name)
    if output == "json":
        print_json(answer)
    else:
        click.echo(terminal.safe(answer.path))


def print_json(answer: object) -> None:
    output.print_json(answer)


@db.command(short_help="Put a backup in the data directory's place.")
@click.argument("backup_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@data_option
@config_option
def restore(backup_dir: Path, data: Path | None, config_file: Path | None) -> None:
    """Put a backup in the place of the data directory, which must not be in use.

    The backup's digests are verified first. What was there is kept beside it. Agents connect again by
    themselves; one that enrolled after the backup was made has to enrol again.

    \b
    coord db restore /srv/coord/backups/coord-20261122T043105Z-1ba0 --data /srv/coord
    """
    from store.restore import restore as restore_files

    config = Config(file=config_file, flags=given(data=("--data", data)))
    place = config.data().absolute()
    failpoint = config.secret("COORD_FAILPOINT") or ""
    before = restore_files(
        backup_dir.absolute(), place, failpoint, lambda problem: terminal.say(terminal.safe(problem))
    )
    if before is not None:
        terminal.say(f"what was there is kept in {terminal.safe(str(before))}")
    terminal.say(f"restored {terminal.safe(str(backup_dir))} into {terminal.safe(str(place))}; start it: coord serve")


@db.command()
@click.option("--offline", is_flag=True, help="Read the files of a data directory that nothing runs on.")
@json_option
@reaches
def check(reach: Reach, offline: bool, output: str) -> int:
    """Check both databases and the digests of segments and blobs. Exit status 1 when there is a problem.

    \b
    coord db check
    coord db check --offline --data /srv/coord
    """
    if offline:
        return print_check(_offline(reach.config.data().absolute()), output)
    with reach.client() as client:
        return print_check(client.check(), output)


def _offline(data: Path) -> CheckAnswer:
    from coordinator.service.api.entries import check_answer
    from store.check import check_files
    from store.layout import DataDir

    if not DataDir(data).truth.is_file() and not DataDir(data).coordinator_id.is_file():
        raise CoordError(
            Code.NOT_FOUND,
            f"there is no data directory {data}",
            "name one with --data: it holds truth.sqlite and coordinator_id",
        )

    report = check_files(data)
    return check_answer(report)


def print_check(answer: CheckAnswer, form: str) -> int:
    if form == "json":
        output.print_json(answer)
    else:
        click.echo(
            f"{answer.files} files, {answer.rows} rows, {answer.segments} segments, {answer.blobs} blobs checked"
        )
        if answer.unread:
            click.echo(
                f"{answer.unread} blobs were not read for lack of time: stop it and run coord db check --offline"
            )
        if answer.ownerless:
            click.echo(f"{answer.ownerless} files of blobs have no row; a sweep collects them")
        for problem in answer.problems:
            click.echo(f"problem: {terminal.safe(problem)}")
        click.echo("no problems" if not answer.problems else f"{len(answer.problems)} problems")
    return exits.FOUND_PROBLEMS if answer.problems else exits.OK
