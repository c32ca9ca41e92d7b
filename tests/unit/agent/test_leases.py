"""The lease clock: a term never ends later than the coordinator thinks, whatever was delayed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.agent.leases import REMEMBERED_MAX, LeaseClock, freeze_at_s


def test_a_grant_counts_from_the_last_acknowledged_heartbeat() -> None:
    """Before the first from the hello; an acknowledgement of an older one takes nothing back."""
    clock = LeaseClock()
    clock.hello_sent(100.0)
    assert clock.heard_s() == 100.0
    for seq, at_s in ((1, 101.0), (2, 106.0), (3, 111.0)):
        clock.beat_sent(seq, at_s)
    clock.acked(2)
    assert clock.heard_s() == 106.0
    clock.acked(1)
    clock.acked(99)
    assert clock.heard_s() == 106.0
    assert freeze_at_s(clock.heard_s(), 30.0) == 131.0


def test_only_what_was_sent_on_this_connection_renews() -> None:
    """A new hello forgets the old heartbeats; 0 is the hello itself."""
    clock = LeaseClock()
    clock.hello_sent(100.0)
    clock.beat_sent(7, 101.0)
    assert clock.renewed(7) == 101.0
    clock.hello_sent(200.0)
    assert (clock.renewed(7), clock.renewed(0), clock.renewed(8)) == (None, 200.0, None)
    assert (clock.heard_s(), clock.renewed_seq) == (200.0, 7)


def test_old_heartbeats_are_forgotten() -> None:
    """A process that lives for years remembers the last few; the hello goes first."""
    clock = LeaseClock()
    clock.hello_sent(0.0)
    for seq in range(1, REMEMBERED_MAX + 1):
        clock.beat_sent(seq, float(seq))
    assert (clock.renewed(0), clock.renewed(1)) == (None, 1.0)


@given(
    delays=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=30),
    term_s=st.floats(1, 900),
)
def test_the_agent_freezes_before_the_coordinator_counts_the_lease_as_over(
    delays: list[tuple[float, float]], term_s: float
) -> None:
    """Heartbeats take any time to arrive, and renewals any time to come back: with clocks that run alike the freeze
    lies a sixth of the term before the end that the coordinator counts from receipt."""
    clock = LeaseClock()
    clock.hello_sent(0.0)
    sent_s = 0.0
    for seq, (there_s, _back_s) in enumerate(delays, start=1):
        sent_s += 5.0
        clock.beat_sent(seq, sent_s)
        counted_s = clock.renewed(seq)
        assert counted_s is not None
        assert freeze_at_s(counted_s, term_s) <= sent_s + there_s + term_s * 5 / 6 + 1e-9
