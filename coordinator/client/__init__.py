"""A typed client for one coordinator: blocking, quick to import, one connection that is kept.

Answers are the structs of `api_types`; every refusal is a CoordError with the coordinator's own code,
message and hint. Not for several threads at once: give each its own client.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, TypeVar

from coordinator.api_types.access import TokenMade, TokenRequest, Tokens
from coordinator.api_types.data import TransfersAnswer
from coordinator.api_types.fleet import (
    DrainRequest,
    Heartbeats,
    Hours,
    PoolEntry,
    PoolRequest,
    Pools,
    ProviderEntry,
    Providers,
    Sessions,
)
from coordinator.api_types.happenings import Audit, EventEntry
from coordinator.api_types.nodepools import NodePools
from coordinator.api_types.operations import (
    AlertEntry,
    Alerts,
    Alive,
    BackupAnswer,
    BackupRequest,
    CheckAnswer,
    Health,
    ImportAnswer,
    SqlAnswer,
    SqlRequest,
)
from coordinator.api_types.reliability import (
    Availability,
    Backtest,
    Features,
    Forecast,
    NetworkAvailability,
    ReliabilityAnswer,
)
from coordinator.api_types.tenants import PriceEntry, PriceRequest
from coordinator.client.artifacts import Artifacts
from coordinator.client.jobs import Jobs
from coordinator.client.requests import Query, Requests, decoded, of_provider, segment
from coordinator.client.stream import follow
from coordinator.client.tenants import Tenants
from coordinator.client.traces import Traces
from coordinator.client.transport import CHUNK, Transport

Progress = Callable[[int], None]
"""Called with the number of bytes sent so far."""

LONG_S = 600.0
"""Imports, backups, checks and backtests may take so long."""


class Paged(Protocol):
    """An answer that may have a next page."""

    @property
    def next_page(self) -> str | None: ...


P = TypeVar("P", bound=Paged)


def every(fetch: Callable[[str | None], P]) -> Iterator[P]:
    """All pages: `fetch` is called with the page token, None for the first."""
    page: str | None = None
    while True:
        answer = fetch(page)
        yield answer
        page = answer.next_page
        if page is None:
            return


class Client:
    """`url` as `http://HOST:PORT` or https. With https either the system's authorities, `ca` or `pin` vouch.

    `pin` is the SHA-256 of the server's public key (base64url, as a join token carries it): then that key
    alone is trusted, whatever its certificate says.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: str | Path | None = None,
        pin: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self._requests = Requests(Transport(url, token, ca=ca, pin=pin, timeout_s=timeout_s))
        self.jobs = Jobs(self._requests)
        self.tenants = Tenants(self._requests)
        self.artifacts = Artifacts(self._requests)
        self.traces = Traces(self._requests)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go. The client may be used again."""
        self._requests.transport.close()

    @property
    def url(self) -> str:
        return self._requests.transport.url

    @property
    def age_s(self) -> int | None:
        """How old the figures of the last answer were; None where that means nothing."""
        return self._requests.transport.age_s

    # ---- liveness

    def reliability(
        self,
        *,
        min_score: float | None = None,
        max_score: float | None = None,
        min_uptime: float | None = None,
        min_stays_4h: float | None = None,
        min_stays_8h: float | None = None,
        limit: int = 100,
        as_of: str | None = None,
        horizon: str | None = None,
    ) -> ReliabilityAnswer:
        """Who can be relied on, best first; `limit` 0: all."""
        query: Query = {
            "min_score": min_score,
            "max_score": max_score,
            "min_uptime": min_uptime,
            "min_stays_4h": min_stays_4h,
            "min_stays_8h": min_stays_8h,
            "limit": limit,
            "as_of": as_of,
            "horizon": horizon,
        }
        return self._requests.get("/v1/providers/reliability", ReliabilityAnswer, query)

    def liveness(self, provider_id: str, *, as_of: str | None = None, time_zone: str | None = None) -> Features:
        """A provider's features and score."""
        query: Query = {"as_of": as_of, "time_zone": time_zone}
        return self._requests.get(of_provider(provider_id, "liveness"), Features, query)

    def sessions(self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None) -> Sessions:
        """One page of a provider's sessions, newest first."""
        return self._requests.get(
            of_provider(provider_id, "sessions"), Sessions, {"window": window, "limit": limit, "page": page}
        )

    def heartbeats(
        self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None
    ) -> Heartbeats:
        """One page of a provider's heartbeats, newest first."""
        query: Query = {"window": window, "limit": limit, "page": page}
        return self._requests.get(of_provider(provider_id, "heartbeats"), Heartbeats, query)

    def hours(self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None) -> Hours:
        """One page of a provider's heartbeats by the hour, newest first."""
        query: Query = {"window": window, "limit": limit, "page": page}
        return self._requests.get(of_provider(provider_id, "heartbeats/hourly"), Hours, query)

    def forecast(self, provider_id: str, *, horizon: str = "8h", as_of: str | None = None) -> Forecast | None:
        """Will it stay? None for a provider that is not online."""
        return self._requests.get(
            of_provider(provider_id, "forecast"), Forecast | None, {"horizon": horizon, "as_of": as_of}
        )

    def availability(
        self, provider_id: str | None = None, *, as_of: str | None = None, time_zone: str | None = None
    ) -> Availability:
        """The 7x24 grid of one provider, or of the whole fleet."""
        path = of_provider(provider_id, "availability") if provider_id is not None else "/v1/availability"
        return self._requests.get(path, Availability, {"as_of": as_of, "time_zone": time_zone})

    def network(self, *, as_of: str | None = None) -> NetworkAvailability:
        """The whole fleet's uptime."""
        return self._requests.get("/v1/network/availability", NetworkAvailability, {"as_of": as_of})

    def backtest(
        self,
        *,
        horizons: str | None = None,
        every: str | None = None,
        window: str | None = None,
        from_: str | None = None,
        to: str | None = None,
    ) -> Backtest:
        """How good the forecast was on this fleet's own past."""
        query: Query = {"horizons": horizons, "every": every, "window": window, "from": from_, "to": to}
        return self._requests.get("/v1/backtest", Backtest, query, LONG_S)

    def sql(self, statement: str, *, timeout_s: float = 30.0, rows_max: int = 10_000) -> SqlAnswer:
        """A SELECT over the documented views."""
        request = SqlRequest(statement=statement, timeout_s=timeout_s, rows_max=rows_max)
        return self._requests.post("/v1/sql", request, SqlAnswer, timeout_s + 30.0)

    # ---- the fleet now

    def providers(
        self,
        *,
        pool: str | None = None,
        liveness: str | None = None,
        label: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> Providers:
        """One page of the fleet in order of id."""
        query: Query = {"pool": pool, "liveness": liveness, "label": label, "limit": limit, "page": page}
        return self._requests.get("/v1/providers", Providers, query)

    def provider(self, provider_id: str) -> ProviderEntry:
        """One enrolled provider."""
        return self._requests.get(of_provider(provider_id), ProviderEntry)

    def forget(self, provider_id: str) -> None:
        """Remove a provider's enrolment and credential."""
        self._requests.delete(of_provider(provider_id))

    def drain(self, provider_id: str, *, note: str = "", away_until: str | None = None) -> ProviderEntry:
        """No new work there."""
        request = DrainRequest(note=note, away_until=away_until)
        return self._requests.post(of_provider(provider_id, "drain"), request, ProviderEntry)

    def resume(self, provider_id: str) -> ProviderEntry:
        """The drain is over."""
        return self._requests.post(of_provider(provider_id, "resume"), None, ProviderEntry)

    def nodepools(self) -> NodePools:
        """Pools with their capacity, what is free of it, what waits for it and until when."""
        return self._requests.get("/v1/nodepools", NodePools)

    # ---- what happens

    def events(
        self, *, job_id: int | None = None, entity: str | None = None, after: int | None = None
    ) -> Iterator[EventEntry]:
        """What happens from now on, or after the event `after`, for ever; lost connections are made again and
        nothing is missed or told twice. End it by leaving the loop."""
        query: Query = {"job": job_id, "entity": entity}
        last_id = str(after) if after is not None else None
        for event in follow(self._requests, "/v1/events", query, last_id):
            yield decoded(event.data, EventEntry)

    def audit(
        self,
        *,
        job_id: int | None = None,
        entity: str | None = None,
        subject: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> Audit:
        """One page of what happened, newest first."""
        query: Query = {"job": job_id, "entity": entity, "subject": subject, "limit": limit, "page": page}
        return self._requests.get("/v1/audit", Audit, query)

    # ---- access

    def tokens(
        self, *, role: str | None = None, tenant: str | None = None, limit: int = 100, page: str | None = None
    ) -> Tokens:
        """One page of the tokens, without their texts."""
        query: Query = {"role": role, "tenant": tenant, "limit": limit, "page": page}
        return self._requests.get("/v1/tokens", Tokens, query)

    def create_token(
        self,
        *,
        role: str,
        note: str = "",
        expires_in_s: float | None = None,
        pool: str | None = None,
        tenant: str | None = None,
    ) -> TokenMade:
        """Make a token; its text is in the answer and nowhere else."""
        request = TokenRequest(role=role, note=note, expires_in_s=expires_in_s, pool=pool, tenant=tenant)
        return self._requests.post("/v1/tokens", request, TokenMade)

    def revoke_token(self, token_id: str) -> None:
        """From now on it opens nothing."""
        self._requests.delete(f"/v1/tokens/{segment(token_id)}")

    def pools(self) -> Pools:
        """Every pool."""
        return self._requests.get("/v1/pools", Pools)

    def create_pool(self, name: str, note: str = "") -> PoolEntry:
        """Make a pool."""
        return self._requests.post("/v1/pools", PoolRequest(name=name, note=note), PoolEntry)

    def price_pool(self, name: str, *, cpu: int = 0, gpu: int = 0, memory: int = 0) -> PoolEntry:
        """What is granted there from now on costs this: of an hour, in millionths of the unit of account."""
        request = PriceRequest(price=PriceEntry(cpu=cpu, gpu=gpu, memory=memory))
        return self._requests.patch(f"/v1/pools/{segment(name)}", request, PoolEntry)

    def delete_pool(self, name: str) -> None:
        """Delete an unused pool."""
        self._requests.delete(f"/v1/pools/{segment(name)}")

    # ---- operations

    def import_sessions(self, file: IO[bytes], progress: Progress | None = None) -> ImportAnswer:
        """Add a history: `file` is the CSV, plain, gzip or xz, and is read from where it stands to its end."""
        if not file.seekable():
            import tempfile  # only here: its import would cost every command 5 ms

            with tempfile.TemporaryFile() as whole:
                while piece := file.read(CHUNK):
                    whole.write(piece)
                whole.seek(0)
                return self.import_sessions(whole, progress)
        start = file.tell()
        total = file.seek(0, io.SEEK_END) - start
        file.seek(start)

        def pieces() -> Iterator[bytes]:
            sent = 0
            while piece := file.read(CHUNK):
                yield piece
                sent += len(piece)
                if progress is not None:
                    progress(sent)

        body = self._requests.transport.send("POST", "/v1/import/sessions", pieces, total, "text/csv", LONG_S)
        return decoded(body, ImportAnswer)

    def transfers(self) -> TransfersAnswer:
        """What of blobs moves, what is held back, and whether anything is let in."""
        return self._requests.get("/v1/transfers", TransfersAnswer)

    def alerts(self) -> Alerts:
        """What an operator should look at."""
        return self._requests.get("/v1/alerts", Alerts)

    def acknowledge(self, alert_id: str) -> AlertEntry:
        """Say that somebody looks after it; it stands until its cause is gone all the same."""
        return self._requests.post(f"/v1/alerts/{segment(alert_id)}/ack", None, AlertEntry)

    def backup(self, name: str | None = None) -> BackupAnswer:
        """Have the coordinator write a consistent copy of everything."""
        return self._requests.post("/v1/db/backup", BackupRequest(name=name), BackupAnswer, LONG_S)

    def check(self) -> CheckAnswer:
        """Have the databases and every segment checked."""
        return self._requests.post("/v1/db/check", None, CheckAnswer, LONG_S)

    def healthz(self) -> Alive:
        """The process answers. Needs no token."""
        return self._requests.get("/healthz", Alive)

    def readyz(self) -> Health:
        """How the coordinator is, also while it cannot serve in full. Needs no token."""
        transport = self._requests.transport
        return decoded(transport.send("GET", "/readyz", None, 0, "", transport.timeout_s, fine=(200, 503)), Health)

    def metrics(self) -> str:
        """Prometheus text."""
        transport = self._requests.transport
        return transport.send("GET", "/metrics", None, 0, "", transport.timeout_s).decode()

    def openapi(self) -> dict[str, Any]:
        """The API in OpenAPI 3.1."""
        return self._requests.get("/openapi.json", dict[str, Any])
