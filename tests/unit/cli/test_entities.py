"""What the record of transitions can be asked for by kind."""

from __future__ import annotations

from cli.events import ENTITIES
from coordinator.service.api import happenings


def test_the_command_offers_every_kind_that_the_coordinator_records() -> None:
    assert happenings.ENTITIES == ENTITIES
