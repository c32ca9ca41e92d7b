"""`coord transfers`: bytes of blobs that move, wait or are held back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli import output
from cli.moving import round_size
from cli.options import output_option, talks

if TYPE_CHECKING:
    from coordinator.api_types.data import TransfersAnswer
    from coordinator.client import Client

COLUMNS = (
    output.Column("TENANT", lambda e: e.tenant),
    output.Column("MOVE", lambda e: str(e.under_way), right=True, explained="TRANSFERS UNDER WAY"),
    output.Column("UPLOADS", lambda e: str(e.uploads_open), right=True, explained="UPLOADS THAT ARE OPEN"),
    output.Column("RESERVED", lambda e: round_size(e.uploads_bytes), right=True, explained="BYTES THEY WILL TAKE"),
)
WORDS = {
    "closed": "transfers are let in",
    "open": "NO transfer is let in",
    "half_open": "one transfer is let in, to see whether it goes well",
}


@click.command(short_help="Bytes of files that move, wait or are held back.")
@output_option
@talks
def transfers(client: Client, output: output.Format) -> None:
    """Show what of artifacts, inputs, results and checkpoints moves between the coordinator and the others, what waits
    for its tenant's share of the link, and whether the circuit breaker lets anything in.

    \b
    coord transfers
    coord transfers -o json
    """
    print_transfers(client.transfers(), output)


def print_transfers(answer: TransfersAnswer, form: output.Format) -> None:
    """Facts, then a line for each tenant with transfers or open uploads."""
    if form in ("table", "wide"):
        output.print_facts([
            ("state", WORDS.get(answer.state, answer.state) + (f": {answer.why}" if answer.why else "")),
            ("under way", str(answer.under_way)),
            ("refused", str(answer.refused) if answer.refused else ""),
            ("breaker opened", f"{answer.opened} times" if answer.opened else ""),
            ("in", rate(answer.ingress_bytes, answer.ingress_bytes_per_s, answer.waiting_in_bytes)),
            ("out", rate(answer.egress_bytes, answer.egress_bytes_per_s, answer.waiting_out_bytes)),
            ("spilled", spilled(answer)),
        ])  # fmt: skip
        if not answer.entries:
            return
        sys.stdout.write("\n")
    output.listing(answer, COLUMNS, form, name=lambda e: str(e.tenant))


def rate(moved: int, bound: int, waiting: int) -> str:
    """`1.2 GiB since its start, at most 100 MiB/s, 3 MiB wait`."""
    parts = [f"{round_size(moved)} since its start"]
    parts.append(f"at most {round_size(bound)}/s" if bound else "no bound")
    parts += [f"{round_size(waiting)} wait"] if waiting else []
    return ", ".join(parts)


def spilled(answer: TransfersAnswer) -> str:
    """What lies in the area for bursts."""
    if not answer.spilled_bytes:
        return ""
    return f"{round_size(answer.spilled_bytes)} of {round_size(answer.spill_bytes_max)}"
