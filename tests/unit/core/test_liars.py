"""Agents that say what is not so: what they were never told of they cannot speak for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.ids import ConnId, attempt_of
from coordinator.core.image import image_of
from coordinator.core.rows import EndCause, ExitInfo
from coordinator.core.work.jobspec import OnLost, RetryRule
from coordinator.core.work.live import NO_TOKEN
from tests.builders import a_hello
from tests.site import OFFER, WORKS, Site, a_job


def reserved_on_b() -> tuple[Site, dict[str, Any]]:
    """An attempt in doubt on a, and a reservation on b: the fields of what b may say of that."""
    site = Site("a", "b")
    site.submit(a_job(on_lost=OnLost(mode="retry")))
    (first,) = site.running("a") or site.running("b")
    silent = "a" if site.running("a") else "b"
    site.run_to(1)
    site.breaks(silent)
    site.run_to(12)
    assert "1.0.0.1" == first and ["in_doubt", "reserved"] == site.states()
    other = site.agents["b" if silent == "a" else "a"]
    said = {"attempt_id": attempt_of("1.0.0.2"), "rank": 0, "token": NO_TOKEN}
    return site, {"at_ms": site.now_ms, "conn_id": ConnId(other.conn or 0), **said}


@pytest.mark.parametrize("what", ["granted", "refused", "running", "frozen", "exited"])
def test_nobody_speaks_for_a_reservation(what: str) -> None:
    """It has no token yet: naming none is no proof. The one in doubt may still run, so nothing of it may count."""
    site, said = reserved_on_b()
    exit = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=1)
    event: events.AttemptEvent
    match what:
        case "granted":
            event = events.AgentGranted(**said)
        case "refused":
            event = events.AgentRefused(**said, why="no")
        case "exited":
            event = events.AttemptExited(**said, exit=exit)
        case _:
            event = events.AttemptPhase(**said, phase=what)
    before = image_of(site.state).work
    site.decide(event)
    assert image_of(site.state).work == before and ["in_doubt", "reserved"] == site.states()


def test_a_heartbeat_or_a_hello_that_names_a_reservation_renews_nothing() -> None:
    """Nor does a hello that says it has ended."""
    site, said = reserved_on_b()
    beat = events.Beat(conn_id=said["conn_id"], received_ms=site.now_ms, seq=99, attempts=(said["attempt_id"],))
    decision = site.decide(events.Heartbeats(at_ms=site.now_ms, beats=(beat,)))
    assert not [s for s in decision.sends if isinstance(s.message, commands.Renew)]
    name = next(n for n, agent in site.agents.items() if agent.conn == said["conn_id"])
    held = events.HeldAttempt(
        attempt_id=said["attempt_id"],
        rank=0,
        token=NO_TOKEN,
        phase="exited",
        exit=ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=1),
    )
    hello = a_hello(90, name, at_ms=site.now_ms, process="another")
    site.decide(replace(hello, resources=OFFER, promises=WORKS, attempts=(held,)))
    assert "in_doubt" == site.attempt("1.0.0.1").state and "completed" != site.job().state


def test_one_that_was_lost_does_not_come_back_beyond_what_its_step_may_run() -> None:
    """Of a step that runs one task at a time another one was begun meanwhile: the first is stopped, and waits."""
    site = Site("a", "b")
    site.submit(a_job(tasks=2, max_running=1, on_lost=OnLost(mode="retry"), retry=RetryRule(delay_ms=0, on=("any",))))
    first, second = ("a", "b") if site.running("a") else ("b", "a")
    site.exits("1.0.0.1", code=126)  # not there again
    site.run_to(1)
    assert ["1.0.0.2"] == site.running(second)
    site.breaks(second)
    site.run_to(60)
    assert ["1.0.1.1"] == site.running(first)
    site.back(second)
    assert [] == site.running(second) and ["1.0.1.1"] == site.running(first)
    site.exits("1.0.1.1")
    assert ["1.0.0.3"] == site.running(second)
