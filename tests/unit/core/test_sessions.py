"""Sessions: when they end, who takes over, what a stall, a restart and a full disk change."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.commands import CloseCode
from coordinator.core.ids import ConnId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason, MetaRow, OutageRow
from coordinator.core.snapshot import Liveness
from tests.builders import ADMIN, START_MS, Fleet, a_hello, an_enrolment, closes, sent

# ---- ends


def test_a_broken_socket_ends_the_session_when_it_broke() -> None:
    """Ended at min(disconnect, last heartbeat + interval): here the disconnect is earlier."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.at(7).closed(1)
    (row,) = fleet.sessions()
    assert (7.0, EndReason.READ_ERROR) == (fleet.ended_s(), row.disconnect_reason)
    assert row.last_heartbeat_at_ms == START_MS + 5_000


def test_silence_ends_the_session_one_interval_after_the_last_heartbeat_not_when_noticed() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.run_to(60)
    assert (10.0, EndReason.STALE_HEARTBEAT) == (fleet.ended_s(), fleet.sessions()[0].disconnect_reason)


def test_a_session_without_a_heartbeat_lasts_at_most_one_interval() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(60)
    assert 5.0 == fleet.ended_s()


@pytest.mark.parametrize(("draining", "reason"), [(False, EndReason.CLEAN_CLOSE), (True, EndReason.DRAINING)])
def test_a_bye_ends_the_session_at_once_and_is_no_loss(draining: bool, reason: EndReason) -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(3).beat(1)
    decision = fleet.at(4).bye(1, draining=draining)
    assert {1: CloseCode.GOING_AWAY} == closes(decision)
    assert (4.0, reason, Liveness.AWAY) == (fleet.ended_s(), fleet.sessions()[0].disconnect_reason, fleet.phase())


def test_the_first_reason_wins() -> None:
    """What happens to a connection after its session ended changes nothing."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(4).bye(1)
    before = fleet.sessions()
    fleet.closed(1)
    fleet.bye(1, draining=True)
    fleet.beat(1)
    fleet.run_to(60)
    assert before == fleet.sessions()


# ---- suspect, lost


def test_silence_is_pinged_after_six_seconds_suspect_after_ten_and_lost_after_thirty() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    seen: dict[str, float] = {}
    for second in range(1, 40):
        fleet.at(second)
        decision = fleet.tick()
        if sent(decision, commands.PingAgent):
            seen.setdefault("ping", second)
        seen.setdefault(fleet.phase().value, second)
    assert {"online": 1, "ping": 6, "suspect": 10, "lost": 30} == seen


def test_the_tenth_second_counts_from_the_receipt_whenever_ticks_come() -> None:
    """A heartbeat that was taken up a little after its receipt, ticks that are a little late, in every phase: suspect
    within ten seconds of the receipt, and not much before."""
    for phase_ms in range(0, 250, 7):
        fleet = Fleet("a")
        fleet.hello(1)
        fleet.run_to(5)
        fleet.at(5 + (phase_ms + 40) / 1_000)
        beat = events.Beat(conn_id=ConnId(1), received_ms=fleet.now_ms - 40)
        fleet.decide(events.Heartbeats(at_ms=fleet.now_ms, beats=(beat,)))
        tick_s = 5.25
        while fleet.phase() is Liveness.ONLINE:
            fleet.at(tick_s := tick_s + 0.253)
            fleet.tick()
        assert 9_500 < fleet.now_ms - beat.received_ms <= 10_000, f"phase {phase_ms}"


def test_any_sign_of_life_makes_a_suspect_online_again() -> None:
    for alive in ("beat", "pong"):
        fleet = Fleet("a")
        fleet.hello(1)
        fleet.run_to(12)
        assert fleet.phase() is Liveness.SUSPECT
        getattr(fleet, alive)(1)
        assert fleet.phase() is Liveness.ONLINE


def test_a_suspect_that_came_back_is_suspected_in_time_again() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(12)
    fleet.beat(1)
    fleet.run_to(21)
    assert fleet.phase() is Liveness.ONLINE
    fleet.run_to(22)
    assert fleet.phase() is Liveness.SUSPECT


def test_a_broken_socket_is_suspect_until_lost_after_its_last_sign_of_life() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.closed(1)
    fleet.run_to(34)
    assert fleet.phase() is Liveness.SUSPECT
    fleet.run_to(36)
    assert fleet.phase() is Liveness.LOST


def test_only_a_tick_judges_a_provider_lost() -> None:
    """A socket that breaks after a long stall of ours is no loss yet: the next tick knows of the stall."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.at(45).closed(1)
    assert fleet.phase() is Liveness.SUSPECT
    fleet.tick(stalled_s=40)
    assert fleet.phase() is Liveness.SUSPECT
    fleet.run_to(80)
    assert fleet.phase() is Liveness.LOST


