"""Named places at which a test may have this process killed, as by a power cut or an impatient operator.

Off unless a name was given. SIGKILL, because a crash runs no handlers.
"""

from __future__ import annotations

import os
import signal

from coordinator.core.errors import Code, CoordError

FAIL_POINTS = (
    "truth.before_commit",
    "truth.after_commit",
    "telemetry.before_commit",
    "telemetry.after_commit",
    "seal.written",
    "seal.renamed",
    "seal.before_manifest",
    "seal.after_manifest",
    "rollup.between_batches",
    "retention.unlinked",
    "import.before_commit",
    "blob.written",
    "blob.verified",
    "blob.synced",
    "blob.renamed",
    "blob.published",
    "blob.refused",
    "blob.dropped",
    "blob.removed",
    "blob.tidied",
    "backup.copied",
    "restore.set_aside",
)


class FailPoints:
    """Kills the process when the `nth` passage of the named place begins. `spec` is "name:nth" or empty."""

    def __init__(self, spec: str = "") -> None:
        self.spec = spec
        name, _, nth = spec.partition(":")
        if spec and (name not in FAIL_POINTS or not nth.isdecimal() or int(nth) < 1):
            raise CoordError(
                Code.BAD_CONFIG,
                f"{spec!a} is no fail point",
                f"write NAME:N, N from 1 on, NAME one of {', '.join(FAIL_POINTS)}",
            )
        self._name = name
        self._left = int(nth) if spec else 0

    def reach(self, name: str) -> None:
        """Pass a named place, unless this is where the process is to end."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
