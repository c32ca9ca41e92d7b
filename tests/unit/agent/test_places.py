"""Directories of attempts: what becomes of them when the machine gives nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from coordinator.agent.places import Places


def test_a_machine_without_room_for_a_process_costs_no_more_than_a_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork bomb beside the agent: what was left is removed later, and the keeper lives to do so."""
    places = Places(tmp_path / "attempts", tmp_path / "work", ())

    def refused(*_: Any) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_spawn", refused)
        place = places.take()
        Path(place.work, "left").write_text("x")
        places.give_back(place, again=False)
        places.sweep()
    assert list((tmp_path / "work" / ".trash").iterdir())
    second = places.take()
    places.give_back(second, again=False)
    places.sweep()
    pid, status = os.wait()
    places.on_child(pid)
    assert 0 == status
    assert [] == list((tmp_path / "work" / ".trash").iterdir())
