"""`coord attribute`: the verdict on any log, here and now, without a coordinator."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct

from cli import exits, humane, output, terminal, verdicts
from cli.logfile import STDIN, LogFile
from coordinator.core.errors import CoordError
from coordinator.core.verdict.rows import Verdict

if TYPE_CHECKING:
    from analytics.attribution.engine import Analysis, End, Rules

SHOWN_AFTER_S = 1.0
"""A file that is through by then is read without a word."""
EVERY_S = 0.1
FILES_MAX = 4_096


class Judged(Struct, frozen=True, kw_only=True):
    """A file and its verdict, as JSON lines and listings have them."""

    file: str
    verdict: Verdict


def signal_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """`9`, `KILL` or `SIGKILL`."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and 0 < int(value) < signal.NSIG:
        return int(value)
    name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise click.BadParameter(f"{value!a} is no signal: write it like 9, KILL or SIGKILL") from None


@click.command(short_help="Why it died, and what to do: the verdict on a log.")
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=str))
@click.option("--exit-code", type=click.IntRange(0, 255), help="What the process exited with.")
@click.option("--signal", "ended_by", metavar="S", callback=signal_number, help="What ended it: 9, KILL or SIGKILL.")
@click.option("--together", is_flag=True, help="The files are ranks of one run, or parts of one log: one verdict.")
@click.option(
    "--signatures", type=click.Path(path_type=Path, dir_okay=False), help="A table of your own; its rows come first."
)
@click.option(
    "-o", "--output", "form", type=click.Choice(("table", "json", "jsonl")), default="table", show_default=True,
    help="How to print it.",
)  # fmt: skip
def attribute(
    files: tuple[str, ...],
    exit_code: int | None,
    ended_by: int | None,
    together: bool,
    signatures: Path | None,
    form: str,
) -> int:
    """Say why a program died, by what its log has, and what to do about it. Nothing is sent anywhere.

    FILE is a log, plain or packed (gzip, xz, bzip2), or - for standard input. Each file has a verdict of its own,
    unless --together says that they belong to one run. The exit status is 0 whatever the verdict: 66 when a file cannot
    be read, 65 when it is packed in a way that is not known; the others are judged all the same.

    \b
    coord attribute train.log
    kubectl logs trainer-0 | coord attribute -
    coord attribute --together rank-*.log.gz -o json
    coord attribute --exit-code 137 slurm-4711.out
    """
    named = files or (() if sys.stdin.isatty() else (STDIN,))
    if not named:
        raise click.UsageError("Missing argument 'FILE...': name a log, or pipe one in")
    if len(named) > FILES_MAX:
        raise click.UsageError(f"{len(named)} files were named, and {FILES_MAX} may be")
    if named.count(STDIN) > 1:
        raise click.UsageError("- is standard input: it can be read once")
    from analytics.attribution.engine import Rules

    rules = Rules.load(signatures)
    end = _end(exit_code, ended_by)
    if together:
        judged = _judged_together(named, rules, end)
        _print([judged], single=True, form=form)
        return exits.OK
    return _each(named, rules, end, form)


def _end(exit_code: int | None, ended_by: int | None) -> End | None:
    from analytics.attribution.engine import End
    from coordinator.core.rows import EndCause

    if ended_by is None and exit_code is not None and exit_code > 128:
        ended_by = exit_code - 128  # as a shell reports what a signal ended
    if ended_by is not None:
        return End(cause=EndCause.SIGNALLED, signal=ended_by)
    return End(cause=EndCause.EXITED, code=exit_code) if exit_code is not None else None


def _each(named: tuple[str, ...], rules: Rules, end: End | None, form: str) -> int:
    """A verdict for each; a file that cannot be read is told, and the others go on."""
    from analytics.attribution.engine import judge

    status, done = exits.OK, []
    for name in named:
        try:
            one = Judged(file=name, verdict=judge([_read(name, rules)], end))
        except CoordError as error:
            terminal.complain(error.message, error.hint)
            status = status or exits.of(error.code)
            continue
        if form == "json" and len(named) > 1:
            done.append(one)
        else:
            _print([one], single=len(named) == 1, form=form)
    if form == "json" and len(named) > 1:
        _print(done, single=False, form=form)
    return status


def _judged_together(named: tuple[str, ...], rules: Rules, end: End | None) -> Judged:
    from analytics.attribution.engine import judge

    analyses = [_read(name, rules) for name in named]
    return Judged(file=", ".join(named[:8]) + (", ..." if len(named) > 8 else ""), verdict=judge(analyses, end))


def _read(name: str, rules: Rules) -> Analysis:
    """The whole of a file, with its progress on a terminal."""
    from analytics.attribution.engine import Analysis

    source = LogFile(name)
    analysis = Analysis(rules, name="stdin" if name == STDIN else Path(name).name)
    with _Reading(source) as reading:
        for chunk in source.chunks():
            analysis.feed(chunk)
            reading.look()
    if source.cut:
        terminal.complain(f"{source.name}: {source.cut}", "the verdict rests on what could be read of it")
    return analysis


class _Reading:
    """How far a large file is read, on a terminal alone."""

    def __init__(self, source: LogFile) -> None:
        self._source = source
        self._next_s = time.monotonic() + SHOWN_AFTER_S
        self._drawn = False

    def look(self) -> None:
        if not sys.stderr.isatty() or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + EVERY_S
        size = self._source.size
        of = f" of {humane.size_text(size)}, {self._source.read / max(size, 1):.0%}" if size is not None else ""
        line = f"reading {terminal.safe(self._source.name)}: {humane.size_text(self._source.read)}{of}"
        sys.stderr.write(f"\r\x1b[K{line[: terminal.width(sys.stderr) - 1]}")
        sys.stderr.flush()
        self._drawn = True

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _print(judged: list[Judged], *, single: bool, form: str) -> None:
    """One file's verdict is the answer itself; several are `entries`."""
    if form == "table":
        for one in judged:
            verdicts.print_verdict(one.verdict, title="" if single else one.file)
        return
    flat = [{"file": one.file, **msgspec.to_builtins(one.verdict)} for one in judged]
    if form == "jsonl":
        for row in flat:
            sys.stdout.write(terminal.safe_json(msgspec.json.encode(row).decode()) + "\n")
            sys.stdout.flush()
    else:
        output.print_json(flat[0] if single else {"entries": flat})
