"""Whether bytes are still what their rows say: what was damaged or lost on our disk is uploaded again.

The length of a file is looked at each time somebody is about to be told that it is there. Other damage is found by
whoever reads: an agent that fetched it, a check. What an agent says makes a suspect; our own reading settles it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from coordinator.core.data.rows import BlobRow
from coordinator.core.ids import TenantName
from coordinator.ports.blobs import BlobStore

log = logging.getLogger("coord.data")

Place = tuple[TenantName, str]
SUSPECTS_MAX = 10_000
"""Of each kind; the oldest is forgotten beyond that, and found again by whoever reads it next."""


class Soundness:
    """Knows the blobs whose bytes are not trusted. Memory only: a check after the start finds them anew."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._suspects: OrderedDict[Place, None] = OrderedDict()
        """Said to be damaged, not read yet."""
        self._damaged: OrderedDict[Place, None] = OrderedDict()
        """Read, and something else than their digests say."""
        self._news = asyncio.Event()

    def suspect(self, tenant: TenantName, digest: str) -> None:
        """Somebody says that it is damaged. Until it was read here it is kept, and taken anew from whoever has it."""
        place = tenant, digest
        if place not in self._damaged:
            _add(self._suspects, place)
            self._news.set()

    def found_damaged(self, places: Iterable[Place]) -> None:
        """A check read them: these are not what their rows say."""
        for place in places:
            self._suspects.pop(place, None)
            _add(self._damaged, place)

    def healed(self, tenant: TenantName, digest: str) -> None:
        """Verified bytes lie there now."""
        self._suspects.pop((tenant, digest), None)
        if self._damaged.pop((tenant, digest), self) is None:
            log.warning("blob %s of tenant %s is whole again: it was uploaded anew", digest, tenant)

    def is_trusted(self, tenant: TenantName, digest: str) -> bool:
        """Whether nobody says that what lies there is something else."""
        return (tenant, digest) not in self._suspects and (tenant, digest) not in self._damaged

    async def to_mend(self, rows: Sequence[BlobRow]) -> frozenset[str]:
        """Digests of those of one tenant that whoever has their bytes should send again: lost, of another length,
        damaged, or suspected to be."""
        gone = await self.lost(rows)
        return gone | {row.digest for row in rows if (row.tenant, row.digest) in self._suspects}

    async def lost(self, rows: Sequence[BlobRow]) -> frozenset[str]:
        """Digests of those of one tenant that nobody can be given."""
        if not rows:
            return frozenset()
        digests = [row.digest for row in rows]
        sizes = await self._blobs.sizes(rows[0].tenant, digests)
        return frozenset(
            row.digest
            for row, size in zip(rows, sizes, strict=True)
            if size != row.size or (row.tenant, row.digest) in self._damaged
        )

    async def run(self) -> None:
        """Read what is suspected, one after the other, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._suspects:
                place = next(iter(self._suspects))
                whole = await self._blobs.is_whole(*place)
                if self._suspects.pop(place, self) is None and not whole:  # else it was healed meanwhile
                    log.error("blob %s of tenant %s is damaged: whoever has it may upload it again", *reversed(place))
                    _add(self._damaged, place)


def _add(places: OrderedDict[Place, None], place: Place) -> None:
    places[place] = None
    places.move_to_end(place)
    if len(places) > SUSPECTS_MAX:
        places.popitem(last=False)
