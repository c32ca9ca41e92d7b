"""`coord demo`: the main job in under a minute, with real processes. Each step prints what a user would type."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import terminal
from cli.config import Config
from cli.demo.history import CHARACTERS, as_csv, generate
from cli.demo.screen import command, remark, step
from cli.demo.sharing import show_sharing
from cli.demo.stage import Stage, stage
from cli.demo.work import show_work
from cli.options import client_for
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.client import Client

AGENTS = ("alpha", "beta", "gamma")
IMPATIENT = """\
[policy]
heartbeat_interval_ms = "1s"    # 5s
lost_after_ms = "6s"            # 30s
term_ms = "6s"                  # 30s
"""
"""The demo's coord.toml; the comments are the defaults."""
NODES, DAYS, SEED = 300, 30, 2026
SHOWN = "office-007"


@click.command(short_help="Show the whole of it in under a minute.")
@click.option("--keep", is_flag=True, help="Leave the coordinator and two agents running, and say how to stop them.")
@click.option("--history-only", type=click.Path(path_type=Path, dir_okay=False), help="Only write the made-up history.")
@click.option("--seed", type=int, default=SEED, show_default=True, help="Of the made-up history.")
def demo(keep: bool, history_only: Path | None, seed: int) -> None:
    """Start a coordinator and three agents in a temporary directory, give them 30 days of made-up history of
    300 nodes, ask who can be relied on, run a job on them of which one machine dies in the middle, and share them
    with guests within limits. Leaves nothing behind.

    \b
    coord demo
    coord demo --keep
    coord demo --history-only history.csv
    """
    if history_only is not None:
        rows = write_history(history_only, seed, int(time.time()))
        terminal.say(f"{rows} sessions of {NODES} nodes in {history_only}")
        return
    began = time.monotonic()
    with stage(keep=keep) as place:
        _start(place)
        _import(place, seed)
        _ask(place)
        with _client(place) as client:
            show_work(place, client)
        show_sharing(place)
        _farewell(place, keep, time.monotonic() - began)


def write_history(path: Path, seed: int, until: int) -> int:
    """Write the made-up history as CSV and return its number of sessions."""
    lines = as_csv(generate(seed=seed, nodes=NODES, days=DAYS, until=until))
    try:
        with path.open("w") as file:
            return sum(1 for line in lines if file.write(line)) - 1
    except OSError as wrong:
        raise CoordError(
            Code.BAD_REQUEST, f"{path} cannot be written: {wrong.strerror}", "name a file in a directory of yours"
        ) from wrong


def _start(place: Stage) -> None:
    settings = place.directory / "coord.toml"
    settings.write_text(IMPATIENT)
    step("A coordinator, in a directory of its own, less patient than usual (beside: the defaults).")
    command(f"export COORD_DATA={place.data}")
    command(f"cat {settings}")
    print("".join(f"  {line}\n" for line in IMPATIENT.splitlines()), flush=True)
    command(f"coord serve --listen 127.0.0.1:0 --config {settings} &")
    place.start("coordinator", "serve", "--listen", "127.0.0.1:0", "--config", str(settings))
    address = place.data / "address"
    url = place.wait_for(lambda: address.read_text().strip() if address.exists() else None, "the coordinator's start")
    remark(f"it listens on {url}; admin token, join token and address are in its directory")
    step("Three agents on this machine, each with one CPU to give. They enrol with the join token.")
    for name in AGENTS:
        command(f"coord agent --provider-id {name} --cpus 1 --state {place.directory / name} &")
        place.start(name, "agent", "--provider-id", name, "--cpus", "1", "--state", str(place.directory / name))
    with _client(place) as client:
        place.wait_for(lambda: True if _liveness(client) == dict.fromkeys(AGENTS, "online") else None, "three agents")
    command("coord providers list")
    place.run("providers", "list")


def _import(place: Stage, seed: int) -> None:
    history = place.directory / "history.csv"
    rows = write_history(history, seed, int(time.time()))
    step(
        f"{DAYS} days of history of {NODES} more nodes: servers, office PCs, spot instances, laptops, newcomers\n"
        f"({rows} sessions, made up from seed {seed}).",
        f"coord import sessions {history}",
    )
    place.run("import", "sessions", str(history))


def _ask(place: Stage) -> None:
    with _client(place) as client:
        place.wait_for(lambda: True if _observed(client) >= NODES else None, "figures of the whole history", 30)
    step("Who can be relied on? (the best 12 of those with a score of 0.8 and more)")
    _query(place, "reliability", "--min-score", "0.8", "--limit", "12")
    step(f"When is {SHOWN} there? Share of the observed time by weekday and hour (UTC).")
    _query(place, "availability", SHOWN)
    step("Who will still be there in 8 hours? One node of each character that is online now.")
    for name in _one_of_each(place):
        _query(place, "forecast", name, "--horizon", "8h")


def _one_of_each(place: Stage) -> list[str]:
    """The first node of each character that has a forecast: office PCs sleep at night."""
    found: dict[str, str] = {}
    with _client(place) as client:
        for entry in client.reliability(horizon="8h", limit=0).entries:
            kind = entry.provider_id.rpartition("-")[0]
            if kind in CHARACTERS and entry.forecast is not None:
                found.setdefault(kind, entry.provider_id)
    return sorted(found.values())


def _query(place: Stage, *arguments: str) -> None:
    command("coord query " + " ".join(arguments))
    place.run("query", *arguments)


def _farewell(place: Stage, keep: bool, took_s: float) -> None:
    step(f"That was all of it, in {took_s:.0f} s.")
    if keep:
        pids = " ".join(str(process.pid) for process in place.running.values())
        print(f"The coordinator and {len(place.running) - 1} agents keep running. To look around:\n")
        command(f"export COORD_DATA={place.data}")
        command("coord query reliability --horizon 8h -o wide")
        command('coord query sql "SELECT count(*) FROM sessions"')
        print("\nTo stop them and remove everything:\n")
        command(f"kill {pids}; sleep 3; rm -r {place.directory}")
    else:
        print("Nothing of it is left. To try next:\n")
        command("make demo KEEP=1                  # the same, and look around afterwards")
        command("coord up                          # a coordinator and an agent to keep")
        command("coord submit --wait -- hostname   # in another shell: a job")
        command("coord query backtest              # how good the forecasts were")
        command("coord --help                      # everything else")


def _observed(client: Client) -> int:
    """Providers that the analytics worker knows of by now; it has a start and an import behind it."""
    try:
        return client.network().providers
    except CoordError as refused:
        if refused.code not in (Code.ANALYTICS_UNAVAILABLE, Code.TIMEOUT):
            raise
        return 0


def _liveness(client: Client) -> dict[str, str]:
    return {entry.provider_id: entry.liveness for entry in client.providers().entries}


def _client(place: Stage) -> Client:
    return client_for(Config(environ={"COORD_DATA": str(place.data)}))