# ---- stalls


def test_a_long_stall_behind_a_report_of_a_short_one_judges_nobody() -> None:
    """The tick that reported the long stall was one too many; the next one reports another, a short one."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.tick()
    fleet.at(65).tick(stalled_s=4)
    assert fleet.phase() is Liveness.ONLINE


def test_a_stall_of_ours_judges_nobody() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.tick()
    fleet.at(65).tick(stalled_s=59.75)
    assert fleet.phase() is Liveness.ONLINE
    assert [
        OutageRow(coordinator_id="head", began_at_ms=START_MS + 5_250, ended_at_ms=START_MS + 65_000, cause="stall")
    ] == [row for row in fleet.rows.values() if isinstance(row, OutageRow)]


def test_a_tick_that_waited_through_a_stall_judges_nobody_either() -> None:
    """It was due before the process stood still and is taken after: the gap between ticks tells, once."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(5, beating=(1,))
    fleet.at(65).tick()
    assert fleet.phase() is Liveness.ONLINE
    fleet.at(65.3).tick(stalled_s=59)
    assert fleet.phase() is Liveness.ONLINE
    assert 1 == len([row for row in fleet.rows.values() if isinstance(row, OutageRow)])


def test_a_stall_gives_nobody_more_time_than_a_heartbeat_now_would() -> None:
    """What was read from the sockets after the stall counts from now, not from now plus the stall."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(65).beat(1)
    fleet.tick(stalled_s=60)
    fleet.run_to(74)
    assert fleet.phase() is Liveness.ONLINE
    fleet.run_to(75)
    assert fleet.phase() is Liveness.SUSPECT
    fleet.run_to(95)
    assert fleet.phase() is Liveness.LOST


def test_a_challenge_that_came_after_a_stall_is_decided_in_its_time() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(60).hello(2, process="p2")
    fleet.tick(stalled_s=59)
    fleet.run_to(65)
    assert ["p1", "p2"] == [row.process_id for row in fleet.sessions()]


def test_a_stall_that_cut_a_connection_cuts_no_stay() -> None:
    """Forty seconds of which we watched five: the same stay."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.at(42).closed(1)
    fleet.tick(stalled_s=37)
    fleet.at(45).hello(2)
    assert START_MS == fleet.provider().row.stay_began_ms


# ---- stays


def test_a_blip_of_two_seconds_ends_a_session_but_no_stay() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.at(6).closed(1)
    fleet.at(8).hello(2)
    assert 2 == len(fleet.sessions())
    assert START_MS == fleet.provider().row.stay_began_ms


def test_a_blip_cuts_no_stay_in_a_fleet_with_a_long_interval() -> None:
    """The gap that ends a stay grows with the interval, for it is counted from the last heartbeat."""
    fleet = Fleet("a", policy=Policy(heartbeat_interval_ms=60_000))
    fleet.hello(1)
    fleet.at(60).beat(1)
    fleet.at(110).closed(1)
    fleet.at(112).hello(2)
    assert START_MS == fleet.provider().row.stay_began_ms


@pytest.mark.parametrize(("boot", "back_at"), [("b2", 8.0), ("b1", 36.0)])
def test_a_reboot_or_half_a_minute_begins_a_new_stay(boot: str, back_at: float) -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(5, beating=(1,))
    fleet.at(6).closed(1)
    fleet.run_to(back_at)
    fleet.hello(2, boot=boot)
    assert fleet.now_ms == fleet.provider().row.stay_began_ms


