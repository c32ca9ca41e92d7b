"""How a bench that measures in a directory of its own is run, printed and judged. Its floors are its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path


def judged(
    measure: Callable[[Path, bool], dict[str, object]], floors: Mapping[str, float], at_most: Collection[str] = ()
) -> int:
    """Measure and print. -> 1 when a ratio is below its floor, or above where it is one of `at_most`; a quick run
    (`--quick`) only shows that it runs: 0."""
    quick = "--quick" in sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
        report = measure(Path(directory), quick)
    print(json.dumps(report, indent=1))
    ratios = report["ratios"]
    assert isinstance(ratios, dict)
    held = all(ratios[name] <= bound if name in at_most else ratios[name] >= bound for name, bound in floors.items())
    return 0 if quick or held else 1
