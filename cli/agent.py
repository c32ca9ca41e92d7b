"""`coord agent`: the options of the agent, and where it finds coordinator and join token when they are not named."""

from __future__ import annotations

import ctypes
import functools
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cli import humane, local_agent, output, terminal
from cli.config import CENTURY_MS, Config
from cli.options import (
    FiniteRange,
    config_option,
    data_option,
    given,
    json_option,
    local_address,
    local_join_token,
    token_of,
)
from cli.settings import ClientSettings
from coordinator.core.errors import Code, CoordError
from coordinator.timetext import SECOND_MS, asked_duration, asked_time, to_text

if TYPE_CHECKING:
    from coordinator.agent.cache import CacheStatus
    from coordinator.agent.control import AgentControl
    from coordinator.agent.standing import AgentStatus
    from coordinator.agent.trace_spool import TraceStatus

R = TypeVar("R")
ATTEMPTS = (
    output.Column("ATTEMPT", lambda held: str(held.attempt)),
    output.Column("RANK", lambda held: str(held.rank), right=True),
    output.Column("PHASE", lambda held: held.exit or held.phase),
    output.Column("FREEZES IN", lambda held: "-" if held.freeze_in_s is None else humane.length(held.freeze_in_s)),
    output.Column("LOG STORED", lambda held: f"{held.log_stored}/{held.log_bytes}", right=True),
)

PR_SET_PDEATHSIG = 1


@click.group(short_help="Run the agent of this machine.", invoke_without_command=True)
@click.option("--url", help="Of the coordinator; else COORD_URL, else the one it enrolled with.")
@click.option("--provider-id", help="Name to enrol under; fixed from then on. [the host's name]")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Where it keeps its identity.")
@click.option("--pool", help="Pool to enrol into. [the join token's]")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Shown with the provider; repeatable.")
@click.option("--cpus", type=FiniteRange(0, min_open=True), help="CPUs offered. [detected]")
@click.option("--memory", metavar="SIZE", help="Memory offered, like 16GiB. [detected]")
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="A GPU offered; repeatable. [detected]")
@click.option("--named", multiple=True, metavar="NAME=AMOUNT", help="Whatever else is counted here; repeatable.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), help="Where programs run. [in --state]")
@click.option("--isolation", type=click.Choice(("auto", "none", "uid", "sandbox")), help="The most they get. [auto]")
@click.option("--cpu-limit/--no-cpu-limit", default=None, help="Hold each to the CPUs it asked for. [hold]")
@click.option("--trace/--no-trace", default=None, help="Tell programs of their trace; send what they trace. [trace]")
@click.option("--log-max", metavar="SIZE", help="Of a stream of an attempt whose job names no bound. [1GiB]")
@click.option("--cache", metavar="SIZE", help="Of inputs that are kept here for the next attempt. [20GiB]")
@click.option("--fetch-at-once", type=click.IntRange(1, 256), help="Transfers of inputs at a time. [8]")
@click.option("--hide", type=click.Path(), multiple=True, help="A directory that a sandbox hides; repeatable.")
@click.option("--join-token-file", type=click.File("r"), help="File with the join token (- for stdin).")
@click.option("--ca", type=click.Path(path_type=Path, dir_okay=False), help="CA certificates to trust (PEM).")
@click.option("--insecure", is_flag=True, default=None, help="Allow plain HTTP to another machine.")
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="Of stderr. [info]")
@click.option("--ends-with-parent", is_flag=True, hidden=True)
@data_option
@config_option
@click.pass_context
def agent(ctx: click.Context, /, join_token_file: Any, ends_with_parent: bool, **options: Any) -> int:
    """Run the agent of this machine: it enrols once, then reports and takes work until it is stopped.

    The join token comes from COORD_JOIN_TOKEN, from --join-token-file, or from the data directory of a
    coordinator on this machine. It is needed once; the agent keeps a credential of its own in --state.

    \b
    coord agent --url https://head:7070 --join-token-file join.token
    COORD_JOIN_TOKEN=... coord agent --url https://head:7070 --pool lab --label room=b12
    coord agent --cpus 8 --memory 16GiB --named licence=2 --work /scratch/coord
    """
    if ctx.invoked_subcommand is not None:
        return 0
    if ends_with_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    token = token_of(join_token_file) if join_token_file is not None else None
    from coordinator.agent import keeper

    return int(keeper.run(agent_config(token, **options)))


