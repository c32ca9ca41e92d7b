"""`python -m cli.trial`: what isolation an agent could give on this machine, each level tried. For `coord doctor`.

A process of its own: the trial forks, and whoever asks may have threads, whose locks a child would inherit held.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path


def tried() -> dict[str, str]:
    """Level -> why it cannot be given; empty where it can."""
    from coordinator.agent.probing import why_not
    from coordinator.core.work.jobspec import Isolation

    with tempfile.TemporaryDirectory(prefix="coord-doctor-", dir="/var/tmp") as place:
        state, work = Path(place) / "state", Path(place) / "work"
        state.mkdir(mode=0o700)
        work.mkdir(mode=0o711)
        Path(place).chmod(0o711)
        (state / "lock").touch(mode=0o600)
        return {level.value: why_not(level, state, work) for level in (Isolation.SANDBOX, Isolation.UID)}


if __name__ == "__main__":
    json.dump(tried(), sys.stdout)
