"""Where a store lives between two starts, and small builders of its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from coordinator.core.ids import Ms, PoolName, ProviderId, ProviderKey, SessionId, TokenId
from coordinator.core.rows import EndReason, ProviderRow, Resources, Role, SessionRow, TokenRow
from coordinator.ports import HeartbeatRow, ImportedSession, Store
from store.durable import DiskStore
from store.layout import DataDir
from store.memory import MemoryStore
from store.settings import StoreSettings

T = TypeVar("T")
HOUR_MS: Ms = 3_600_000
DAY_MS: Ms = 24 * HOUR_MS
NOON_MS: Ms = 490_000 * HOUR_MS
"""The beginning of a whole hour, around which these tests take place."""
OURS = "ours"
"""Stands for this coordinator's id; a_session takes it from the store."""


class Home(Protocol):
    """A place whose store can be started again and again."""

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        """Start the store, tell it a story, stop it."""
        ...


class MemoryHome:
    """The twin lives on while nobody uses it."""

    def __init__(self, settings: StoreSettings | None = None) -> None:
        self._store = MemoryStore(settings=settings)

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        async def told() -> T:
            return await story(self._store)

        return asyncio.run(told())


class DiskHome:
    """A data directory; every run opens it anew."""

    def __init__(self, path: Path, settings: StoreSettings | None = None) -> None:
        self.data = DataDir(path)
        self.settings = settings or StoreSettings()

    def run(self, story: Callable[[Any], Awaitable[T]]) -> T:
        async def told() -> T:
            store = await DiskStore.open(self.data, self.settings)
            try:
                return await story(store)
            finally:
                await store.close()

        return asyncio.run(told())


def is_a_store(store: DiskStore | MemoryStore) -> Store:
    """For the type checker: both are what the service asks for."""
    return store


def a_provider(name: str = "a", key: int = 1, **given: Any) -> ProviderRow:
    return ProviderRow(
        provider_id=ProviderId(name),
        key=ProviderKey(key),
        machine_id=f"machine of {name}",
        pool=PoolName("default"),
        credential_id=TokenId(f"token of {name}"),
        enrolled_at_ms=NOON_MS,
        **given,
    )


def a_full_provider() -> ProviderRow:
    """A provider with something in every field."""
    return a_provider(
        "ü-1",
        7,
        labels={"zone": "näh 'quoted' \"\\ \U0001f600", "a": ""},
        resources=Resources(cpus=7.5, memory_gb=31.2, gpus=("A", "B")),
        boot_id="boot",
        agent_version="1.2",
        resume_digest="d1",
        resume_digest_unconfirmed="d2",
        drained_at_ms=NOON_MS + 1,
        drain_note="fan; DROP TABLE provider",
        away_until_ms=NOON_MS + 2,
        last_seen_ms=NOON_MS + 3,
        last_end=EndReason.STALE_HEARTBEAT,
        stay_began_ms=NOON_MS + 4,
    )


def a_session(
    number: int,
    began_ms: Ms = NOON_MS,
    ended_ms: Ms | None = None,
    provider: str = "a",
    coordinator: str = "another",
    **given: Any,
) -> SessionRow:
    return SessionRow(
        session_id=SessionId(number),
        provider_id=ProviderId(provider),
        connected_at_ms=began_ms,
        coordinator_id=coordinator,
        disconnected_at_ms=ended_ms,
        disconnect_reason=EndReason.READ_ERROR if ended_ms is not None else None,
        **given,
    )


def a_token(name: str = "t1", **given: Any) -> TokenRow:
    return TokenRow(token_id=TokenId(name), role=Role.READ_ONLY, digest=f"digest {name}", created_at_ms=1, **given)


def a_beat(at_ms: Ms, key: int = 1, n: int = 0, **given: Any) -> HeartbeatRow:
    values: dict[str, Any] = dict.fromkeys(HeartbeatRow._fields[4:])
    values |= {"observed_at_ms": at_ms, "key": ProviderKey(key), "n": n, "status": 1, **given}
    return HeartbeatRow(**values)


def imported(
    line: int, provider: str, began_ms: Ms, ended_ms: Ms | None = None, reason: EndReason | None = None
) -> ImportedSession:
    """A line of an import; one with an end has a reason."""
    if ended_ms is not None and reason is None:
        reason = EndReason.READ_ERROR
    return ImportedSession(line, provider, began_ms, ended_ms, reason)