def state_option(command: Callable[..., R]) -> Callable[..., R]:
    """Give the command `control` of the agent that runs on --state."""

    @click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="State directory of the agent.")
    @config_option
    @functools.wraps(command)
    def with_control(*args: Any, state: Path | None, config_file: Path | None, **kwargs: Any) -> R:
        from coordinator.agent.config import AgentConfig
        from coordinator.agent.control import AgentControl

        config = Config(file=config_file, flags=given(agent_state_dir=("--state", state)))
        place = Path(config.section("agent", AgentConfig).state_dir)
        try:
            return command(*args, control=AgentControl(place), **kwargs)
        except CoordError as refused:
            beside = config.data() / local_agent.STATE
            if refused.code is Code.UNREACHABLE and beside.is_dir() and beside != place:
                hint = f"the agent of coord up is spoken to with --state {beside}"
                raise CoordError(refused.code, refused.message, hint) from refused
            raise

    return with_control


@agent.command(short_help="How the agent of this machine is.")
@json_option
@state_option
def status(control: AgentControl, output: str) -> None:
    """How the agent of this machine is: asked through its state directory, not through the coordinator.

    \b
    coord agent status
    coord agent status --state /var/lib/coord-agent -o json
    """
    print_status(control.status(), output)


@agent.command(short_help="Say that this machine goes, and when it is back.")
@click.option("--for", "length", metavar="LENGTH", help="Back after so long, like 8h.")
@click.option("--until", metavar="TIME", help="Back at this time: Unix seconds or ISO 8601 with a zone.")
@state_option
def away(control: AgentControl, length: str | None, until: str | None) -> None:
    """Have this machine's agent say that it goes, and come back by itself. It counts as no failure.

    \b
    coord agent away --for 8h
    coord agent away --until 2026-12-01T08:00:00Z
    """
    if (length is None) == (until is None):
        raise click.UsageError("say either --for or --until")
    if until is not None:
        until_ms = asked_time(until, "--until")
    else:
        until_ms = int(time.time() * 1000) + asked_duration(length or "", "--for", SECOND_MS, CENTURY_MS)
    control.away(until_ms)
    terminal.say(f"away until {humane.clock(to_text(until_ms))} UTC; sooner: coord agent back")


@agent.command()
@state_option
def back(control: AgentControl) -> None:
    """Have this machine's agent come back before the time it named.

    \b
    coord agent back
    """
    control.back()
    terminal.say("it connects again")


@agent.command()
@state_option
def bye(control: AgentControl) -> None:
    """Have this machine's agent say good-bye and end.

    \b
    coord agent bye
    """
    control.bye()
    terminal.say("it says good-bye and ends")


def print_status(found: AgentStatus, form: str) -> None:
    if form == "json":
        output.print_json(found)
        return
    bound = f" ± {found.clock_bound_ms:.1f}" if found.clock_bound_ms is not None else ""
    clock = f"{found.clock_offset_ms:+.1f}{bound} ms" if found.clock_offset_ms is not None else "-"
    output.print_facts([
        ("provider", found.provider_id),
        ("phase", str(found.phase)),
        ("coordinator", found.coordinator),
        ("session", str(found.session_id or "-")),
        ("last acknowledged", "-" if found.last_ack_age_s is None else f"{humane.length(found.last_ack_age_s)} ago"),
        ("heartbeats sent", str(found.heartbeats_sent)),
        ("draining", found.drain_note or "yes" if found.draining else "-"),
        ("away until", humane.clock(to_text(found.away_until_ms)) if found.away_until_ms is not None else "-"),
        ("next try in", humane.length(found.next_try_in_s)),
        ("clock offset", clock),
        ("processes", f"keeper {found.keeper_pid}, daemon {found.daemon_pid} (starts: {found.daemons})"),
        ("isolation", str(found.promises.isolation)),
        ("kills all", "yes" if found.promises.kills_all else "no: what outlives the agent is not promised to end"),
        ("memory limit", "of each attempt" if found.promises.memory_limit else "of each process, by itself"),
        ("cpu limit", "of each attempt" if found.promises.cpu_limit else "no: a program takes what is idle"),
        ("cache", _cache(found.cache)),
        ("traces", _traces(found.traces)),
        ("last problem", found.last_problem),
        ("attempts", str(len(found.attempts))),
    ])  # fmt: skip
    if found.attempts:
        sys.stdout.write("\n")
        output.print_table(found.attempts, ATTEMPTS, sys.stdout)


