"""Requests with structs on both sides: what every part of the client is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from coordinator.api_types.fleet import RESERVED
from coordinator.client.transport import Transport
from coordinator.core.errors import Code, CoordError

T = TypeVar("T")
Query = Mapping[str, str | int | float | None]


class Requests:
    """Paths, queries and bodies to one coordinator; answers as the struct that they should be."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def get(self, path: str, into: type[T] | Any, query: Query | None = None, timeout_s: float | None = None) -> T:
        transport = self.transport
        sent = transport.send("GET", with_query(path, query), None, 0, "", timeout_s or transport.timeout_s)
        answer: T = decoded(sent, into)
        return answer

    def post(
        self,
        path: str,
        request: object | None,
        into: type[T],
        timeout_s: float | None = None,
        query: Query | None = None,
        key: str | None = None,
    ) -> T:
        return self._with_body("POST", path, request, into, timeout_s, query, key)

    def patch(self, path: str, request: object, into: type[T]) -> T:
        """Changes that are the same when they are made twice."""
        return self._with_body("PATCH", path, request, into, None, None, None)

    def _with_body(
        self,
        method: str,
        path: str,
        request: object | None,
        into: type[T],
        timeout_s: float | None,
        query: Query | None,
        key: str | None,
    ) -> T:
        body = msgspec.json.encode(request) if request is not None else b""
        sent = self.transport.send(
            method,
            with_query(path, query),
            lambda: iter((body,)),
            len(body),
            "application/json",
            timeout_s or self.transport.timeout_s,
            key=key,
        )
        return decoded(sent, into)

    def delete(self, path: str, query: Query | None = None) -> bytes:
        return self.transport.send("DELETE", with_query(path, query), None, 0, "", self.transport.timeout_s)


def with_query(path: str, query: Query | None) -> str:
    """The target of a request; parameters that are None are left away."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def of_provider(provider_id: str, what: str = "") -> str:
    """The path of a provider's thing."""
    if provider_id in RESERVED:
        raise CoordError(
            Code.NOT_FOUND,
            f"no provider is called {provider_id}: it is a word of the API",
            "coord providers list shows the providers",
        )
    path = f"/v1/providers/{segment(provider_id)}"
    return f"{path}/{what}" if what else path


def segment(name: str) -> str:
    """A name as one segment of a path. What cannot be a name is refused here: it could mean another path."""
    if name in ("", ".", "..") or not name.isprintable() or "/" in name or "%" in name or "\\" in name:
        raise CoordError(
            Code.NOT_FOUND,
            f"nothing goes by the name {name[:40]!a}",
            "names are of letters, digits and . _ : @ + -; the listings show those that are there",
        )
    return quote(name, safe=":@+")


def decoded(body: bytes | str, into: type[T] | Any) -> T:
    """JSON as the struct that it should be; CoordError(UNREACHABLE) when it is not."""
    try:
        answer: T = msgspec.json.decode(body, type=into)
    except msgspec.MsgspecError as error:
        raise CoordError(
            Code.UNREACHABLE, f"the answer is not what a coordinator says: {error}", "is the other side as new as this?"
        ) from error
    return answer
