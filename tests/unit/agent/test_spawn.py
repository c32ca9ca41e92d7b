"""What is said of a program that cannot be started."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.agent.spawn import NOT_FOUND, CannotStart, find_program


@pytest.mark.parametrize(("places", "shown"), [(1, "/nowhere"), (0, "it is empty"), (500, "...")])
def test_where_it_was_looked_for_is_cut(tmp_path: Path, places: int, shown: str) -> None:
    """Its name and that it is not in PATH, whole; of a long PATH the beginning."""
    with pytest.raises(CannotStart) as refused:
        find_program("trainer", ":".join(["/nowhere"] * places), str(tmp_path))
    assert NOT_FOUND == refused.value.code
    head, _, rest = refused.value.text.partition(" (")
    assert "trainer: no such program, not in PATH" == head
    assert rest.endswith(f"{shown})") and len(rest) <= 201
