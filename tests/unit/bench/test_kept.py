"""What benches keep: nothing is lost when several write at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.kept import ROOT, keep, kept_parts

WRITERS, PARTS = 3, 8
SCRIPT = """
import sys
from pathlib import Path
from bench import kept
kept.commit = lambda: "none"  # a process of git's for each part would only take time
results, writer, parts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(parts):
    kept.keep_part(f"{writer}::{number}", {"passed": True}, results)
"""


def test_parts_that_several_processes_keep_at_once_are_all_there(tmp_path: Path) -> None:
    """Each reads what is there, adds its own and writes it again: none overwrites what another one added meanwhile, and
    nothing but the result is left."""
    results = tmp_path / "results"
    writers = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(results), f"test_{writer}", str(PARTS)], cwd=ROOT)
        for writer in range(WRITERS)
    ]
    assert [0] * WRITERS == [writer.wait(30) for writer in writers]
    assert {f"test_{writer}::{number}" for writer in range(WRITERS) for number in range(PARTS)} == set(
        kept_parts(results)
    )
    keep("one.json", {"figures": {}}, results)
    assert ["one.json", "soak.json"] == sorted(path.name for path in results.iterdir())
