"""The door, over the whole table: every route x method x kind of token."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest

from coordinator.core.rows import Role
from coordinator.service.api.openapi import ROUTES
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import PUBLIC, PUBLIC_PATHS, SIGNED, SIGNED_PATHS, AnyRoute, Call, NoBody, Route
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, EXPIRED, READER, REVOKED, TENANT, TOKENS, Rig, served

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
EVENTS = "text/event-stream"
STRANGERS = (None, "coord-admin-unknown", REVOKED, EXPIRED, "", "x" * 300)


def concrete(path: str) -> str:
    """A path of this template, about something that does not exist."""
    return re.sub(r"\{\w+\}", "nobody", path)


def test_every_route_times_method_times_token_is_admitted_as_the_table_says() -> None:
    """No token, a wrong, revoked or expired one: 401 on everything but the public paths. A role that the route
    does not name: 403. A method that the path does not have: 405 for those who may come in, 401 for others. Where a
    signature opens, no token does."""

    async def test(rig: Rig) -> None:
        agent = await rig.enrol("agent-1")
        holders: dict[str, Role] = {**TOKENS, agent: Role.AGENT}
        table: tuple[AnyRoute, ...] = rig.app[ROUTES]
        taken: dict[tuple[str, str], AnyRoute] = {(route.method, route.path): route for route in table}
        walked = 0
        for path in sorted({route.path for route in table}):
            public = path in PUBLIC_PATHS
            for method in METHODS:
                route = taken.get((method, path))
                for stranger in STRANGERS:
                    got = await rig.ask(method, concrete(path), stranger)
                    walked += 1
                    if route is not None and public:
                        assert 200 == got.status, f"{method} {path}"
                    elif route is not None and route.roles == SIGNED:
                        assert 403 == got.status, f"{method} {path} with {stranger!r}: {got.status}"
                    else:
                        assert 401 == got.status, f"{method} {path} with {stranger!r}: {got.status}"
                        assert got.headers["WWW-Authenticate"].startswith("Bearer")
                for token, role in holders.items():
                    got = await rig.ask(method, concrete(path), token, read=route is None or route.answer != EVENTS)
                    walked += 1
                    if route is None:
                        assert 405 == got.status, f"{method} {path} as {role}: {got.status}"
                    elif route.roles == SIGNED or (route.roles != PUBLIC and role not in route.roles):
                        assert 403 == got.status, f"{method} {path} as {role}: {got.status}"
                    else:
                        assert got.status not in (401, 403, 405, 500), f"{method} {path} as {role}: {got.body!r}"
        assert walked > 2_000, "the walk has become a stroll"

    served(test)


def test_a_tenants_token_opens_jobs_and_what_happens_to_them_alone() -> None:
    """Whatever else there is, is of those who run the place; /healthz and /readyz alone need neither a token nor a
    signature."""

    async def test(rig: Rig) -> None:
        for route in rig.app[ROUTES]:
            if route.roles == PUBLIC:
                assert route.path in ("/healthz", "/readyz")
            elif route.roles == SIGNED:
                assert route.path in SIGNED_PATHS
            elif Role.TENANT in route.roles:
                assert re.match(
                    r"/v1/(jobs|events|audit|nodepools|usage|ledger|tenants/{name}|uploads|artifacts|traces|attempts/{id}/verdict)(/|$)",
                    route.path,
                )

    served(test)


async def _nothing(call: Call[Any, Any]) -> None:
    """A handler of a route that must not come to be."""


@pytest.mark.parametrize(
    ("method", "path", "roles", "body"),
    [
        ("GET", "/v1/secrets", frozenset(), NoBody),
        ("GET", "/v1/providers", PUBLIC, NoBody),
        ("GET", "/v1/providers", SIGNED, NoBody),
        ("GET", "/v1/blobs/{tenant}/{digest}", SIGNED, NoBody),  # without the query that is checked
        ("DELETE", "/v1/x", frozenset({Role.ADMIN}), ApiSettings),
    ],
)
def test_a_route_that_is_open_to_nobody_or_to_everybody_cannot_be_made(
    method: Any, path: str, roles: Any, body: Any
) -> None:
    """Deny by default: forgetting the roles is an error at start, not a hole."""
    with pytest.raises(ValueError, match=path):
        Route(
            method=method,
            path=path,
            roles=roles,
            handler=_nothing,
            summary="",
            query=NoQuery,
            body=body,
            answer=None,
        )


def test_a_token_counts_in_its_header_alone() -> None:
    """In the query, a cookie, basic auth or given twice it opens nothing, and no answer repeats it."""

    async def test(rig: Rig) -> None:
        for path, headers in (
            (f"/v1/pools?token={ADMIN}", {}),
            (f"/v1/pools?access_token={ADMIN}", {}),
            ("/v1/pools", {"Cookie": f"token={ADMIN}"}),
            ("/v1/pools", {"Authorization": f"Basic {ADMIN}"}),
            ("/v1/pools", {"Authorization": ADMIN}),
            ("/v1/pools", {"X-Forwarded-User": "admin"}),
        ):
            got = await rig.get(path, None, headers=headers)
            assert 401 == got.status, (path, headers)
            assert ADMIN.encode() not in got.body
        assert 200 == (await rig.get("/v1/pools", None, headers={"authorization": f"bearer  {ADMIN}"})).status
        assert 400 == (await rig.get(f"/v1/pools?token={ADMIN}")).status

    served(test)


def test_revoking_a_token_shuts_it_out_at_once() -> None:
    """Between a revocation's answer and the next request nothing is open."""

    async def test(rig: Rig) -> None:
        assert 200 == (await rig.get("/v1/pools", READER)).status
        assert 204 == (await rig.ask("DELETE", "/v1/tokens/t-read-only")).status
        assert 401 == (await rig.get("/v1/pools", READER)).status

    served(test)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/tokens", b'{"role": "admin"}'), ("/v1/import/sessions", b"provider_id,connected_at,")]
)
def test_a_body_that_comes_after_its_tokens_revocation_is_not_taken(path: str, body: bytes) -> None:
    """Who was admitted with the headers is looked at again when the body is there: it may be sent slowly."""

    async def test(rig: Rig) -> None:
        made = (await rig.post("/v1/tokens", {"role": "admin"})).json
        host, port = rig.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {made['token']}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b"HTTP/1.1 100 Continue" == (await reader.readuntil(b"\r\n")).strip()
        await reader.readuntil(b"\r\n")
        assert 204 == (await rig.ask("DELETE", f"/v1/tokens/{made['entry']['token_id']}")).status
        writer.write(body)
        assert b" 401 " in await reader.readuntil(b"\r\n")
        writer.close()
        await writer.wait_closed()
        valid = [entry for entry in (await rig.get("/v1/tokens")).json["entries"] if entry["revoked_at"] is None]
        assert not [entry for entry in valid if entry["created_at"] > made["entry"]["created_at"]]

    served(test)


