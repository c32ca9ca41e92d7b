"""The deadline's second watch: freezes what is over its time while the keeper itself is held up.

The keeper writes to a disk and starts programs from it, and a disk can hang for minutes. That a lease may be over in
such minutes is exactly what nobody may bet against; so one thread does nothing but look at deadlines, and writes to
nothing but the kernel's own files. Where there are no cgroups nobody stands in for the keeper.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from coordinator.agent.attempt import Attempt
from coordinator.agent.cgroup import CgroupTree
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger

LATE_S = 0.5
"""The keeper is given so long to do it itself. A lease has a sixth of its term, five seconds at least, left then."""
LOOK_S = 0.25


class Guard:
    """Watches attempts from `watch` to `forget`. `lock` is held while a deadline is read and acted upon: whoever moves
    one holds it too, so that nothing is frozen by a deadline that was moved meanwhile."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._watched: dict[str, Attempt] = {}
        self._froze: deque[str] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    def watch(self, attempt: Attempt) -> None:
        with self.lock:
            self._watched[attempt.name] = attempt

    def forget(self, attempt: Attempt) -> None:
        with self.lock:
            self._watched.pop(attempt.name, None)

    def tell(self) -> None:
        """Called by the keeper when it is there again: what was done in its place. The thread itself writes no log,
        which may lie on the disk that hangs."""
        while self._froze:
            logger.warning("attempt %s was frozen while the keeper was held up", self._froze.popleft())

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            with self.lock:
                late = [attempt for attempt in self._watched.values() if attempt.freeze_at_s + LATE_S <= boot_s()]
                for attempt in late:
                    self._freeze(attempt)

    def _freeze(self, attempt: Attempt) -> None:
        tree = attempt.tree
        if isinstance(tree, CgroupTree) and not tree.frozen and not tree.entered:
            with contextlib.suppress(OSError):  # it has ended this moment
                tree.freeze()
                self._froze.append(attempt.name)
