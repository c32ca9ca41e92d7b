"""The HTTP side of a real `coord serve`: real store, real analytics, a real agent, and a canary for secrets."""

from __future__ import annotations

import io
import socket
import time
from pathlib import Path

import pytest

from coordinator.client import Client, every
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Agent, Head, wait_for

HEADER = "provider_id,connected_at,disconnected_at,disconnect_reason\n"
DAY_S = 86_400


def history(now_s: int) -> bytes:
    """Ten days of three machines: one always there, one that fails every four hours, one that left."""
    rows = [f"steady,{now_s - 10 * DAY_S},,\n"]
    begin = now_s - 10 * DAY_S
    while begin + 4 * 3_600 < now_s - 3_600:
        rows.append(f"flaky,{begin},{begin + 4 * 3_600},read_error\n")
        begin += 5 * 3_600
    rows.append(f"gone,{now_s - 10 * DAY_S},{now_s - 9 * DAY_S},clean_close\n")
    return (HEADER + "".join(rows)).encode()


def exchange(url: str, sent: bytes) -> bytes:
    """The first part of what a bare socket gets back."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(sent)
        return wire.recv(65_536)


def test_a_fleet_is_imported_ranked_and_explained_through_http(tmp_path: Path) -> None:
    """Import twice, rank by score, grid, forecast, SQL, backup and check: one after the other over one
    connection; then no secret is found in anything that the run left behind but the token files."""
    secrets: list[str] = []
    with Head(tmp_path) as head, head.start() as client:
        now_s = int(time.time())
        first = client.import_sessions(io.BytesIO(history(now_s)))
        again = client.import_sessions(io.BytesIO(history(now_s)))
        assert first.rows == first.added == again.unchanged and 3 == first.providers
        wait_for(lambda: client.readyz().analytics == "up", "the worker being up")
        ranked = client.reliability(horizon="8h")
        assert "steady" == ranked.entries[0].provider_id and 3 == len(ranked.entries)
        scores = [entry.liveness_score for entry in ranked.entries]
        assert sorted(scores, reverse=True) == scores and client.age_s is not None
        assert ["steady"] == [e.provider_id for e in client.reliability(min_uptime=0.99).entries]
        assert client.forecast("steady") is not None and client.forecast("gone") is None
        assert (
            7 == len(client.availability("flaky").hourly_availability) == len(client.availability().hourly_availability)
        )
        assert 3 == client.network().providers
        flaky = [e for p in every(lambda page: client.sessions("flaky", limit=7, page=page)) for e in p.entries]
        assert len(flaky) == len({e.session_id for e in flaky}) and {"read_error"} == {
            e.disconnect_reason for e in flaky
        }
        assert flaky == sorted(flaky, key=lambda e: e.connected_at, reverse=True)
        with pytest.raises(CoordError) as caught:
            client.sql("select * from read_csv('/etc/passwd')")
        assert Code.BAD_SQL is caught.value.code
        assert client.sql("select count(*) from sessions").entries
        assert (Path(client.backup().path)).is_relative_to(head.data)
        assert () == client.check().problems
        secrets += [head.token("admin"), head.token("join"), client.create_token(role="read-only").token]
        with pytest.raises(CoordError):
            client.import_sessions(io.BytesIO(secrets[2].encode()))
    told = {path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "tokens"}
    assert len(told) > 5
    for path in told:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), f"a token stands in {path}"


def test_a_live_agent_is_seen_drained_and_forgotten(tmp_path: Path) -> None:
    """Its heartbeats arrive in the listing and in its history; a drain reaches it; forgetting cuts it off."""
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "node-1"):
        wait_for(lambda: _liveness(client, "node-1") == "online", "the agent being online")
        wait_for(lambda: client.provider("node-1").heartbeat, "a heartbeat in the listing")
        wait_for(lambda: client.heartbeats("node-1").entries, "a heartbeat in the history")
        assert client.drain("node-1", note="maintenance").drained
        (session,) = client.sessions("node-1").entries
        assert session.disconnected_at is None and session.last_heartbeat_at is not None
        assert 'coord_providers{liveness="online"} 1' in client.metrics()
        client.forget("node-1")
        assert _liveness(client, "node-1") is None
        (session,) = client.sessions("node-1").entries
        assert "superseded" == session.disconnect_reason


def _liveness(client: Client, provider_id: str) -> str | None:
    return next((e.liveness for e in client.providers().entries if e.provider_id == provider_id), None)


def test_strangers_get_nothing_from_the_real_port(tmp_path: Path) -> None:
    """No token, a forged Host, a page's Origin, garbage: refused as problems, and the coordinator goes on."""
    with Head(tmp_path) as head, head.start() as client:
        token = head.token("admin")
        auth = f"Authorization: Bearer {token}\r\n"
        for request, status in (
            ("GET /v1/tokens HTTP/1.1\r\nHost: localhost\r\n", b"401"),
            (f"GET /v1/tokens HTTP/1.1\r\nHost: rebound.example\r\n{auth}", b"403"),
            (f"GET /v1/tokens HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n{auth}", b"403"),
            (f"GET /healthz/../v1/tokens HTTP/1.1\r\nHost: localhost\r\n{auth}", b"400"),
            (f"GET /v1/tokens?token={token} HTTP/1.1\r\nHost: localhost\r\n", b"401"),
            ("NONSENSE\r\n", b"400"),
        ):
            answer = exchange(head.url, (request + "\r\n").encode())
            assert answer.split(b" ")[1] == status, (request, answer)
        assert "ok" == client.healthz().status
