"""Another machine under a name that had work: what the first one may still run is waited for."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.ids import ProviderId
from coordinator.core.work.jobspec import OnLost
from tests.builders import ADMIN, JOIN, a_hello, an_enrolment, sent
from tests.site import OFFER, WORKS, Site, a_job


def at_work() -> Site:
    """Attempt 1.0.0.1 runs on a; b is idle. Nothing more is heard of a."""
    site = Site("a", "b")
    site.submit(a_job(on_lost=OnLost(mode="retry")))
    assert ["1.0.0.1"] == site.running("a")
    return site


def forget(site: Site, name: str) -> None:
    site.decide(
        events.ProviderForget(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId(name)),
    )
    site.agents[name].conn = None


def another_machine(site: Site, name: str, *, by_admin: bool = False) -> commands.Decision:
    """A machine that nobody knew takes the name, and says hello with nothing in its hands."""
    token = ADMIN.digest if by_admin else JOIN.digest
    site.decide(an_enrolment(name, at_ms=site.now_ms, machine="another", credential="newer", token=token))
    hello = a_hello(90, name, at_ms=site.now_ms, machine="another", boot="b9", process="p9")
    return site.decide(replace(hello, resources=OFFER, promises=WORKS))


def test_a_name_that_was_forgotten_and_given_away_does_not_end_what_the_first_machine_runs() -> None:
    """Its hello says nothing of the other machine: nobody else is launched before that one's lease is over."""
    site = at_work()
    site.run_to(1)
    forget(site, "a")
    site.run_to(2)
    another_machine(site, "a")
    assert ["in_doubt", "reserved"] == site.states()
    site.run_to(29)
    assert ["in_doubt", "reserved"] == site.states()
    site.run_to(32)
    assert ["lost", "running"] == site.states() and ["1.0.0.2"] == site.running("b")
    assert {} == {k: v for k, v in site.state.work.loads.items() if k == "a"}, "the new machine's capacity is held"


def test_a_name_that_an_admin_moves_to_another_machine_waits_for_the_lease_of_the_first() -> None:
    site = at_work()
    site.run_to(2)
    another_machine(site, "a", by_admin=True)
    assert ["in_doubt", "reserved"] == site.states()
    site.run_to(29)
    assert [] == site.running("b")
    site.run_to(32)
    assert ["1.0.0.2"] == site.running("b")


def test_it_is_waited_for_over_a_restart_of_the_coordinator_too() -> None:
    site = at_work()
    site.run_to(1)
    forget(site, "a")
    another_machine(site, "a")
    site.restart(3)
    site.back("b")
    another = a_hello(91, "a", at_ms=site.now_ms, machine="another", boot="b9", process="p9")
    site.decide(replace(another, resources=OFFER, promises=WORKS))
    site.run_to(30)
    assert "lost" not in site.states()
    site.run_to(60)
    assert "lost" == site.states()[0] and "running" == site.states()[-1]


def test_the_same_machine_enrolled_again_goes_on_with_what_it_holds() -> None:
    site = at_work()
    site.run_to(1)
    forget(site, "a")
    site.decide(an_enrolment("a", at_ms=site.now_ms, credential="newer"))
    decision = site.back("a", process="p2")
    assert sent(decision, commands.Renew), "its lease was not renewed"
    assert "running" == site.states()[0]
    site.exits("1.0.0.1")
    assert "completed" == site.job().state and {} == site.state.work.attempts
