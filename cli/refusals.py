"""A refusal for a quota as people read it: every dimension that is in the way, in one table on stderr."""

from __future__ import annotations

import sys

from cli import output, terminal
from cli.quantities import DIMENSIONS, amount_text
from coordinator.core.errors import CoordError, Refusal

COLUMNS = (
    output.Column("QUOTA", lambda r: r.dimension),
    output.Column("ASKED", lambda r: amount_text(r.dimension, r.request), right=True),
    output.Column("USED", lambda r: amount_text(r.dimension, r.used), right=True),
    output.Column("RESERVED", lambda r: amount_text(r.dimension, r.reserved), right=True),
    output.Column("LIMIT", lambda r: amount_text(r.dimension, r.limit), right=True),
    output.Column("UP TO", lambda r: amount_text(r.dimension, r.guardrail), right=True),
    output.Column("WHAT IT IS", lambda r: _words(r)),
)


def tell(refused: CoordError) -> None:
    """What was refused and what to do, then the table: the message says the same of each dimension in a sentence."""
    terminal.complain(refused.message.partition(": ")[0], refused.hint)
    sys.stderr.write("\n")
    output.print_table(refused.refusals, COLUMNS, sys.stderr)


def _words(refusal: Refusal) -> str:
    known = DIMENSIONS.get(refusal.dimension)
    return known.words if known is not None else ""
