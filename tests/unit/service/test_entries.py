"""Rows and views as answers show them."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.core.fleet.publish import view_of
from coordinator.core.rows import Promises
from coordinator.core.state import Provider
from coordinator.core.work.jobspec import Isolation
from coordinator.service.api.entries import provider_entry
from tests.builders import START_MS, Fleet, a_hello

ALL = Promises(work=True, isolation=Isolation.UID, kills_all=True, freezes_all=True, memory_limit=True, cpu_limit=True)


def connected(promises: Promises) -> Provider:
    """A provider whose agent said this of itself."""
    fleet = Fleet("a")
    fleet.decide(msgspec.structs.replace(a_hello(1, "a", at_ms=fleet.now_ms), promises=promises))
    return fleet.provider("a")


@pytest.mark.parametrize(
    ("promises", "isolation", "named"),
    [
        (ALL, "uid", ("kills_all", "freezes_all", "memory_limit", "cpu_limit")),
        (msgspec.structs.replace(ALL, memory_limit=False, cpu_limit=False), "uid", ("kills_all", "freezes_all")),
        (msgspec.structs.replace(ALL, work=False), None, ()),
        (Promises(work=True), "none", ()),
    ],
)
def test_a_provider_is_shown_with_what_its_agent_promises(
    promises: Promises, isolation: str | None, named: tuple[str, ...]
) -> None:
    """Each promise by its name; an agent that takes no work promises nothing about it."""
    entry = provider_entry(view_of(connected(promises)), None, None, None, START_MS)
    assert (isolation, named) == (entry.isolation, entry.promises)
