"""`coord`: finds the command, runs it, and turns whatever happens into an exit status.

Commands are imported when they are asked for: `coord providers list` never loads the server, DuckDB or TLS.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from cli import exits, terminal
from coordinator.core.errors import Code, CoordError

OURS = ("coordinator", "store", "analytics", "cli")
_ROOT = Path(__file__).resolve().parent.parent


class Entry(NamedTuple):
    """A command that is not imported yet: `where` is module:attribute, `short` its line in the list."""

    where: str
    short: str


WORK, INSIDE, RUN, LOOK, OPERATE = "Run work", "Inside a job", "Run a fleet", "Look", "Operate"
COMMANDS: dict[str, dict[str, Entry]] = {
    WORK: {
        "submit": Entry("cli.submit:submit", "Have a command or a job file run."),
        "job": Entry("cli.jobs:job", "Jobs: list, show, outputs, why, wait, cancel, retry."),
        "logs": Entry("cli.joblogs:logs", "What a job writes."),
        "watch": Entry("cli.watch:watch", "A job's launch: does it get to run, and if not, why."),
        "artifacts": Entry("cli.artifacts:artifacts", "Stored files with names: list, show, put, get, rm."),
        "events": Entry("cli.events:events", "What happens, as it happens."),
        "audit": Entry("cli.events:audit", "The record of every transition and of what people did."),
    },
    INSIDE: {
        "progress": Entry("cli.inside:progress", "Say how far the job is that this runs in."),
        "checkpoint": Entry("cli.inside:checkpoint", "Have the state of the job saved that this runs in."),
    },
    RUN: {
        "up": Entry("cli.serve:up", "Start a coordinator and one agent on this machine."),
        "serve": Entry("cli.serve:serve", "Run the coordinator."),
        "agent": Entry("cli.agent:agent", "Run the agent of this machine."),
        "attrsvc": Entry("cli.attrsvc:attrsvc", "Verdicts for launchers, over a socket of this machine."),
        "mcp": Entry("cli.mcp:mcp", "Tools for agents, over standard input and output."),
        "demo": Entry("cli.demo.tour:demo", "Show the whole of it in under a minute."),
    },
    LOOK: {
        "providers": Entry("cli.providers:providers", "The fleet now; drain, resume or forget a provider."),
        "query": Entry("cli.query:query", "Reliability, forecasts, history, and SQL over all of it."),
        "usage": Entry("cli.usage:usage", "What tenants use now, and what they were charged for."),
        "transfers": Entry("cli.transfers:transfers", "Bytes of files that move, wait or are held back."),
        "alerts": Entry("cli.alerts:alerts", "What needs attention now."),
        "trace": Entry("cli.trace:trace", "Where the time of a run went: analyze, compare, export."),
        "attribute": Entry("cli.attribute:attribute", "Why it died, and what to do: the verdict on a log."),
    },
    OPERATE: {
        "import": Entry("cli.history:history", "Take in history from elsewhere."),
        "tenant": Entry("cli.tenant:tenant", "Tenants: who submits and pays, and how much each may use."),
        "token": Entry("cli.access:token", "Make, list and revoke tokens."),
        "pool": Entry("cli.pool:pool", "Pools: make, list, price and delete them; what is free."),
        "db": Entry("cli.db:db", "Back up, restore and check the data directory."),
        "config": Entry("cli.show:config", "Show the settings and where each came from."),
        "doctor": Entry("cli.doctor:doctor", "Check this machine, and say what to do."),
        "simulate": Entry("cli.simulate:simulate", "Replay a fleet's past under a policy; or a world of failures."),
        "completion": Entry("cli.completion:completion", "Print the completion script of a shell."),
    },
}
_ENTRIES = {name: entry for group in COMMANDS.values() for name, entry in group.items()}


class ReaderGone(Exception):
    """The other end of our output was closed. Not an OSError: click has ways of its own with those."""


ANYWHERE = ("--data", "--url", "--config")
"""Options of most commands that may also stand before the command."""


class Root(click.Group):
    """The commands above, imported one at a time."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, behind_the_command(args))
        except click.NoSuchOption as wrong:
            if args[0].partition("=")[0] in ANYWHERE:
                raise click.UsageError(f"Missing command: coord {args[0]} ... COMMAND", ctx) from wrong
            if any(arg in _ENTRIES for arg in args):
                raise click.UsageError(
                    f"No such option: {wrong.option_name} before the command; it goes behind: coord COMMAND "
                    f"{wrong.option_name} ...",
                    ctx,
                ) from wrong
            raise

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as gone:
            raise ReaderGone from gone

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with names to suggest that were not imported."""
        if args and not args[0].startswith("-") and args[0] not in _ENTRIES and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=list(_ENTRIES), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.short) for name, entry in entries.items()])


def behind_the_command(args: list[str]) -> list[str]:
    """The arguments with those of ANYWHERE that lead them moved to the end; one that stands there already wins."""
    leading: list[str] = []
    rest = list(args)
    while rest and rest[0].partition("=")[0] in ANYWHERE:
        taken = 1 if "=" in rest[0] else 2
        option = rest[0].partition("=")[0]
        value, rest = rest[:taken], rest[taken:]
        if not any(arg.partition("=")[0] == option for arg in rest):
            leading += value
    if not rest:
        return list(args)
    end = rest.index("--") if "--" in rest else len(rest)
    return rest[:end] + leading + rest[end:]


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "-V", "--version", package_name="coord", prog_name="coord", message="%(prog)s %(version)s")
def root() -> None:
    """Runs long batch jobs on machines that come and go, and says which will stay.

    \b
    coord up                                start a coordinator and an agent here
    coord submit --wait -- python train.py  run it on whichever machine it fits
    coord providers list                    who is there
    coord query reliability --horizon 8h    who can be relied on, and until when
    coord --data DIR providers list         --data, --url and --config may stand first
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (docs/reference/cli.md)."""
    try:
        check_packages()
        code = root.main(None if argv is None else list(argv), prog_name="coord", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except CoordError as refused:
        if refused.refusals:
            from cli import refusals

            refusals.tell(refused)
        else:
            terminal.complain(refused.message, refused.hint)
        return exits.of(refused.code)
    except click.exceptions.NoArgsIsHelpError as nothing:
        click.echo(nothing.ctx.get_help() if nothing.ctx else "", err=True)
        return exits.USAGE
    except click.ClickException as wrong:
        terminal.complain(re.sub(r"\n\t", " ", wrong.format_message()), _how(wrong))
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except (BrokenPipeError, ReaderGone):
        # The interpreter flushes stdout once more at its end: that must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except Exception:
        # A fault of ours: the traceback is for the report, the status is the documented one.
        sys.excepthook(*sys.exc_info())
        terminal.complain("this is a fault of coord itself", "please report it with the lines above")
        return exits.of(Code.INTERNAL)


def _how(wrong: click.ClickException) -> str:
    ctx = getattr(wrong, "ctx", None)
    return f"see: {ctx.command_path} --help" if ctx is not None else ""


def check_packages() -> None:
    """The four packages have plain names: make sure that none of them is somebody else's."""
    for name in OURS:
        module = sys.modules.get(name)
        found = module.__spec__ if module is not None else importlib.util.find_spec(name)
        origin = Path(found.origin) if found is not None and found.origin else None
        if origin is None or origin.resolve().parent.parent != _ROOT:
            terminal.complain(
                f"the package `{name}` is {origin or 'missing'}, and not the one beside {_ROOT / 'cli'}",
                "coord wants an environment of its own: install it into a fresh one, and unset PYTHONPATH",
            )
            sys.exit(exits.of(Code.INTERNAL))


if __name__ == "__main__":
    sys.exit(main())