def test_an_expired_token_shuts_itself_out() -> None:
    """A token with a life opens nothing after it."""

    async def test(rig: Rig) -> None:
        made = (await rig.post("/v1/tokens", {"role": "read-only", "expires_in_s": 60})).json
        assert 200 == (await rig.get("/v1/pools", made["token"])).status
        rig.clock.ahead_ms += 61_000
        assert 401 == (await rig.get("/v1/pools", made["token"])).status

    served(test)


def test_who_fails_again_and_again_is_told_to_wait_and_valid_tokens_are_not() -> None:
    """429 with Retry-After for failures beyond the burst; a valid token from the same address goes on."""

    async def test(rig: Rig) -> None:
        seen = [(await rig.get("/v1/pools", "wrong")).status for _ in range(8)]
        assert [401] * 5 + [429] * 3 == seen
        refused = await rig.get("/v1/pools", None)
        assert "too_many" == refused.code and int(refused.headers["Retry-After"]) > 0
        assert 200 == (await rig.get("/v1/pools")).status
        rig.clock.ahead_ms += 2_000
        assert 401 == (await rig.get("/v1/pools", "wrong")).status

    served(test, ApiSettings(failures_burst=5, failures_per_s=0.5))


TRICKS = (
    "//v1/pools",
    "/v1//pools",
    "/v1/pools/",
    "/v1/./pools",
    "/v1/../v1/pools",
    "/healthz/../v1/pools",
    "/healthz/..;/v1/pools",
    "/v1/pools;x=1",
    "/v1/pools%00",
    "/v1/pools%0a",
    "/v1/%2e%2e/v1/pools",
    "/%2e/v1/pools",
    "/v1%2fpools",
    "/v1%5cpools",
    "/v1/%252e%252e/pools",
    "/v1/pools%2f..%2f..%2fhealthz",
    "/v1/pools%zz",
    "/v1/pools%",
    "/V1/pools",
    "/v1/pools.json",
    "/v1/pools/healthz",
    "/v1/providers/a/../../pools",
    "/healthz/x",
    "/healthz.json",
    "/healthz%20",
)


