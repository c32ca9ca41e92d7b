"""Outputs that later steps take stay in the cache of the machine that made them: those steps are best placed there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from coordinator import globs
from coordinator.agent.collecting import Collected
from coordinator.agent.fetching import Blob, Fetcher
from coordinator.core.errors import CoordError
from coordinator.core.ids import check_name

SHARE = 2
"""What one attempt made may take the half of the cache."""


class Keeping(NamedTuple):
    """Of one attempt. `passed_on`: globs of what later steps take."""

    fetcher: Fetcher
    tenant: str
    passed_on: tuple[str, ...]

    async def keep(self, files: Sequence[Collected]) -> list[str]:
        """Copies of those that are taken, the largest first, as far as there is room; the digests of what is there."""
        wanted = self._wanted(files)
        kept: dict[str, None] = {}
        left = self.fetcher.cache.bytes_max // SHARE
        with ExitStack() as stack:  # one of them does not go for the next
            for file in sorted(wanted, key=lambda file: (-file.size, file.path)):
                if file.digest in kept or file.size > left:
                    continue
                if await self.fetcher.adopt(self.tenant, Blob(file.digest, file.size), file):
                    stack.enter_context(self.fetcher.cache.pinned((self.tenant, file.digest)))
                    kept[file.digest] = None
                    left -= file.size
        return list(kept)

    def _wanted(self, files: Sequence[Collected]) -> list[Collected]:
        try:
            check_name(self.tenant, "tenant")
            patterns = [globs.compiled(pattern) for pattern in self.passed_on]
        except CoordError:
            return []  # of a coordinator that means something else by it
        return [file for file in files if any(pattern.matches(file.path) for pattern in patterns)]
