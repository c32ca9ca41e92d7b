"""`coord pool`: under which names machines are grouped, what they cost, and what is free of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_pools
from cli.options import output_option, talks
from cli.quantities import exact
from coordinator.api_types.fleet import PoolEntry, Pools
from coordinator.api_types.nodepools import NodePool, NodePools
from coordinator.api_types.tenants import PriceEntry
from coordinator.core.amounts import decimal_text
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.client import Client

POOLS = (
    output.Column("POOL", lambda p: p.name),
    output.Column("PROVIDERS", lambda p: str(p.providers), right=True),
    output.Column("CREATED", lambda p: humane.ago(p.created_at), right=True),
    output.Column("CPU/H", lambda p: _price(p.price.cpu), right=True, explained="A CPU BY THE HOUR"),
    output.Column("GPU/H", lambda p: _price(p.price.gpu), right=True, explained="A GPU BY THE HOUR"),
    output.Column("GB/H", lambda p: _price(p.price.memory), right=True, explained="10^9 BYTES BY THE HOUR"),
    output.Column("NOTE", lambda p: p.note or "-"),
)
CAPACITY = (
    output.Column("POOL", lambda p: p.name),
    output.Column("TAKE WORK", lambda p: f"{p.online}/{p.providers}", right=True),
    output.Column("CPUS FREE", lambda p: f"{p.cpus_free:g}/{p.cpus:g}", right=True),
    output.Column("MEMORY FREE", lambda p: _memory(p.memory_free, p.memory), right=True, spare=True),
    output.Column("GPUS FREE", lambda p: f"{p.gpus_free:g}/{p.gpus}", right=True),
    output.Column("RUNS", lambda p: str(p.attempts), right=True, explained="ATTEMPTS THERE"),
    output.Column("QUEUED", lambda p: str(p.queued), right=True, explained="TASKS QUEUED"),
    output.Column("STARTS", lambda p: _starts(p.eta), right=True, explained="A NEW TASK STARTS"),
    output.Column("DRAINED", lambda p: str(p.drained), right=True, wide=True),
    output.Column("QUARANTINED", lambda p: str(p.quarantined), right=True, wide=True),
    output.Column("NEXT FREE", lambda p: humane.left(p.next_free_at), right=True, wide=True),
)


def _memory(free: int, of: int) -> str:
    return f"{free / 1e9:.0f}/{of / 1e9:.0f} GB"


def _starts(eta: str | None) -> str:
    """Where there is room, now."""
    return "now" if eta is not None and humane.moment(eta) <= datetime.now(UTC) else humane.left(eta)


@click.group(short_help="Pools: make, list, price and delete them; what is free.")
def pool() -> None:
    """Pools are named groups of providers, with a price of their own. `default` is always there.

    \b
    coord pool create lab --note "room B12"
    coord pool price lab --cpu 0.04 --gpu 1.2
    coord pool capacity
    """


@pool.command("create")
@click.argument("name")
@click.option("--note", default="", help="What it is for; shown in lists.")
@talks
def create_pool(client: Client, name: str, note: str) -> None:
    """Make a pool.

    \b
    coord pool create lab --note "room B12"
    """
    entry = client.create_pool(name, note=note)
    terminal.say(f"pool {terminal.safe(entry.name)} is there; join it: coord token create --role join --pool {name}")


@pool.command("list")
@output_option
@talks
def list_pools(client: Client, output: output.Format) -> None:
    """List the pools.

    \b
    coord pool list -o json
    """
    print_pools(client.pools(), output)


def print_pools(answer: Pools, form: output.Format) -> None:
    output.listing(answer, POOLS, form, name=lambda p: str(p.name))


@pool.command()
@click.argument("name", shell_complete=live_pools)
@output_option
@talks
def show(client: Client, name: str, output: output.Format) -> None:
    """Show a pool: its prices, what is free in it and what waits for it.

    \b
    coord pool show lab
    """
    entry = named(client.pools(), name)
    if output in ("table", "wide"):
        capacity = next((one for one in client.nodepools().entries if one.name == name), None)
        print_pool(entry, capacity)
    else:
        print_single(entry, output)


def print_single(entry: PoolEntry, form: output.Format) -> None:
    output.single(entry, form, name=entry.name)


def named(answer: Pools, name: str) -> PoolEntry:
    """The pool of this name. CoordError(NOT_FOUND) when there is none."""
    for entry in answer.entries:
        if entry.name == name:
            return entry
    raise CoordError(Code.NOT_FOUND, f"there is no pool {name[:128]!a}", "coord pool list shows them")


def print_pool(entry: PoolEntry, capacity: NodePool | None) -> None:
    """Facts, a line each."""
    facts = [
        ("pool", entry.name),
        ("note", entry.note),
        ("created", humane.when(entry.created_at)),
        ("providers", str(entry.providers)),
        ("price of a CPU", f"{_price(entry.price.cpu)} an hour"),
        ("of a GPU", f"{_price(entry.price.gpu)} an hour"),
        ("of 1 GB", f"{_price(entry.price.memory)} an hour"),
    ]  # fmt: skip
    if capacity is not None:
        facts += [
            ("take work now", str(capacity.online)),
            ("CPUs free", f"{capacity.cpus_free:g} of {capacity.cpus:g}"),
            ("memory free", f"{capacity.memory_free / 1e9:.0f} of {capacity.memory / 1e9:.0f} GB"),
            ("GPUs free", f"{capacity.gpus_free:g} of {capacity.gpus}"),
            ("tasks queued", str(capacity.queued)),
            ("a new task starts", _starts(capacity.eta)),
        ]
    output.print_facts(facts)


@pool.command(short_help="Say what a pool's capacity costs by the hour.")
@click.argument("name", shell_complete=live_pools)
@click.option("--cpu", metavar="AMOUNT", help="Of one CPU for an hour.")
@click.option("--gpu", metavar="AMOUNT", help="Of one GPU for an hour.")
@click.option("--memory", metavar="AMOUNT", help="Of 10^9 bytes for an hour.")
@talks
def price(client: Client, name: str, cpu: str | None, gpu: str | None, memory: str | None) -> None:
    """Say what a pool's capacity costs by the hour, in units of account, exact to a millionth. What is not named stays.

    What is granted from now on costs this; whatever runs keeps the price that it was granted at.

    \b
    coord pool price lab --cpu 0.04 --gpu 1.2 --memory 0.005
    """
    asked = {
        what: exact(text, f"--{what}", "0.04")
        for what, text in (("cpu", cpu), ("gpu", gpu), ("memory", memory))
        if text is not None
    }
    if not asked:
        raise click.UsageError(f"no price: coord pool price {terminal.safe(name)} --cpu 0.04")
    before = named(client.pools(), name).price if len(asked) < 3 else PriceEntry()
    entry = client.price_pool(name, **{"cpu": before.cpu, "gpu": before.gpu, "memory": before.memory} | asked)
    terminal.say(f"pool {terminal.safe(entry.name)}: {price_text(entry.price)}")


def price_text(price: PriceEntry) -> str:
    """`0.04 a CPU, 1.2 a GPU, 0.005 a GB, by the hour`; `free` where nothing costs anything."""
    said = [
        f"{_price(amount)} a {what}"
        for amount, what in ((price.cpu, "CPU"), (price.gpu, "GPU"), (price.memory, "GB"))
        if amount
    ]
    return ", ".join(said) + ", by the hour" if said else "free"


def _price(amount: int) -> str:
    return decimal_text(amount)


@pool.command(short_help="What each pool has, what is free, what waits for it.")
@output_option
@talks
def capacity(client: Client, output: output.Format) -> None:
    """What each pool has, what of it is free, what waits for it, and when a task that is queued now should start.

    \b
    coord pool capacity
    coord pool capacity -o wide
    """
    print_capacity(client.nodepools(), output)


def print_capacity(answer: NodePools, form: output.Format) -> None:
    output.listing(answer, CAPACITY, form, name=lambda p: str(p.name))


@pool.command("delete")
@click.argument("name", shell_complete=live_pools)
@talks
def delete_pool(client: Client, name: str) -> None:
    """Delete a pool that no provider is in.

    \b
    coord pool delete lab
    """
    client.delete_pool(name)
    terminal.say(f"pool {terminal.safe(name)} is gone")