@pytest.mark.parametrize("token", [None, TENANT, ADMIN])
def test_no_trick_with_the_path_reaches_anything(token: str | None) -> None:
    """Double slashes, dot segments, escapes, suffixes and case find nothing, with or without a token."""

    async def test(rig: Rig) -> None:
        for path in TRICKS:
            got = await rig.get(path, token)
            assert got.status in (400, 401, 404, 405), (path, got.status)
            assert got.code in ("bad_request", "unauthenticated", "not_found", "method_not_allowed")

    served(test)


def test_fixed_paths_are_never_taken_for_names() -> None:
    """`reliability` and `enrol` are no providers: other methods on them are refused, and no such id is enrolled."""

    async def test(rig: Rig) -> None:
        assert 405 == (await rig.ask("DELETE", "/v1/providers/reliability")).status
        assert 405 == (await rig.get("/v1/providers/enrol")).status
        for name in ("reliability", "enrol"):
            body = {"provider_id": name, "machine_id": "m"}
            assert "bad_request" == (await rig.post("/v1/providers/enrol", body)).code

    served(test)


def test_only_our_own_names_are_answered() -> None:
    """A page that points its own name at this address (DNS rebinding) gets nothing, not even health."""

    async def test(rig: Rig) -> None:
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "a b", ""):
            for path in ("/healthz", "/v1/pools"):
                got = await rig.get(path, headers={"Host": host})
                assert got.status in (400, 403), (host, got.status)
        for host in (
            "localhost",
            "localhost:7070",
            socket.gethostname(),
            "127.0.0.1",
            "[::1]:7070",
            "10.1.2.3:80",
            "head.example",
            "HEAD.example.",
        ):
            assert 200 == (await rig.get("/v1/pools", headers={"Host": host})).status, host

    served(test, ApiSettings(hosts=("head.example",)))


def test_pages_of_other_origins_are_refused_and_get_no_cors_headers() -> None:
    """A browser's request from elsewhere is refused, a WebSocket from any page; nothing ever allows an origin."""

    async def test(rig: Rig) -> None:
        own = rig.url
        credential = await rig.enrol("a")
        for origin in ("https://evil.example", "null", own.replace("http", "https") + ".evil.example"):
            got = await rig.get("/v1/pools", headers={"Origin": origin})
            assert 403 == got.status and "Access-Control-Allow-Origin" not in got.headers
        assert 200 == (await rig.get("/v1/pools", headers={"Origin": own})).status
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
        got = await rig.get("/v1/agents/connect", credential, headers={**upgrade, "Origin": own})
        assert 403 == got.status
        preflight = await rig.ask("OPTIONS", "/v1/pools", headers={"Access-Control-Request-Method": "POST"})
        assert 405 == preflight.status and "Access-Control-Allow-Methods" not in preflight.headers

    served(test)


def test_every_answer_carries_the_security_headers_and_names_no_software() -> None:
    """Answers, refusals and health alike; the Server header tells no version."""

    async def test(rig: Rig) -> None:
        for path, token in (("/healthz", None), ("/v1/pools", ADMIN), ("/v1/pools", None), ("/none", ADMIN)):
            headers = (await rig.get(path, token)).headers
            assert "nosniff" == headers["X-Content-Type-Options"]
            assert "no-store" == headers["Cache-Control"]
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "coord" == headers["Server"]

    served(test)
