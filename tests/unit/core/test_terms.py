"""Terms of leases: what is durable before an agent hears of it, what counts as longest, what a stop adds."""

from __future__ import annotations

from typing import Any

from coordinator.core import commands, events
from coordinator.core.events import Curve, FiguresPublished
from coordinator.core.ids import attempt_of
from coordinator.core.work.jobspec import OnLost
from coordinator.core.work.live import Attempt
from tests.builders import START_MS, sent
from tests.site import Site, a_job

FIRST = attempt_of("1.0.0.1")


def live(site: Site) -> Attempt:
    return site.state.work.attempts[FIRST]


def running(mode: str = "auto", wait_ms: int = 0, **more: Any) -> Site:
    site = Site("a", "b")
    site.submit(a_job(on_lost=OnLost(mode=mode, wait_ms=wait_ms), **more))
    return site


def test_a_heartbeat_renews_what_it_names_in_memory_alone() -> None:
    site = running()
    site.at(5)
    site.beat_all()
    (decision,) = site.decisions[-1:]
    ((_, renew),) = sent(decision, commands.Renew)
    assert (1, FIRST, 30_000) == (renew.seq, renew.terms[0].attempt_id, renew.terms[0].term_ms)
    assert [] == [
        w for w in decision.writes if isinstance(w, commands.Put) and w.row.__class__.__name__ == "AttemptRow"
    ]
    assert (START_MS + 5_000,) == live(site).renewed_ms


def test_what_a_heartbeat_does_not_name_is_not_renewed_and_is_in_doubt_after_ten_seconds() -> None:
    """Its agent is there, and does not speak of it: not even its end."""
    site = running()
    site.agents["a"].held.clear()
    site.run_to(10)
    assert ["running"] == site.states()
    site.run_to(16)
    assert "in_doubt" == site.states()[0]


def test_auto_grows_the_term_with_the_work_at_stake_and_writes_it_first() -> None:
    """A tenth of the run time, in doublings of 30 s, to 15 min at most: five writes in a day."""
    site = running()
    seen = []
    for minutes in (4, 9, 11, 21, 41, 81, 151):
        site.run_to(minutes * 60)
        assert site.attempt("1.0.0.1").term_ms == site.agents["a"].terms[FIRST]
        seen.append(site.attempt("1.0.0.1").term_ms // 1_000)
    assert [30, 30, 60, 120, 240, 480, 900] == seen


def test_the_term_of_wait_is_what_it_waits_and_thirty_seconds_at_least() -> None:
    assert 300_000 == running("wait", 300_000).attempt("1.0.0.1").term_ms
    assert 30_000 == running("wait", 1_000).attempt("1.0.0.1").term_ms


def after_two_hours(site: Site, stays: Curve) -> list[str]:
    """The states of the attempts after its provider vanished, which is back within a minute as a rule."""
    figures = FiguresPublished(
        at_ms=site.now_ms,
        computed_at_ms=site.now_ms,
        horizons_ms=(),
        delays_ms=(),
        providers=(),
        fleet_stays=stays,
        fleet_returns=Curve(at_ms=(60_000, 600_000), p=(0.9, 0.99)),
    )
    site.decide(figures)
    site.run_to(2 * 3_600)
    site.breaks("a")
    site.run_to(site.now_s + 2)
    return site.states()


def test_auto_waits_for_a_likely_return_with_much_at_stake() -> None:
    """Hours of work, and who vanishes is back within a minute as a rule: nothing is reserved."""
    site = running()
    assert ["in_doubt"] == after_two_hours(site, Curve())
    assert 720_000 >= live(site).terms_ms[0] >= 300_000


def test_auto_does_not_wait_for_who_would_be_gone_again_before_the_end() -> None:
    """With ten hours to go, a fleet whose stays last an hour saves nothing by a return; with a minute to go it does."""
    hourly = Curve(at_ms=(3_600_000,), p=(0.1,))
    assert ["in_doubt", "reserved"] == after_two_hours(running(expected_ms=12 * 3_600_000), hourly)
    assert ["in_doubt"] == after_two_hours(running(expected_ms=7_260_000), hourly)


def test_a_shorter_term_counts_when_the_agent_has_heard_of_it() -> None:
    """After a planned stop every term is ten minutes longer, until the agent confirms the usual one."""
    site = running("retry")
    site.run_to(12)
    site.decide(events.Stopping(at_ms=site.now_ms))
    assert 630_000 == site.attempt("1.0.0.1").term_ms
    site.agents["a"].conn = site.agents["b"].conn = None
    site.at(60)
    site.restart(60)
    site.back("a")
    site.at(65)
    site.beat_all()
    assert 30_000 == site.agents["a"].terms[FIRST]
    assert ((630_000,), 630_000) == (live(site).terms_ms, site.attempt("1.0.0.1").term_ms)
    site.at(70)
    site.beat_all()
    assert ((30_000,), 30_000) == (live(site).terms_ms, site.attempt("1.0.0.1").term_ms)


def test_a_renewal_of_an_older_connection_confirms_nothing() -> None:
    """Heartbeats are numbered by the agent's process: what it heard before its hello is not what was said since."""
    site = running("retry")
    site.run_to(12)
    site.decide(events.Stopping(at_ms=site.now_ms))
    site.agents["a"].conn = site.agents["b"].conn = None
    site.at(60)
    site.restart(60)
    site.back("a")
    site.agents["a"].seq = 40
    site.at(65)
    site.beat_all()
    site.breaks("a")
    site.back("a")
    site.agents["a"].renewed_seq = 41
    site.agents["a"].seq = 41
    site.at(70)
    site.beat_all()
    assert (630_000,) == live(site).terms_ms


def test_nothing_is_made_shorter_while_we_stop() -> None:
    site = running("retry")
    site.run_to(12)
    site.decide(events.Stopping(at_ms=site.now_ms))
    site.at(12.5)
    site.beat_all()
    assert 630_000 == site.agents["a"].terms[FIRST]


def test_a_stall_of_ours_ends_no_lease() -> None:
    site = running("retry")
    site.run_to(10)
    site.at(70)
    site.breaks("a")
    site.tick(stalled_s=60)
    site.run_to(85)
    assert "in_doubt" == site.states()[0]
    site.run_to(102)
    assert "lost" == site.states()[0]


def test_a_full_disk_for_a_minute_ends_no_lease_and_shortens_none() -> None:
    """Each second a reload: renewals are carried over and said again."""
    site = running("retry")
    site.run_to(10)
    for second in range(11, 70):
        site.durable, mark = False, len(site.decisions)
        site.at(second)
        if second % 5 == 0:
            site.beat_all()
        site.tick()
        undone = site.decisions[mark:]
        site.durable = True
        decision = site.disk_was_full(*undone)
        assert sent(decision, commands.Renew)
    assert (["running"], (START_MS + 65_000,)) == (site.states(), live(site).renewed_ms)
    site.run_to(90)
    site.exits("1.0.0.1")
    assert "completed" == site.job().state


def test_a_crowded_fleet_has_longer_terms() -> None:
    """Six of its intervals: a lease is renewed several times within its term, whatever the interval."""
    site = Site("a", "b")
    site.state.interval_ms = 14_000
    site.submit(a_job())
    assert 84_000 == site.attempt("1.0.0.1").term_ms