def test_a_stall_after_a_restart_joins_no_stays_that_were_apart() -> None:
    """The outage before the start is taken from a gap that spans it, from no other."""
    fleet = Fleet("a")
    fleet.restart(back_at=3_600)
    fleet.hello(1)
    fleet.at(3_605).beat(1)
    fleet.closed(1)
    fleet.at(3_626).tick(stalled_s=20)
    fleet.run_to(3_680)
    fleet.hello(2)
    assert fleet.now_ms == fleet.provider().row.stay_began_ms


# ---- who takes over


def test_the_current_resume_key_supersedes_at_once() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    decision = fleet.at(6).hello(2, key="key-1")
    assert {1: CloseCode.SUPERSEDED} == closes(decision)
    assert [2] == [conn for conn, _ in sent(decision, commands.Welcome)]
    assert EndReason.SUPERSEDED is fleet.sessions()[0].disconnect_reason


def test_a_key_that_was_replaced_and_confirmed_is_worth_nothing() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(1).beat(1)
    fleet.at(2).hello(2, key="key-1")
    fleet.at(3).beat(2)
    decision = fleet.at(4).hello(3, key="key-1")
    assert [2] == [conn for conn, _ in sent(decision, commands.PingAgent)]


def test_the_key_before_stays_good_until_the_new_one_is_confirmed() -> None:
    """The welcome that carried the new key may have been lost."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(1).beat(1)
    fleet.at(2).hello(2, key="key-1")
    decision = fleet.at(3).hello(3, key="key-1")
    assert {2: CloseCode.SUPERSEDED} == closes(decision)


def test_without_a_key_the_old_connection_keeps_the_provider_when_it_answers() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    decision = fleet.at(2).hello(2, process="p2")
    assert [1] == [conn for conn, _ in sent(decision, commands.PingAgent)]
    decision = fleet.at(3).pong(1)
    assert {2: CloseCode.DUPLICATE} == closes(decision)
    duplicate = fleet.provider().duplicate
    assert duplicate is not None
    assert ("10.0.0.2:4000", "10.0.0.1:4000") == (duplicate.peer, duplicate.holder_peer)


@pytest.mark.parametrize(("process", "reason"), [("p1", EndReason.SUPERSEDED), ("p2", EndReason.AGENT_RESTART)])
def test_an_old_connection_that_stays_silent_for_five_seconds_is_replaced(process: str, reason: EndReason) -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(2)
    fleet.hello(2, process=process)
    fleet.run_to(6)
    assert 1 == len(fleet.sessions())
    fleet.run_to(7)
    assert 2 == len(fleet.sessions())
    assert reason is fleet.sessions()[0].disconnect_reason


def test_a_challenger_is_taken_up_when_the_old_socket_breaks() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(2).hello(2, process="p2")
    decision = fleet.at(3).closed(1)
    assert [2] == [conn for conn, _ in sent(decision, commands.Welcome)]


def test_a_challenger_is_taken_up_when_the_old_agent_says_bye() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(2).hello(2, process="p2")
    decision = fleet.at(3).bye(1)
    assert [2] == [conn for conn, _ in sent(decision, commands.Welcome)]
    assert EndReason.CLEAN_CLOSE is fleet.sessions()[0].disconnect_reason


def test_a_challenger_is_taken_up_when_the_old_session_is_lost_meanwhile() -> None:
    """The challenge began 28 s into the silence: at 30 s the session ends, and nobody is left to answer."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(28)
    fleet.hello(2, process="p2")
    fleet.run_to(30)
    assert fleet.phase() is Liveness.ONLINE
    assert ["p1", "p2"] == [row.process_id for row in fleet.sessions()]


