"""How many logs may be followed at a time, whoever follows them."""

from __future__ import annotations

import threading


class Places:
    """Attempts' logs and launchers' files share them. For any thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, count: int = 1) -> bool:
        """All of them or none. False: so many are not free."""
        with self._lock:
            if self._taken + count > self.count:
                return False
            self._taken += count
            return True

    def free(self, count: int = 1) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= count

    @property
    def taken(self) -> int:
        return self._taken
