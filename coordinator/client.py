"""A typed client for one coordinator: blocking, quick to import, one connection that is kept.

Answers are the structs of `api_types`; every refusal is a CoordError with the coordinator's own code,
message and hint. Not for several threads at once: give each its own client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import io
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from coordinator import api_types as t
from coordinator.core.errors import Code, CoordError

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with bytes sent and bytes in all."""

_CHUNK = 256 * 1024
_PROBLEM = "application/problem+json"
_CODES = {code.value: code for code in Code}
_LOST = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ConnectionAbortedError)
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
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.path not in ("", "/"):
            raise CoordError(
                Code.BAD_CONFIG, f"{ascii(url)} is not the address of a coordinator", "write it as http://HOST:PORT"
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise CoordError(Code.BAD_CONFIG, "the token is not one", "a token is one word, as coord-admin-...")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.age_s: int | None = None
        """How old the figures of the last answer were; None where that means nothing."""
        self._token = token
        self._timeout_s = timeout_s
        self._host, self._port, self._pin = parts.hostname, port, pin
        self._tls = _tls(ca, pin) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go. The client may be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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
    ) -> t.ReliabilityAnswer:
        """Who can be relied on, best first; `limit` 0: all."""
        query = {
            "min_score": min_score,
            "max_score": max_score,
            "min_uptime": min_uptime,
            "min_stays_4h": min_stays_4h,
            "min_stays_8h": min_stays_8h,
            "limit": limit,
            "as_of": as_of,
            "horizon": horizon,
        }
        return self._get("/v1/providers/reliability", t.ReliabilityAnswer, query)

    def liveness(self, provider_id: str, *, as_of: str | None = None, time_zone: str | None = None) -> t.Features:
        """A provider's features and score."""
        return self._get(_of(provider_id, "liveness"), t.Features, {"as_of": as_of, "time_zone": time_zone})

    def sessions(self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None) -> t.Sessions:
        """One page of a provider's sessions, newest first."""
        return self._get(_of(provider_id, "sessions"), t.Sessions, {"window": window, "limit": limit, "page": page})

    def heartbeats(
        self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None
    ) -> t.Heartbeats:
        """One page of a provider's heartbeats, newest first."""
        query = {"window": window, "limit": limit, "page": page}
        return self._get(_of(provider_id, "heartbeats"), t.Heartbeats, query)

    def hours(self, provider_id: str, *, window: str = "7d", limit: int = 50, page: str | None = None) -> t.Hours:
        """One page of a provider's heartbeats by the hour, newest first."""
        query = {"window": window, "limit": limit, "page": page}
        return self._get(_of(provider_id, "heartbeats/hourly"), t.Hours, query)

    def forecast(self, provider_id: str, *, horizon: str = "8h", as_of: str | None = None) -> t.Forecast | None:
        """Will it stay? None for a provider that is not online."""
        return self._get(_of(provider_id, "forecast"), t.Forecast | None, {"horizon": horizon, "as_of": as_of})

    def availability(
        self, provider_id: str | None = None, *, as_of: str | None = None, time_zone: str | None = None
    ) -> t.Availability:
        """The 7x24 grid of one provider, or of the whole fleet."""
        path = _of(provider_id, "availability") if provider_id is not None else "/v1/availability"
        return self._get(path, t.Availability, {"as_of": as_of, "time_zone": time_zone})

    def network(self, *, as_of: str | None = None) -> t.NetworkAvailability:
        """The whole fleet's uptime."""
        return self._get("/v1/network/availability", t.NetworkAvailability, {"as_of": as_of})

    def backtest(
        self,
        *,
        horizons: str | None = None,
        every: str | None = None,
        window: str | None = None,
        from_: str | None = None,
        to: str | None = None,
    ) -> t.Backtest:
        """How good the forecast was on this fleet's own past."""
        query = {"horizons": horizons, "every": every, "window": window, "from": from_, "to": to}
        return self._get("/v1/backtest", t.Backtest, query, LONG_S)

    def sql(self, statement: str, *, timeout_s: float = 30.0, rows_max: int = 10_000) -> t.SqlAnswer:
        """A SELECT over the documented views."""
        request = t.SqlRequest(statement=statement, timeout_s=timeout_s, rows_max=rows_max)
        return self._post("/v1/sql", request, t.SqlAnswer, timeout_s + 30.0)

    # ---- the fleet now

    def providers(
        self,
        *,
        pool: str | None = None,
        liveness: str | None = None,
        label: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> t.Providers:
        """One page of the fleet in order of id."""
        query = {"pool": pool, "liveness": liveness, "label": label, "limit": limit, "page": page}
        return self._get("/v1/providers", t.Providers, query)

    def provider(self, provider_id: str) -> t.ProviderEntry:
        """One enrolled provider."""
        return self._get(_of(provider_id), t.ProviderEntry)

    def forget(self, provider_id: str) -> None:
        """Remove a provider's enrolment and credential."""
        self._delete(_of(provider_id))

    def drain(self, provider_id: str, *, note: str = "", away_until: str | None = None) -> t.ProviderEntry:
        """No new work there."""
        request = t.DrainRequest(note=note, away_until=away_until)
        return self._post(_of(provider_id, "drain"), request, t.ProviderEntry)

    def resume(self, provider_id: str) -> t.ProviderEntry:
        """The drain is over."""
        return self._post(_of(provider_id, "resume"), None, t.ProviderEntry)

    # ---- access

    def tokens(self, *, role: str | None = None, limit: int = 100, page: str | None = None) -> t.Tokens:
        """One page of the tokens, without their texts."""
        return self._get("/v1/tokens", t.Tokens, {"role": role, "limit": limit, "page": page})

    def create_token(self, request: t.TokenRequest) -> t.TokenMade:
        """Make a token; its text is in the answer and nowhere else."""
        return self._post("/v1/tokens", request, t.TokenMade)

    def revoke_token(self, token_id: str) -> None:
        """From now on it opens nothing."""
        self._delete(f"/v1/tokens/{_segment(token_id)}")

    def pools(self) -> t.Pools:
        """Every pool."""
        return self._get("/v1/pools", t.Pools)

    def create_pool(self, name: str, note: str = "") -> t.PoolEntry:
        """Make a pool."""
        return self._post("/v1/pools", t.PoolRequest(name=name, note=note), t.PoolEntry)

    def delete_pool(self, name: str) -> None:
        """Delete an unused pool."""
        self._delete(f"/v1/pools/{_segment(name)}")

    # ---- operations

    def import_sessions(self, file: IO[bytes], progress: Progress | None = None) -> t.ImportAnswer:
        """Add a history: `file` is the CSV, plain, gzip or xz, and is read from where it stands to its end."""
        start = file.tell()
        total = file.seek(0, io.SEEK_END) - start
        file.seek(start)

        def pieces() -> Iterator[bytes]:
            sent = 0
            while piece := file.read(_CHUNK):
                yield piece
                sent += len(piece)
                if progress is not None:
                    progress(sent, total)

        body = self._send("POST", "/v1/import/sessions", pieces, total, "text/csv", LONG_S)
        return _decoded(body, t.ImportAnswer)

    def alerts(self) -> t.Alerts:
        """What an operator should look at."""
        return self._get("/v1/alerts", t.Alerts)

    def backup(self, name: str | None = None) -> t.BackupAnswer:
        """Have the coordinator write a consistent copy of everything."""
        return self._post("/v1/db/backup", t.BackupRequest(name=name), t.BackupAnswer, LONG_S)

    def check(self) -> t.CheckAnswer:
        """Have the databases and every segment checked."""
        return self._post("/v1/db/check", None, t.CheckAnswer, LONG_S)

    def alive(self) -> t.Alive:
        """The process answers. Needs no token."""
        return self._get("/healthz", t.Alive)

    def health(self) -> t.Health:
        """How the coordinator is, also while it cannot serve in full. Needs no token."""
        return _decoded(self._send("GET", "/readyz", None, 0, "", self._timeout_s, fine=(200, 503)), t.Health)

    def metrics(self) -> str:
        """Prometheus text."""
        return self._send("GET", "/metrics", None, 0, "", self._timeout_s).decode()

    def openapi(self) -> dict[str, Any]:
        """The API in OpenAPI 3.1."""
        return self._get("/openapi.json", dict[str, Any])

    # ---- requests

    def _get(
        self,
        path: str,
        into: type[T] | Any,
        query: dict[str, str | int | float | None] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        answer: T = _decoded(self._send("GET", target, None, 0, "", timeout_s or self._timeout_s), into)
        return answer

    def _post(self, path: str, request: msgspec.Struct | None, into: type[T], timeout_s: float | None = None) -> T:
        body = msgspec.json.encode(request) if request is not None else b""
        sent = self._send(
            "POST", path, lambda: iter((body,)), len(body), "application/json", timeout_s or self._timeout_s
        )
        return _decoded(sent, into)

    def _delete(self, path: str) -> None:
        self._send("DELETE", path, None, 0, "", self._timeout_s)

    def _send(
        self,
        method: str,
        target: str,
        pieces: Callable[[], Iterator[bytes]] | None,
        length: int,
        media: str,
        timeout_s: float,
        fine: tuple[int, ...] = (200, 201, 204),
    ) -> bytes:
        """One request. On a kept connection that turns out to be closed it is sent again, once, on a fresh one:
        a POST carries an Idempotency-Key, so it is carried out once in any case."""
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if pieces is not None:
            headers |= {
                "Content-Type": media,
                "Content-Length": str(length),
                "Idempotency-Key": os.urandom(16).hex(),
            }
        kept = self._connection is not None and length <= _CHUNK
        try:
            status, media_type, body = self._exchange(method, target, pieces, headers, timeout_s)
        except _LOST as error:
            self.close()
            if not kept:
                raise self._unreachable(f"the connection broke: {error}") from error
            try:
                status, media_type, body = self._exchange(method, target, pieces, headers, timeout_s)
            except _LOST as again:
                self.close()
                raise self._unreachable(f"the connection broke: {again}") from again
        if status in fine:
            return body
        raise _refusal(status, media_type, body, self.url)

    def _exchange(
        self,
        method: str,
        target: str,
        pieces: Callable[[], Iterator[bytes]] | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> tuple[int, str, bytes]:
        try:
            connection = self._connected(timeout_s)
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            broken = self._send_body(connection, pieces)
            response = connection.getresponse()
            body = response.read()
        except _LOST:
            raise
        except TimeoutError as error:
            self.close()
            raise CoordError(
                Code.TIMEOUT, f"{self.url} gave no answer within {timeout_s:g} s", "is it overloaded? coord alerts"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(str(error) or type(error).__name__) from error
        age = response.headers.get("Age", "")
        self.age_s = int(age) if age.isdigit() else None
        if broken or response.will_close:
            self.close()
        return response.status, response.headers.get_content_type(), body

    def _send_body(self, connection: http.client.HTTPConnection, pieces: Callable[[], Iterator[bytes]] | None) -> bool:
        """Whether the other side stopped listening: it has answered already, and that answer is what counts."""
        try:
            for piece in pieces() if pieces is not None else ():
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def _connected(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._tls is None:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
            else:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout_s, context=self._tls
                )
            try:
                self._connection.connect()
                if self._pin is not None:
                    self._check_pin(self._connection)
            except TimeoutError as error:
                self.close()
                raise self._unreachable(f"no connection within {timeout_s:g} s") from error
            except CoordError:
                self.close()
                raise
            except OSError as error:
                self.close()
                raise self._unreachable(_said(error)) from error
        self._connection.sock.settimeout(timeout_s)
        return self._connection

    def _check_pin(self, connection: http.client.HTTPConnection) -> None:
        """Nothing was sent yet: a stranger does not even see the token."""
        assert self._pin is not None and isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert(binary_form=True)
        found = _key_fingerprint(certificate) if certificate else ""
        if not hmac.compare_digest(found, self._pin.rstrip("=")):
            raise CoordError(
                Code.UNREACHABLE,
                f"{self.url} has another key than the pinned one",
                "take the fingerprint anew from a join token made there, or find out who answers",
            )

    def _unreachable(self, why: str) -> CoordError:
        return CoordError(
            Code.UNREACHABLE,
            f"no coordinator answers at {self.url}: {why}",
            "start one with coord serve, or name the right one in COORD_URL",
        )


def _of(provider_id: str, what: str = "") -> str:
    path = f"/v1/providers/{_segment(provider_id)}"
    return f"{path}/{what}" if what else path


def _segment(name: str) -> str:
    """A name as one segment of a path. What cannot be a name is refused here: it could mean another path."""
    if name in ("", ".", "..") or not name.isprintable() or "/" in name or "%" in name or "\\" in name:
        raise CoordError(Code.NOT_FOUND, f"nothing goes by the name {ascii(name[:40])}", "look at the listing")
    return quote(name, safe=":@+")


def _tls(ca: str | Path | None, pin: str | None) -> ssl.SSLContext:
    if pin is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the key is compared instead, before anything is sent
        return context
    try:
        return ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise CoordError(
            Code.BAD_CONFIG, f"{ca} holds no usable certificates: {error}", "give the authority's PEM file"
        ) from error


def _key_fingerprint(certificate: bytes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(info).digest()).rstrip(b"=").decode()


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); give its authority with --ca"
    return error.strerror or str(error)


def _decoded(body: bytes, into: type[T] | Any) -> T:
    try:
        answer: T = msgspec.json.decode(body, type=into)
    except msgspec.MsgspecError as error:
        raise CoordError(
            Code.UNREACHABLE, f"the answer is not what a coordinator says: {error}", "is the other side as new as this?"
        ) from error
    return answer


def _refusal(status: int, media_type: str, body: bytes, url: str) -> CoordError:
    if media_type == _PROBLEM:
        try:
            problem = msgspec.json.decode(body, type=t.Problem)
        except msgspec.MsgspecError:
            pass
        else:
            return CoordError(_CODES.get(problem.code, Code.INTERNAL), problem.detail, problem.hint)
    return CoordError(
        Code.UNREACHABLE, f"{url} answered {status}, and not as a coordinator does", "is this the address of one?"
    )
