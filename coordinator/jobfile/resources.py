"""What a rank needs: amounts in whole millionths, memory in bytes, alternatives in their order."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import CoordError
from coordinator.core.ids import check_name
from coordinator.jobfile.model import RESOURCES
from coordinator.jobfile.problems import shown
from coordinator.jobfile.table import Found, Layer, Table
from coordinator.jobfile.values import BYTES_MAX, size

ALTERNATIVES_MAX = 16
NAMED_MAX = 32
CPUS_MAX = 100_000
GPUS_MAX = 64
AMOUNT_MAX = 1_000_000_000


def asks(table: Table) -> tuple[Ask, ...]:
    """The alternatives; one CPU when nothing is asked for."""
    found = table.find("resources")
    if found is None:
        return (Ask(),)
    if isinstance(found.value, Mapping):
        beneath = table.table("resources")
        return (_ask(beneath),) if beneath is not None else (Ask(),)
    if not isinstance(found.value, list | tuple) or not 0 < len(found.value) <= ALTERNATIVES_MAX:
        table.wrong(found, "a table of amounts, nor a list of alternatives", "write resources = { cpus = 8, gpus = 1 }")
        return (Ask(),)
    made = []
    for i, one in enumerate(found.value):
        at = Found(one, f"{found.path}[{i}]")
        if isinstance(one, Mapping):
            made.append(_ask(Table(table.problems, Layer(one, at.path))))
        else:
            table.wrong(at, "a table of amounts")
    return tuple(made) or (Ask(),)


def _ask(table: Table) -> Ask:
    table.only(RESOURCES, "resources")
    cpus = table.number("cpus", 0, CPUS_MAX, "an amount of CPUs")
    gpus = table.number("gpus", 0, GPUS_MAX, "an amount of GPUs")
    memory = size(table, "memory", 1, BYTES_MAX)
    named = []
    for name, found in table.entries("named", NAMED_MAX).items():
        amount = found.value
        try:
            check_name(name, "resource")
        except CoordError as error:
            table.problems.add(found.path, error.message, error.hint)
            continue
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount <= AMOUNT_MAX:
            table.wrong(found, f"an amount of {shown(name)}", f"a number above 0, at most {AMOUNT_MAX}")
            continue
        named.append((name, _units(amount)))
    return Ask(
        cpus=_units(cpus) if cpus is not None else UNIT,
        gpus=_units(gpus) if gpus is not None else 0,
        memory=memory or 0,
        named=tuple(sorted(named)),
    )


def _units(amount: float) -> int:
    """Never less than what was asked for where that is above 0."""
    return round(amount * UNIT) or (1 if amount > 0 else 0)