def test_a_challenger_never_takes_over_from_the_holder_of_the_key() -> None:
    """The holder reconnects with its key while a challenge runs: it has just proved that it lives."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(1).beat(1)
    fleet.at(2).hello(2, process="p2")
    decision = fleet.at(6.5).hello(3, key="key-1")
    assert {1: CloseCode.SUPERSEDED, 2: CloseCode.DUPLICATE} == closes(decision)
    fleet.run_to(9)
    assert {3} == set(fleet.state.conns)


def test_a_challenger_that_says_bye_is_closed() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.hello(2, process="p2")
    assert {2: CloseCode.GOING_AWAY} == closes(fleet.at(1).bye(2))
    fleet.run_to(9, beating=(1,))
    assert {1} == set(fleet.state.conns)


def test_a_second_challenger_is_refused() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.hello(2, process="p2")
    assert {3: CloseCode.DUPLICATE} == closes(fleet.hello(3, process="p3"))


@pytest.mark.parametrize(
    ("provider", "machine", "code"),
    [("nobody", None, CloseCode.FORGOTTEN), ("a", "a copied disk", CloseCode.MACHINE_MISMATCH)],
)
def test_a_hello_of_no_provider_of_ours_is_closed(provider: str, machine: str | None, code: CloseCode) -> None:
    fleet = Fleet("a")
    hello = a_hello(1, provider, machine=machine)
    assert {1: code} == closes(fleet.decide(hello))
    assert {} == fleet.state.conns


def test_a_second_hello_on_a_connection_closes_it() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    assert {1: CloseCode.BAD_FRAME} == closes(fleet.hello(1))


def test_an_identity_moved_to_another_machine_parts_from_the_old_one() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.hello(2, process="p2")
    moving = an_enrolment("a", at_ms=fleet.now_ms, machine="m2", token=ADMIN.digest, credential="another")
    assert {1: CloseCode.MACHINE_MISMATCH, 2: CloseCode.MACHINE_MISMATCH} == closes(fleet.decide(moving))
    fleet.closed(1)
    assert {} == fleet.state.conns, "the old machine's challenger must not get in"


# ---- restarts of the coordinator


def test_the_same_agent_process_goes_on_after_a_restart() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(61, beating=(1,))
    fleet.restart(back_at=600)
    assert fleet.phase() is Liveness.AWAITED
    (welcome,) = sent(fleet.at(605).hello(2), commands.Welcome)
    assert (1, True) == (welcome[1].session_id, welcome[1].resumed)
    assert [None] == [row.disconnected_at_ms for row in fleet.sessions()]


def test_another_process_after_a_restart_leaves_the_old_session_at_its_last_heartbeat() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.run_to(66, beating=(1,))
    fleet.restart(back_at=600)
    fleet.at(605).hello(2, process="p2")
    assert EndReason.COORDINATOR_RESTART is fleet.sessions()[0].disconnect_reason
    assert fleet.ended_s(index=0) <= 65.0
    assert fleet.phase() is Liveness.ONLINE


def test_who_does_not_come_back_is_closed_at_its_last_heartbeat_after_a_minute() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(4).beat(1)
    fleet.tick()
    fleet.restart(back_at=600)
    fleet.run_to(659)
    assert fleet.phase() is Liveness.AWAITED
    fleet.run_to(661)
    assert (4.0, EndReason.COORDINATOR_RESTART) == (fleet.ended_s(), fleet.sessions()[0].disconnect_reason)


def test_the_time_from_the_last_sign_of_life_to_the_start_is_an_outage() -> None:
    fleet = Fleet("a")
    fleet.run_to(20)
    alive_ms = fleet.state.alive_at_ms
    assert alive_ms is not None
    fleet.restart(back_at=600)
    (outage,) = [row for row in fleet.rows.values() if isinstance(row, OutageRow)]
    assert (alive_ms, START_MS + 600_000, "restart") == (outage.began_at_ms, outage.ended_at_ms, outage.cause)
    assert START_MS + 14_000 <= alive_ms <= START_MS + 20_000


def test_a_planned_stop_charges_nobody_for_the_sockets_it_closes() -> None:
    """After we said that we restart, closing sockets end no session; the agents go on when we are back."""
    fleet = Fleet("a", "b")
    fleet.hello(1)
    fleet.hello(2, "b")
    fleet.at(5).beat(1, 2)
    decision = fleet.at(6).decide(events.Stopping(at_ms=fleet.now_ms))
    assert {1: CloseCode.GOING_AWAY, 2: CloseCode.GOING_AWAY} == closes(decision)
    fleet.closed(1)
    fleet.at(60).tick()
    assert {3: CloseCode.GOING_AWAY} == closes(fleet.hello(3))
    fleet.restart(back_at=70)
    (welcome,) = sent(fleet.hello(4), commands.Welcome)
    assert welcome[1].resumed
    assert [None] == [row.disconnected_at_ms for row in fleet.sessions()]


# ---- the interval of a large fleet


def test_a_fleet_beyond_its_budget_is_told_a_longer_interval() -> None:
    fleet = Fleet("a", "b", "c", policy=Policy(heartbeat_interval_ms=1_000, heartbeat_budget_per_s=1.0))
    fleet.hello(1, "a")
    fleet.hello(2, "b")
    decision = fleet.hello(3, "c")
    assert {1: 3_000, 2: 3_000, 3: 3_000} == {
        conn: tell.heartbeat_interval_ms for conn, tell in sent(decision, commands.TellInterval)
    }


def test_who_was_told_a_long_interval_is_not_judged_by_the_short_one() -> None:
    """When most of the fleet goes at once the rest may be silent for the old interval once more."""
    names = [f"n{i}" for i in range(60)]
    fleet = Fleet(*names, policy=Policy(heartbeat_budget_per_s=1.0))
    for conn, name in enumerate(names):
        fleet.hello(conn, name)
    assert 60_000 == fleet.state.interval_ms
    fleet.at(1).beat(*range(60))
    fleet.at(50).tick()
    fleet.at(61).beat(*range(60))
    for conn in range(1, 60):
        fleet.at(62).closed(conn)
    for second in range(63, 121):
        fleet.at(second).tick()
        assert fleet.phase("n0") is Liveness.ONLINE, f"at {second} s"
    assert 5_000 == fleet.state.interval_ms
    fleet.at(121).beat(0)
    fleet.run_to(131)
    assert fleet.phase("n0") is Liveness.SUSPECT, "from its next heartbeat on the short one counts"


def test_an_open_session_whose_provider_cannot_be_read_is_closed() -> None:
    """Its provider's row was set aside: nobody can come back to it, and a new enrolment must not open a second one."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.run_to(70, beating=(1,))
    del fleet.rows["provider", "a"]
    fleet.restart(back_at=80)
    fleet.at(81).tick()
    (row,) = fleet.sessions()
    assert (EndReason.COORDINATOR_RESTART, row.last_heartbeat_at_ms) == (row.disconnect_reason, row.disconnected_at_ms)
    assert not fleet.at(82).tick().notes, "once"


