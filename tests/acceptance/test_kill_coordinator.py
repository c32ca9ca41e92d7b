"""kill -9 of the coordinator, again and again, under real agents and real callers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest

from coordinator.api_types.fleet import SessionEntry
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from tests.acceptance.kill_rounds import Ledger
from tests.acceptance.processes import Agent, Head, wait_for


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


def _check_kept(client: Client, tokens: dict[str, str], when: str) -> None:
    kept = _kept(client)
    lost = {token_id for token_id, note in tokens.items() if kept.get(token_id) != note}
    assert not lost, f"{when} lost {sorted(lost)[:3]}"
    _check_history(_sessions(client, "w0"))


def _rounds(directory: Path, rounds: int, seed: int, *, agents: int, jobs: int, breath_s: float) -> None:
    """Kills at random moments, every other one at a named place between a decision and its telling."""
    dice = random.Random(seed)
    tokens: dict[str, str] = {}
    serving_s: list[float] = []
    with Head(directory) as head, contextlib.ExitStack() as stack:
        client = head.start()
        for number in range(agents):
            stack.enter_context(Agent(directory, head, f"w{number}", "--cpus", "4"))
        wait_for(lambda: all(_online(client, f"w{number}") for number in range(agents)), "every agent being online", 60)
        first = _sessions(client, "w0")[0]
        work = Ledger(directory / "books", seed, jobs, head)
        work.serve()
        for number in range(rounds):
            work.let(jobs // rounds)
            with contextlib.suppress(CoordError):  # killed by its fail point meanwhile
                _acknowledged(client, time.monotonic() + dice.uniform(0.05, breath_s), tokens)
            work.away()
            head.kill()
            places = ("truth.before_commit", "truth.after_commit")
            head.env = {"COORD_FAILPOINT": f"{dice.choice(places)}:{dice.randrange(5, 300)}"} if number % 2 else {}
            began_s = time.monotonic()
            client.close()
            client = _start_again(head)
            serving_s.append(time.monotonic() - began_s)
            work.serve()
            if number % 10 == 0:
                with contextlib.suppress(CoordError):
                    _check_kept(client, tokens, f"round {number} (seed {seed})")
        work.away()
        head.kill()
        head.env = {}
        client.close()
        client = head.start()
        work.serve()
        work.let(jobs)
        wait_for(lambda: _online(client, "w0"), "the agent being back")
        wait_for(lambda: work.settled(client), "every job having ended", 300)
        _check_kept(client, tokens, "the end")
        entries = _sessions(client, "w0")
        assert [first.session_id] == [e.session_id for e in entries], "the session did not go on across the kills"
        found = work.check(client)
        assert () == client.check().problems
        client.close()
    print(
        json.dumps(
            {
                "kills": rounds + 1,
                "agents": agents,
                **found,
                "tokens": len(tokens),
                "lost": 0,
                "doubled": 0,
                "serving_s_median": round(statistics.median(serving_s), 2),
                "serving_s_max": round(max(serving_s), 2),
                "seed": seed,
            }
        )
    )


def _start_again(head: Head) -> Client:
    """Started; once more where its fail point came before it answered."""
    while True:
        try:
            return head.start()
        except AssertionError:
            if head.popen is None or head.popen.poll() != -signal.SIGKILL:
                raise


def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Every acknowledged token and job is there after every kill; an agent's one session goes on through all of them;
    each task begins once, ends once and counts once, and none is killed by it."""
    _rounds(tmp_path, 19, seed=1, agents=3, jobs=120, breath_s=0.8)


@pytest.mark.soak
def test_two_hundred_kills(tmp_path: Path) -> None:
    """The same, 200 times, with a thousand jobs on ten agents (COORD_SOAK_SEED names another course of it)."""
    _rounds(tmp_path, 199, seed=int(os.environ.get("COORD_SOAK_SEED", "2")), agents=10, jobs=1_000, breath_s=2.0)


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
