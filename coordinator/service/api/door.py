"""The door: who may come in, before anything of a request is looked at. Deny by default.

It refuses paths that are not in their one canonical form, hosts that we are not (DNS rebinding), pages of
other origins, tokens that are unknown, revoked or expired, and roles that a route does not name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

from coordinator import wire
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.core.rows import Role, TokenRow
from coordinator.service.api.route import AnyRoute
from coordinator.service.api.settings import ApiSettings
from coordinator.service.data.signing import UPLOADS, Direction, SignedQuery, UrlSigner
from coordinator.service.views import LiveViews

TARGET_CHARS_MAX = 4_096
TOKEN_CHARS_MAX = 256
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._:@+~-]|%[0-9A-Fa-f]{2})+)+")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")
_HIDDEN = re.compile(r"%(?:2[eEfF5]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
"""Escapes of `.` `/` `%` `\\` and of control characters: nothing of ours is named with these."""


def check_target(request: web.Request) -> None:
    """CoordError(BAD_REQUEST) unless the path can be read in one way only."""
    target = request.raw_path
    path = target.partition("?")[0]
    ok = len(target) <= TARGET_CHARS_MAX and _PATH.fullmatch(path) and not _DOTS.search(path)
    if not ok or _HIDDEN.search(path):
        raise CoordError(
            Code.BAD_REQUEST,
            "the path is not in its canonical form",
            "write it without //, dot segments, a trailing slash, or escapes of . / % and control characters",
        )


def own_names(settings: ApiSettings) -> frozenset[str]:
    """The names that we go by: `localhost`, this machine's own, and those we were told."""
    host = socket.gethostname().lower()
    return frozenset({"localhost", host, host.partition(".")[0], *(name.lower() for name in settings.hosts)})


def check_host(request: web.Request, names: frozenset[str]) -> None:
    """CoordError(FORBIDDEN) for a name that is not ours: a page elsewhere may have pointed its own at us."""
    values = request.headers.getall("Host", [])
    if len(values) != 1:
        raise CoordError(Code.BAD_REQUEST, "the request names no single Host", "send one Host header")
    for value in {values[0], request.host}:
        name = _host_name(value)
        if name is None or not (_is_address(name) or name in names):
            raise CoordError(
                Code.FORBIDDEN,
                "this coordinator does not go by that Host",
                "use its address or its machine's name, or add this one to api.hosts (docs/reference/config.md)",
            )


def check_origin(request: web.Request) -> None:
    """CoordError(FORBIDDEN) for pages of other origins, and for any page on the agents' WebSocket."""
    origins = request.headers.getall("Origin", [])
    if not origins:
        return
    own = len(origins) == 1 and urlsplit(origins[0]).netloc.lower() == request.host.lower()
    if not own or request.path == wire.CONNECT_PATH:
        raise CoordError(
            Code.FORBIDDEN, "pages of other origins may not talk to this coordinator", "use coord or a client library"
        )


def _host_name(value: str) -> str | None:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", value)
    return found.group(1).strip("[]").lower().removesuffix(".") if found else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class FailureLimiter:
    """How often each peer may fail to authenticate: a token bucket a peer, `peers_max` of them.

    When that is reached the peer that was quiet longest is forgotten. A valid token is never held back, so
    one misled agent behind an address costs its neighbours nothing.
    """

    def __init__(self, settings: ApiSettings, monotonic_s: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def failed(self, peer: str) -> bool:
        """Count one failure of `peer`; whether it has had more than its share."""
        key = _network(peer)
        now_s = self._monotonic_s()
        left, before_s = self._peers.pop(key, (float(self._settings.failures_burst), now_s))
        left = min(self._settings.failures_burst, left + (now_s - before_s) * self._settings.failures_per_s)
        over = left < 1.0
        self._peers[key] = (left if over else left - 1.0, now_s)
        while len(self._peers) > self._settings.peers_max:
            self._peers.popitem(last=False)
        return over


def _network(peer: str) -> str:
    """A peer by its address; of IPv6 the /64, which one machine may fill with addresses."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def bearer(request: web.Request) -> str | None:
    """The token in the Authorization header; None without one, or when it is no bearer token."""
    values = request.headers.getall("Authorization", [])
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_CHARS_MAX or not token.isascii():
        return None
    return token


def authenticate(request: web.Request, views: LiveViews, limiter: FailureLimiter, now_ms: Ms) -> TokenRow:
    """Who asks. CoordError(UNAUTHENTICATED), or TOO_MANY for a peer that fails again and again."""
    text = bearer(request)
    row = views.authenticate(text, now_ms) if text is not None else None
    if row is not None:
        return row
    if limiter.failed(request.remote or ""):
        raise CoordError(
            Code.TOO_MANY, "too many requests from this address had no valid token", "wait, then send a valid one"
        )
    if text is None:
        raise CoordError(
            Code.UNAUTHENTICATED, "the request carries no token", "send the header Authorization: Bearer TOKEN"
        )
    raise CoordError(
        Code.UNAUTHENTICATED,
        "this token is unknown, revoked or expired",
        "have an admin make one: coord token create",
    )


def check_signature(
    request: web.Request, query: SignedQuery, signer: UrlSigner, limiter: FailureLimiter, now_ms: Ms
) -> None:
    """CoordError(BAD_SIGNATURE) unless the URL was signed for this object and direction and is good now; TOO_MANY for a
    peer that tries again and again. A token in the header changes nothing."""
    direction: Direction = "PUT" if request.path.startswith(UPLOADS) else "GET"
    try:
        signer.check(direction, request.path, query, now_ms)
    except CoordError:
        if limiter.failed(request.remote or ""):
            raise CoordError(
                Code.TOO_MANY, "too many requests from this address had no valid signature", "wait, then ask for a URL"
            ) from None
        raise


def check_role(route: AnyRoute, token: TokenRow) -> None:
    """CoordError(FORBIDDEN) unless the route names the token's role; a reader of one tenant may read what that tenant
    may, and nothing of the whole place."""
    if isinstance(route.roles, str):  # public or signed: nobody's token is asked for
        return
    if token.role in route.roles:
        if token.role is not Role.READ_ONLY or token.tenant is None or Role.TENANT in route.roles:
            return
        raise CoordError(
            Code.FORBIDDEN, "this token reads what is its tenant's alone", "it takes a read-only token of no tenant"
        )
    needed = " or ".join(sorted(route.roles))
    raise CoordError(
        Code.FORBIDDEN, f"a token of role {token.role} may not do this", f"it takes a token of role {needed}"
    )
