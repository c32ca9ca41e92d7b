"""What agents have in their caches, as they told it: 8 bytes of each digest, sorted. A guess that saves time, no more.

4 kB for each provider of a small fleet; in a large one fewer of each are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.core.data.events import CacheTold
from coordinator.core.ids import Digest
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState, Provider

KEY_BYTES = 8
KNOWN_MAX = 4_000_000
"""Digests of all providers together that are known: 32 MB."""


def on_cached(state: ClusterState, event: CacheTold, policy: Policy) -> None:
    """Replaces what was known. Whoever waits for a place with inputs is judged there anew."""
    provider = state.provider_of(event.conn_id)
    if provider is None:
        return
    _know(state, provider, pack(event.digests[: _most(state, policy)]))


def also_cached(state: ClusterState, provider: Provider, digests: Sequence[Digest], policy: Policy) -> None:
    """These lie there besides, until the provider tells what does: a step that is placed this moment knows it."""
    most = _most(state, policy)
    fresh = pack(digests[:most])
    others = (provider.cached[at : at + KEY_BYTES] for at in range(0, len(provider.cached), KEY_BYTES))
    known = {fresh[at : at + KEY_BYTES]: None for at in range(0, len(fresh), KEY_BYTES)} | dict.fromkeys(others)
    _know(state, provider, b"".join(sorted(list(known)[:most])))


def _most(state: ClusterState, policy: Policy) -> int:
    return max(1, min(policy.cached_max, KNOWN_MAX // len(state.providers)))


def _know(state: ClusterState, provider: Provider, cached: bytes) -> None:
    if cached != provider.cached:
        provider.cached = cached
        if any(shape.inputs for shape in state.work.candidates):
            state.work.changed(provider.row.provider_id)


def pack(digests: Iterable[Digest]) -> bytes:
    return b"".join(sorted({bytes.fromhex(digest[: 2 * KEY_BYTES]) for digest in digests}))


def holds(cached: bytes, digest: Digest) -> bool:
    """Whether it is there, but for one mistake in 10^16. O(log of what is there)."""
    key = bytes.fromhex(digest[: 2 * KEY_BYTES])
    low, high = 0, len(cached) // KEY_BYTES
    while low < high:
        middle = (low + high) // 2
        if cached[middle * KEY_BYTES : (middle + 1) * KEY_BYTES] < key:
            low = middle + 1
        else:
            high = middle
    return cached[low * KEY_BYTES : (low + 1) * KEY_BYTES] == key


def to_fetch(cached: bytes, inputs: Iterable[tuple[Digest, int]]) -> int:
    """Bytes of these that are not there."""
    return sum(size for digest, size in inputs if not holds(cached, digest))
