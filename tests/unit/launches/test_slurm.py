"""What Slurm's commands print when something is wrong with them: nothing that ends a watch as a fault of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.launches.sightings import Ended, Sighting
from coordinator.launches.sources.slurm import Slurm


def said(directory: Path, row: str) -> list[Sighting]:
    """What is seen where `squeue` prints this row."""
    for name, script in (("squeue", f"printf '%s\\n' '{row}'"), ("scontrol", "true"), ("sacct", "exit 1")):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    source = Slurm("5", {"PATH": os.environ["PATH"]})
    return [*(source.look() or ()), *(source.record() or ())]


@pytest.fixture(autouse=True)
def first_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "row",
    [
        "5|RUNNING|None|n1|99999999999999999|1|0|0|0",
        f"5|RUNNING|None|n1|{'1' * 5_000}|1|1|0|0",
        "5|RUNNING|None|n1|\u00b2|1|1|0|\u00b2",
        "5| |None|n1|1|1|1|0|0",
    ],
)
def test_numbers_that_are_none_are_not_known(tmp_path: Path, row: str) -> None:
    """A time that is no date, thousands of digits, digits of another kind, no state."""
    seen = said(tmp_path, row)
    assert seen and all(one.at_ms < 10_000_000_000_000 for one in seen)


@pytest.mark.parametrize(("status", "code"), [("65535", None), ("256", 1), ("9", 137), ("0", None)])
def test_an_end_that_is_no_status_has_no_exit_code(tmp_path: Path, status: str, code: int | None) -> None:
    """It failed all the same."""
    ends = [one for one in said(tmp_path, f"5|FAILED|None|n1|1|1|1|{status}|0") if isinstance(one, Ended)]
    assert [(False, code)] == [(one.ok, one.exit_code) for one in ends]
