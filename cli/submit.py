"""`coord submit`: a command or a job file becomes a job; `--wait` stays with it, `--dry-run` only looks."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import humane, output, terminal
from cli.completion import files_or_artifacts, live_pools, live_tenants
from cli.options import FiniteRange, Reach, reaches
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from cli.jobtext import JobText
    from coordinator.api_types.why import JobWhy
    from coordinator.api_types.work import JobEntry

SHAPES = ("table", "json", "name")


class CommandLine(click.Command):
    """What stands behind `--` is the program's: no option in it is ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[CommandLine.__name__] = tuple(args[at + 1 :])
        try:
            return super().parse_args(ctx, args[:at])
        except (click.NoSuchOption, click.UsageError) as wrong:
            if at == len(args) and not ctx.resilient_parsing and _looks_like_a_command(args):
                raise click.UsageError(
                    f"a command stands behind --: coord submit -- {shlex.join(args)}", ctx
                ) from wrong
            raise


def _looks_like_a_command(args: list[str]) -> bool:
    return len(args) > 1 and not args[0].startswith("-") and not args[0].endswith((".toml", ".json"))


def flags_of_a_command(command: Any) -> Any:
    """The options that say what a command needs and how it is run."""
    for option in reversed((
        click.option("--name", help="Of the job; letters, digits and . _ : @ + -. [the program's]"),
        click.option("--cpus", type=FiniteRange(0, min_open=True), help="CPUs of each task. [1]"),
        click.option("--gpus", type=FiniteRange(0), help="GPUs of each task; below 1 a share of one."),
        click.option("--memory", metavar="SIZE", help="Memory of each task, like 16GiB; also its limit."),
        click.option("--need", "needs", multiple=True, metavar="NAME=AMOUNT", help="A named resource; repeatable."),
        click.option("--array", metavar="RANGES", help="A task for each number: 1-100, 0-99:2, 1,3,5-7."),
        click.option("--array-file", metavar="FILE", help="A task for each line, in the command as {item}."),
        click.option("--matrix", multiple=True, metavar="NAME=A,B", help="A task for each value; repeatable."),
        click.option("--max-running", type=click.IntRange(1), help="At most so many of its tasks at a time."),
        click.option("--max-fails", type=click.IntRange(0), help="More failed tasks than this end the job."),
        click.option("--nodes", type=click.IntRange(1), help="Providers of each task, all or none. [1]"),
        click.option("--time-limit", metavar="LENGTH", help="A try is ended after so long, like 6h."),
        click.option("--expected", metavar="LENGTH", help="How long it should run; placement looks so far ahead."),
        click.option("--deadline", metavar="TIME", help="Cancelled when unfinished by then: a time, or 8h from now."),
        click.option("--priority", type=click.IntRange(-100, 100), help="Higher goes first, as the tenant may. [0]"),
        click.option(
            "--estimate-cost", metavar="AMOUNT", help="What it will be charged in all; reserved. [made from prices]"
        ),
        click.option(
            "--pool", "pools", multiple=True, metavar="NAME", shell_complete=live_pools,
            help="Only providers of this pool; repeatable.",
        ),
        click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only so labelled; repeatable."),
        click.option("--spread", is_flag=True, default=None, help="Of equally good ones the emptiest. [fullest]"),
        click.option("--isolation", type=click.Choice(("none", "uid", "sandbox")), help="At least so much. [none]"),
        click.option("--min-forecast", type=FiniteRange(0, 1), help="Only where staying is at least so likely."),
        click.option("--min-score", type=FiniteRange(0, 1), help="Only providers with at least this score."),
        click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Alone: its value here; repeatable."),
        click.option(
            "--env-file", "env_files", multiple=True, metavar="FILE", help="NAME=VALUE a line: the place for secrets."
        ),
        click.option("--dir", "directory", metavar="DIR", help="Where it runs on the provider. [its own, empty]"),
        click.option("--stdin", metavar="FILE", help="Text that it reads from stdin (- takes it from ours)."),
        click.option(
            "--input", "inputs", multiple=True, metavar="FILE[:AS]", shell_complete=files_or_artifacts,
            help="A file or directory that is there before it starts, or artifact:NAME; repeatable.",
        ),
        click.option(
            "--collect", "outputs", multiple=True, metavar="PATTERN",
            help="Files that are stored when it ends, like '*.pt'; repeatable.",
        ),
        click.option(
            "--checkpoint", metavar="RULE", help="Saves its state: 10m, auto, or every=10m,path=ckpt,keep=3."
        ),
        click.option("--stall-after", metavar="LENGTH", help="Ended when it makes no progress for so long."),
        click.option("--retry", type=click.IntRange(0), metavar="N", help="Tries after a failure; 0: none. [3]"),
        click.option("--on-lost", metavar="HOW", help="When its provider is lost: retry, wait:20m or auto. [auto]"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=CommandLine, short_help="Have a command or a job file run.", options_metavar="[OPTIONS]")
@click.argument("file", required=False, type=click.Path(allow_dash=True), metavar="[FILE | -- COMMAND...]")
@flags_of_a_command
@click.option("--idempotency-key", metavar="KEY", help="The same key makes one job, however often it is said.")
@click.option("--tenant", shell_complete=live_tenants, help="For this tenant (an admin may).")
@click.option("--wait", is_flag=True, help="Stay: show phases and logs, end with its exit status. Ctrl-C detaches.")
@click.option("--dry-run", is_flag=True, help="Show what it consists of, who could run it and when; submit nothing.")
@click.option(
    "-o", "--output", type=click.Choice(SHAPES), default="table", show_default=True, help="name: the number alone."
)
@reaches
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    reach: Reach,
    file: str | None,
    idempotency_key: str | None,
    tenant: str | None,
    wait: bool,
    dry_run: bool,
    output: str,
    **flags: Any,
) -> int:
    """Have a command run, or what a job file (TOML or JSON; - is stdin) describes, on whichever provider it fits.

    What stands behind -- is the program and its arguments; no shell looks at them. {index}, {item} and the names of
    a matrix are filled in for each task.

    \b
    coord submit -- python train.py --lr 0.1
    coord submit --wait --cpus 8 --gpus 1 --memory 16GiB --time-limit 6h -- python train.py
    coord submit --array 1-100 --max-fails 5 -- python fold.py '{index}'
    coord submit --matrix lr=0.1,0.01 --matrix seed=1,2 -- python train.py '{lr}' '{seed}'
    coord submit --input train.py --input data/ --collect '*.pt' --checkpoint auto -- python train.py data
    coord submit night.toml --dry-run
    """
    from cli.asked import body_of, over_a_file
    from cli.jobtext import read_job
    from cli.staging import Ready

    command = ctx.meta[CommandLine.__name__]
    if bool(command) == (file is not None):
        wrong = "either a job file or a command, not both" if command else "nothing to run"
        raise click.UsageError(f"{wrong}: coord submit FILE.toml, or coord submit -- COMMAND", ctx)
    if wait and (dry_run or output != "table"):
        raise click.UsageError(
            "--wait is for a job that is submitted, and stdout is its output: leave --dry-run and -o away", ctx
        )
    told = read_job(file) if file is not None else None
    body = over_a_file(told.body, flags) if told is not None else body_of(command, flags)
    with reach.client() as client:
        try:
            ready = Ready(client, body, told.beside if told is not None else Path(), tenant)
            if dry_run:
                ready.tell()
                return preview(client.jobs.preview(ready.body, tenant=tenant), output)
            ready.send()
            entry = client.jobs.submit(ready.body, tenant=tenant, idempotency_key=idempotency_key)
        except CoordError as refused:
            raise _with_lines(refused, told) from refused
        print_submitted(entry, output, quiet=wait)
        if output == "table" and not wait:
            with contextlib.suppress(CoordError):  # it is submitted, whatever may be said of it
                warn_of_never(client.jobs.why(entry.job_id))
    if not wait:
        return 0
    from cli.following import stay

    return stay(reach, entry.job_id)


def preview(answer: Any, form: str) -> int:
    """The dry run: what it consists of, whether its tenant's quota has room for it, and whether anybody could run it
    (exit status 1 when it would be refused, or nobody ever could)."""
    from cli import exits, graph

    if form == "json":
        output.print_json(answer)
    else:
        sys.stdout.write(graph.picture(answer))
    refused = any(not one.fits for one in answer.dimensions)
    never = any(step.verdict == "never" for step in answer.why)
    return exits.FOUND_PROBLEMS if refused or never else exits.OK


def warn_of_never(answer: JobWhy) -> None:
    """A job that nobody could run is taken, since machines come and go; whoever submits it should know."""
    for step in answer.steps:
        if step.verdict == "never":
            hint = f": {step.hint}" if step.hint else ""
            terminal.say(terminal.safe(f"{step.name} waits: {step.text}{hint}"))


def print_submitted(entry: JobEntry, form: str, *, quiet: bool = False) -> None:
    """The new job on stdout; on stderr when its own output follows there."""
    if form == "json":
        output.print_json(entry)
    elif form == "name":
        click.echo(str(entry.job_id))
    else:
        tasks = humane.count(entry.counts.tasks, "task")
        line = f"job {entry.job_id}: {terminal.safe(entry.name)}, {tasks}, {entry.state}"
        if quiet:
            terminal.say(line)
        else:
            click.echo(line)


def _with_lines(refused: CoordError, told: JobText | None) -> CoordError:
    """The refusal of a job file, each problem with the line that it stands on."""
    if refused.code is not Code.BAD_JOB or told is None:
        return refused
    from cli.jobtext import located

    return CoordError(refused.code, located(refused.message, told), refused.hint)