# ---- a full disk


def test_a_full_disk_keeps_connections_and_last_heartbeats() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    assert {} == closes(fleet.disk_was_full())
    fleet.run_to(60, beating=(1,))
    assert (Liveness.ONLINE, 1) == (fleet.phase(), len(fleet.sessions()))


def test_a_connection_whose_session_never_became_durable_says_hello_again() -> None:
    fleet = Fleet("a")
    fleet.hello(1, durable=False)
    assert {1: CloseCode.GOING_AWAY} == closes(fleet.disk_was_full())
    assert Liveness.NEVER_SEEN is fleet.phase()


def test_a_resumed_connection_whose_welcome_was_undone_says_hello_again() -> None:
    """The session is durable, its welcome never left: it is awaited as before."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.tick()
    fleet.restart(back_at=10)
    fleet.hello(2, durable=False)
    assert {2: CloseCode.GOING_AWAY} == closes(fleet.disk_was_full())
    (welcome,) = sent(fleet.at(12).hello(3), commands.Welcome)
    assert welcome[1].resumed


def test_an_undone_outage_is_written_again() -> None:
    """A time that nobody watched stays unobserved, however often the disk refuses to hear of it."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(6).tick()
    fleet.at(65)
    undone = fleet.decide(events.Tick(at_ms=fleet.now_ms, stalled_ms=59_000), False)
    fleet.disk_was_full(undone)
    undone = fleet.at(66).decide(events.Tick(at_ms=fleet.now_ms), False)
    fleet.disk_was_full(undone)
    fleet.disk_was_full()
    fleet.at(67).tick()
    expected = OutageRow(
        coordinator_id="head", began_at_ms=START_MS + 6_000, ended_at_ms=START_MS + 65_000, cause="stall"
    )
    assert [expected] == [row for row in fleet.rows.values() if isinstance(row, OutageRow)]
    puts = [write.row for write in fleet.at(68).tick().writes if isinstance(write, commands.Put)]
    assert not any(isinstance(row, OutageRow) for row in puts), "once"


