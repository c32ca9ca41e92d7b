"""The results that are kept: bench/results/NAME.json, with the date, the commit and the machine.

Several processes may keep results at once: what is read and written again is so under a lock, and a file that is
there is always whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


def keep(name: str, result: dict[str, Any], results: Path = RESULTS) -> None:
    """Write the result of one bench."""
    with _alone(results):
        _write(results / name, result)


def keep_part(node: str, part: dict[str, Any], results: Path = RESULTS) -> None:
    """Write one part of the soak beside the others, whoever writes those."""
    with _alone(results):
        _write(results / "soak.json", {"parts": kept_parts(results) | {node: part}})


def kept_parts(results: Path = RESULTS) -> dict[str, Any]:
    """The parts of the soak that were run so far."""
    path = results / "soak.json"
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    return parts


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """One process at a time. The directory itself is locked: no file is left behind, and none need be there before."""
    results.mkdir(exist_ok=True)
    directory = os.open(results, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _write(path: Path, result: dict[str, Any]) -> None:
    told = {"date": today(), "commit": commit(), "machine": machine(), **result}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(told, indent=1) + "\n")
    temporary.rename(path)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def machine() -> dict[str, object]:
    """What the figures were measured on, without naming it."""
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
