"""kill -9 of the coordinator, again and again, under real agents and real callers."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path

import pytest

from coordinator.api_types import SessionEntry
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Agent, Head, wait_for

ROUNDS = 20


def _online(client: Client, who: str) -> bool:
    return any(entry.provider_id == who and entry.liveness == "online" for entry in client.providers().entries)


def _sessions(client: Client, who: str) -> list[SessionEntry]:
    return list(client.sessions(who, window="24h", limit=500).entries)


def _check_history(entries: list[SessionEntry]) -> None:
    """One open session at most; none doubled; none overlapping the next."""
    assert len([e for e in entries if e.disconnected_at is None]) <= 1
    assert len({e.session_id for e in entries}) == len(entries)
    in_order = sorted(entries, key=lambda e: e.session_id)
    for earlier, later in itertools.pairwise(in_order):
        assert earlier.disconnected_at is not None and earlier.disconnected_at <= later.connected_at


def _acknowledged(client: Client, until_s: float, into: dict[str, str]) -> None:
    """Make tokens until the time is up, and keep a ledger of those that were acknowledged."""
    while time.monotonic() < until_s:
        made = client.create_token(role="read-only", note=f"number {len(into)}")
        into[made.entry.token_id] = made.entry.note


def _kept(client: Client) -> dict[str, str]:
    """Every token that the coordinator knows, over all pages."""
    notes: dict[str, str] = {}
    page = None
    while True:
        listed = client.tokens(role="read-only", limit=500, page=page)
        notes |= {entry.token_id: entry.note for entry in listed.entries}
        page = listed.next_page
        if page is None:
            return notes


def _rounds(directory: Path, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    ledger: dict[str, str] = {}
    with Head(directory) as head:
        client = head.start()
        with Agent(directory, head, "steady"):
            wait_for(lambda: _online(client, "steady"), "the agent being online", 30)
            first = _sessions(client, "steady")[0]
            for number in range(rounds):
                _acknowledged(client, time.monotonic() + dice.uniform(0.05, 0.6), ledger)
                client.close()
                head.kill()
                client = head.start()
                kept = _kept(client)
                lost = {token_id for token_id, note in ledger.items() if kept.get(token_id) != note}
                assert not lost, f"round {number} (seed {seed}) lost {sorted(lost)[:3]}"
                _check_history(_sessions(client, "steady"))
            wait_for(lambda: _online(client, "steady"), "the agent being back", 40)
            entries = _sessions(client, "steady")
            _check_history(entries)
            assert [first.session_id] == [e.session_id for e in entries], "the session did not go on across the kills"
            assert () == client.check().problems
            client.close()
    print(json.dumps({"kills": rounds, "acknowledged": len(ledger), "lost": 0, "seed": seed}))


def test_twenty_kills_lose_nothing_acknowledged_and_double_no_session(tmp_path: Path) -> None:
    """Every acknowledged token is there after every kill; the agent's one session goes on through all of them."""
    _rounds(tmp_path, ROUNDS, seed=1)


@pytest.mark.soak
def test_two_hundred_kills(tmp_path: Path) -> None:
    """The same, 200 times (in parts: COORD_SOAK_SEED names the part)."""
    _rounds(tmp_path, 200, seed=int(os.environ.get("COORD_SOAK_SEED", "2")))


def test_a_second_server_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    """The first goes on serving; the second names the reason and ends."""
    with Head(tmp_path) as head, Head(tmp_path) as second:
        client = head.start()
        second.spawn()
        assert second.wait() != 0
        assert "in use by the process" in second.text()
        assert client.healthz().status == "ok"
        client.close()


def test_a_missing_token_is_refused(tmp_path: Path) -> None:
    """No figure and no list without a token."""
    with Head(tmp_path) as head:
        head.start().close()
        with Client(head.url, "") as stranger, pytest.raises(CoordError) as refused:
            stranger.providers()
        assert refused.value.code is Code.UNAUTHENTICATED