@pytest.mark.parametrize("agent_returns", [False, True])
def test_an_undone_bye_stays_a_bye(agent_returns: bool) -> None:
    """Its end is decided again with its reason: nobody is charged with a failure for our disk."""
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    undone = fleet.at(6).bye(1, draining=True, durable=False)
    assert {1: CloseCode.GOING_AWAY} == closes(fleet.disk_was_full(undone)), "its close never left"
    if agent_returns:
        fleet.at(7).hello(2, process="p2")
    else:
        fleet.at(7).tick()
    row = fleet.sessions()[0]
    assert EndReason.DRAINING is row.disconnect_reason
    assert START_MS + 5_000 == row.last_heartbeat_at_ms


def test_a_provider_whose_return_was_undone_is_not_lost_for_it() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(5).beat(1)
    fleet.at(6).closed(1)
    fleet.at(7).hello(2, durable=False)
    fleet.disk_was_full()
    assert Liveness.SUSPECT is fleet.phase()
    fleet.run_to(40)
    assert Liveness.LOST is fleet.phase()


def test_no_session_id_is_used_twice_after_a_rollback() -> None:
    fleet = Fleet("a")
    fleet.hello(1, durable=False)
    fleet.disk_was_full()
    fleet.hello(2)
    assert [2] == [row.session_id for row in fleet.sessions()]


# ---- drain


def test_what_an_admin_said_of_the_return_stands_through_bye_and_blip() -> None:
    fleet = Fleet("a")
    until = START_MS + 3_600_000
    fleet.hello(1)
    fleet.decide(
        events.ProviderDrain(
            at_ms=fleet.now_ms,
            request_id=fleet.request(),
            provider_id=fleet.provider().row.provider_id,
            away_until_ms=until,
        )
    )
    fleet.at(3).closed(1)
    fleet.at(4).hello(2)
    assert until == fleet.provider().row.away_until_ms
    fleet.at(6).bye(2, draining=True)
    assert until == fleet.provider().row.away_until_ms


def test_a_revoked_credential_closes_holder_and_challenger() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.hello(2, process="p2")
    revoke = events.TokenRevoke(
        at_ms=fleet.now_ms, request_id=fleet.request(), token_id=fleet.provider().row.credential_id
    )
    assert {1: CloseCode.UNAUTHENTICATED, 2: CloseCode.UNAUTHENTICATED} == closes(fleet.decide(revoke))


# ---- events that mean nothing


def test_events_of_unknown_connections_change_nothing() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    row = fleet.provider().row
    for decision in (fleet.beat(9), fleet.pong(9), fleet.bye(9), fleet.closed(9)):
        assert commands.Decision() == decision
    assert row == fleet.provider().row


def test_time_never_goes_back() -> None:
    fleet = Fleet("a")
    fleet.at(10).tick()
    fleet.at(3).hello(1)
    assert START_MS + 10_000 == fleet.sessions()[0].connected_at_ms


def test_a_step_of_the_wall_clock_warns_and_moves_nothing() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    fleet.at(1).beat(1)
    quiet = replace(fleet.provider().row), fleet.provider().session
    decision = fleet.at(2).decide(events.Tick(at_ms=fleet.now_ms, wall_step_ms=-3_600_000))
    assert ["clock_jump"] == [note.kind for note in decision.notes if isinstance(note, commands.Warned)]
    assert quiet == (fleet.provider().row, fleet.provider().session)


def test_no_stored_time_is_ahead_of_the_stored_sign_of_life() -> None:
    """A coordinator that starts under a wall clock set back begins from `alive_at`: no session may lie ahead of it."""
    fleet = Fleet("a")
    for second, happens in ((1, fleet.hello), (3, fleet.closed)):
        fleet.at(second)
        happens(1)
        stored = [row.value for row in fleet.rows.values() if isinstance(row, MetaRow)]
        assert [str(fleet.now_ms)] == stored
