"""`coord trace`: where the time of a run went."""

from __future__ import annotations

import codecs
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from cli import exits, humane, output, terminal
from cli.jobids import live_jobs, whole_job
from cli.options import Reach, reaches
from cli.trace_sources import KINDS, check, is_job
from coordinator.core.errors import Code, CoordError
from coordinator.ports.traces import PROFILE_ROWS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VIEWS = {
    "rich": "cli.traceviews.rich",
    "critical-path": "cli.traceviews.critical",
    "end-to-end": "cli.traceviews.endtoend",
    "queuing": "cli.traceviews.queuing",
    "lineage": "cli.traceviews.lineage",
    "gantt": "cli.traceviews.gantt",
}
WHOLE = ("queuing", "lineage", "gantt")
"""Views that sum up or draw all tasks."""
SHORT = {"cp": "critical-path", "e2e": "end-to-end"}
ATTRIBUTED = ("perfetto", "jaeger")
"""Exports that show each span's attributes; reading these takes twice the time and the room."""
ROWS = 40


def jobs_or_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Newest jobs, or files here."""
    from click.shell_completion import CompletionItem

    return live_jobs(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


sources_argument = click.argument("sources", metavar="JOB|FILE|DIR...", nargs=-1, required=True,
                                  shell_complete=jobs_or_files)  # fmt: skip
limit_option = click.option("--limit", type=click.IntRange(0), default=ROWS, show_default=True,
                            help="Rows of a table at most; 0: all, also in JSON, which has 10,000.")  # fmt: skip


class Trace(click.Group):
    """Its commands may take a while, and say so in a line when they are broken off."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            terminal.complain("interrupted")
            raise click.Abort from None


@click.group(cls=Trace, short_help="Where the time of a run went: analyze, compare, export.")
def trace() -> None:
    """Where the time of a run went: its critical path, what the slots were used for, what would have helped.

    A JOB is its number (last or @ is the newest); a FILE has spans of OpenTelemetry (ReadableSpan or OTLP/JSON lines,
    OTLP in protobuf) or of Jaeger, also packed; a DIR has spans.jsonl, assets.jsonl and lineage.jsonl.

    \b
    coord trace analyze last
    coord trace analyze spans.jsonl -f critical-path
    coord trace compare 12 17
    coord trace export 12 --html > run.html
    """


@trace.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("job", shell_complete=live_jobs)
@click.option("--to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.")
@reaches
def fetch(reach: Reach, kind: str, job: str, to: Path | None) -> None:
    """Print the spans, assets or lineage of a JOB as JSON lines, as they are stored.

    \b
    coord trace fetch spans 12 > spans.jsonl
    coord trace fetch lineage last
    """
    with reach.client() as client:
        lines = client.traces.lines(whole_job(client, job), kind)
        _write((line + b"\n" for line in lines), to, shown_ok=True)


@trace.command()
@sources_argument
@click.option(
    "-f", "--format", "form", type=click.Choice((*VIEWS, *SHORT, "json")), default="rich", show_default=True,
    help="Which view; cp and e2e for short.",
)  # fmt: skip
@click.option("--slots", type=click.IntRange(1), metavar="N", help="What if it had had N slots?")
@click.option("--without", metavar="TASK", multiple=True, help="What if TASK had cost nothing? May be repeated.")
@limit_option
@click.option("--height", type=click.IntRange(8, 10_000), help="Lines of the gantt; else those of the terminal.")
@reaches
def analyze(
    reach: Reach,
    sources: tuple[str, ...],
    form: str,
    slots: int | None,
    without: tuple[str, ...],
    limit: int,
    height: int | None,
) -> None:
    """Say where the time of a run went. Several FILEs are parts of one run; of a job that still runs, up to now.

    With --slots or --without the recorded run is replayed that way: what it would have taken, and by how much the
    replay of the unchanged run misses the truth.

    \b
    coord trace analyze last
    coord trace analyze 12 -f gantt
    coord trace analyze run/ -f json
    coord trace analyze 12 --slots 64 --without 12.0.7
    """
    from cli import trace_sources
    from cli.traceviews.sheet import Sheet

    sheet = Sheet.on(sys.stdout, height=height, limit=limit)
    if slots is not None or without:
        from cli.traceviews.compared import imagined

        replayed = trace_sources.what_if(reach, sources, slots, without)
        if form == "json":
            output.print_json(replayed)
        else:
            imagined(replayed, sheet)
        return
    view = SHORT.get(form, form)
    rows = 0 if view in WHOLE or not limit else max(limit, PROFILE_ROWS)
    profile = trace_sources.profile(reach, sources, rows=rows)
    if form == "json":
        output.print_json(profile)
        return
    if is_job(sources[0]):
        profile = structs.replace(profile, workflow_id=f"job {profile.workflow_id}")
    importlib.import_module(VIEWS[view]).show(profile, sheet)
    if is_job(sources[0]) and not profile.real_critical_path.finished and not profile.counts.attempts:
        terminal.say(f"nothing of it was launched yet; what it waits for: coord job why {sources[0]}")


@trace.command()
@click.argument("a", metavar="A", shell_complete=jobs_or_files)
@click.argument("b", metavar="B", shell_complete=jobs_or_files)
@click.option("-f", "--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True,
              help="How to print it.")  # fmt: skip