def _cache(found: CacheStatus) -> str:
    said = f"{humane.count(found.files, 'blob')}, {humane.size_text(found.size)} of {humane.size_text(found.bytes_max)}"
    return f"{said}; {found.problem}" if found.problem else said


def _traces(found: TraceStatus) -> str:
    """What arrived, what waits, and of what did not arrive whatever there is."""
    said = [humane.count(found.sent_parts, "part") + " sent", humane.size_text(found.waiting_bytes) + " waiting"]
    said += [humane.count(found.rejected_rows, "row") + " rejected"] if found.rejected_rows else []
    said += [humane.count(found.refused_parts, "part") + " refused"] if found.refused_parts else []
    said += [humane.count(found.dropped_parts, "part") + " dropped here"] if found.dropped_parts else []
    return ", ".join(said)


def agent_config(
    join_token: str | None,
    *,
    url: str | None,
    provider_id: str | None,
    state: Path | None,
    pool: str | None,
    labels: tuple[str, ...],
    cpus: float | None,
    memory: str | None,
    gpus: tuple[str, ...],
    named: tuple[str, ...],
    work: Path | None,
    isolation: str | None,
    cpu_limit: bool | None,
    trace: bool | None,
    log_max: str | None,
    cache: str | None,
    fetch_at_once: int | None,
    hide: tuple[str, ...],
    ca: Path | None,
    insecure: bool | None,
    log_level: str | None,
    data: Path | None,
    config_file: Path | None,
) -> Any:
    """The AgentConfig that settings, environment and these flags make."""
    from coordinator.agent.config import AgentConfig

    flags = given(
        data=("--data", data),
        agent_coordinator=("--url", url),
        agent_provider_id=("--provider-id", provider_id),
        agent_state_dir=("--state", state),
        agent_pool=("--pool", pool),
        agent_labels=("--label", dict(_pair(text) for text in labels) or None),
        agent_cpus=("--cpus", cpus),
        agent_memory_gb=("--memory", _size(memory, "--memory") / 1e9 if memory is not None else None),
        agent_gpus=("--gpu", gpus or None),
        agent_named=("--named", dict(_amount(text) for text in named) or None),
        agent_work_dir=("--work", work),
        agent_isolation=("--isolation", isolation),
        agent_cpu_limit=("--cpu-limit", cpu_limit),
        agent_trace=("--trace", trace),
        agent_log_bytes_max=("--log-max", _size(log_max, "--log-max") if log_max is not None else None),
        agent_cache_bytes_max=("--cache", _size(cache, "--cache") if cache is not None else None),
        agent_fetch_at_once=("--fetch-at-once", fetch_at_once),
        agent_hide=("--hide", hide or None),
        agent_ca=("--ca", ca),
        agent_insecure=("--insecure", insecure),
        agent_log_level=("--log-level", log_level),
    )
    config = Config(file=config_file, flags=flags)
    settings = config.section("agent", AgentConfig)
    coordinator = settings.coordinator or config.section("client", ClientSettings).url
    local = local_address(config.data(), quiet=True)
    enrolled = (Path(settings.state_dir) / "identity.json").exists()
    if not coordinator and (not enrolled or (local and config.data_origin() != "default")):
        if not local:
            raise CoordError(
                Code.UNREACHABLE,
                "no coordinator was named, this agent is not enrolled, and none runs from " + str(config.data()),
                "name one with --url https://HOST:PORT and give its join token in COORD_JOIN_TOKEN",
            )
        coordinator = local
    token = join_token or config.secret("COORD_JOIN_TOKEN") or config.secret("COORD_TOKEN")
    if token is None and coordinator and coordinator == local:
        token = local_join_token(config.data())
    return msgspec.structs.replace(settings, coordinator=coordinator, join_token=token or "")


def _size(text: str, option: str) -> int:
    try:
        return humane.size(text)
    except CoordError as wrong:
        raise CoordError(Code.BAD_CONFIG, f"{option}: {wrong.message}", wrong.hint) from wrong


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CoordError(Code.BAD_CONFIG, f"--label {text!a} is no label", "write --label room=b12")
    return name, value


def _amount(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        why = f"--named {text!a} is no amount of something"
        raise CoordError(Code.BAD_CONFIG, why, "write --named licence=2") from None