@limit_option
@reaches
def compare(reach: Reach, a: str, b: str, form: str, limit: int) -> None:
    """Compare run B with run A, each a JOB, a FILE or a DIR: what the difference consists of, task by task of one name.

    \b
    coord trace compare 12 17
    coord trace compare yesterday/ today/
    """
    from analytics.traces.compare import compare as compared_by
    from cli import trace_sources
    from cli.traceviews.compared import compared
    from cli.traceviews.sheet import Sheet

    check((a,))
    check((b,))
    answer = compared_by(trace_sources.profile(reach, (a,)), trace_sources.profile(reach, (b,)))
    if form == "json":
        output.print_json(answer)
    else:
        compared(answer, Sheet.on(sys.stdout, limit=limit))


@trace.command()
@sources_argument
@click.option("--otlp", metavar="URL|FILE", help="Send to a collector (OTLP over HTTP), or write OTLP/JSON lines.")
@click.option("--perfetto", is_flag=True, help="For ui.perfetto.dev and chrome://tracing.")
@click.option("--jaeger", is_flag=True, help="For Jaeger's UI.")
@click.option("--folded", is_flag=True, help="Folded stacks: flamegraph.pl, speedscope.")
@click.option("--html", is_flag=True, help="One file with timeline and tables, for any browser.")
@click.option("--to", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.")
@click.option("--collector-ca", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="CA certificates to trust for a collector (PEM).")  # fmt: skip
@reaches
def export(
    reach: Reach,
    sources: tuple[str, ...],
    otlp: str | None,
    to: Path | None,
    collector_ca: Path | None,
    **forms: bool,
) -> int:
    """Hand a trace to another program. Files go to standard output unless --to names one; what a collector needs to be
    let in is taken from OTEL_EXPORTER_OTLP_HEADERS.

    \b
    coord trace export 12 --html --to run.html
    coord trace export 12 --perfetto > run.json
    coord trace export run/ --otlp http://localhost:4318
    coord trace export 12 --otlp run.otlp.jsonl
    coord trace export spans.jsonl --folded | flamegraph.pl > run.svg
    """
    from cli import trace_sources

    said = [form for form, wanted in forms.items() if wanted]
    if len(said) + (otlp is not None) != 1:
        raise click.UsageError("say one: --otlp URL, --perfetto, --jaeger, --folded or --html")
    check(sources)
    if otlp is not None and to is not None:
        raise click.UsageError("--otlp URL|FILE says already where it goes: leave --to away")
    if otlp is not None:
        return _export_otlp(reach, sources, otlp, collector_ca)
    (form,) = said
    run, profile = trace_sources.both(reach, sources, details=form in ATTRIBUTED)
    title = f"job {profile.workflow_id}" if is_job(sources[0]) else profile.workflow_id or sources[0]
    if form != "html":  # the others draw no tables, and of a million spans these are 200 MB
        profile = structs.replace(profile, per_data_id=(), lineage=(), assets=())
    made = importlib.import_module(f"analytics.traces.exports.{form}")
    _write(made.pieces(run, profile, title=title), to, shown_ok=form == "folded")
    return exits.OK


def _export_otlp(reach: Reach, sources: tuple[str, ...], to: str, ca: Path | None) -> int:
    """To a file, or to a collector; spans that it rejects are told, and are an exit status."""
    from analytics.traces.exports import otlp
    from cli import trace_sources
    from cli.trace_sending import Collector

    if not to.startswith(("http://", "https://")):
        found = trace_sources.spans(reach, sources)
        _write(otlp.pieces(found), None if to == "-" else Path(to), shown_ok=True)
        return exits.OK
    collector = Collector(to, ca=ca)
    sent = collector.send(trace_sources.spans(reach, sources), sys.stderr)
    terminal.say(f"{humane.count(sent.spans, 'span')} sent to {terminal.safe(collector.name)}")
    if sent.rejected:
        terminal.complain(f"{humane.count(sent.rejected, 'span')} rejected: {sent.why or 'no reason was given'}")
        return exits.FOUND_PROBLEMS
    return exits.OK


def _write(pieces: Iterable[bytes], to: Path | None, *, shown_ok: bool) -> None:
    """To the file, which is there as a whole or not at all, or to standard output."""
    if to is not None:
        _write_file(iter(pieces), to)
        return
    if not shown_ok and sys.stdout.isatty():
        raise click.UsageError("this is nothing to read on a terminal: name a file with --to, or redirect it")
    if sys.stdout.isatty():
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        for piece in pieces:
            sys.stdout.write("\n".join(map(terminal.safe, decode(piece).split("\n"))))
        return
    sys.stdout.flush()
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _write_file(pieces: Iterator[bytes], to: Path) -> None:
    """What is no plain file (a pipe, a device) is written to; a link stays one, and what it points to is replaced."""
    whole = to.resolve()
    beside = not whole.exists() or whole.is_file()
    written = whole.with_name(f"{whole.name}.part") if beside else whole
    try:
        with written.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        if beside:
            written.replace(whole)
    except OSError as failed:
        raise CoordError(
            Code.BAD_REQUEST, f"{to} cannot be written: {os.strerror(failed.errno or 0)}", "name another file with --to"
        ) from failed
    finally:
        if beside:
            written.unlink(missing_ok=True)
    terminal.say(f"written to {terminal.safe(str(to))}")
