"""What happens between agents, an admin and a coordinator, told as transcripts (see transcript.py)."""

from __future__ import annotations

from tests.scenarios.transcript import check


def test_a_blip_of_two_seconds() -> None:
    """The session ends when its socket broke; the stay goes on."""
    check("""
0 enrol a
    0: granted
    0: a is never_seen
0 hello a 1 p1
    0: a is online
    0: -> 1: welcome to session 1
until 5 beating 1
6 closed 1
    6: session 1 ended at 6: read_error
    6: a is suspect
8 hello a 2 p1 key key-1
    8: a is online
    8: -> 2: welcome to session 2
until 10 beating 2
""")


def test_a_half_open_socket() -> None:
    """Nothing arrives and nothing breaks: pinged, suspected, lost, and ended where it was last heard."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
until 40
    11: -> 1: ping
    15: a is suspect
    35: session 1 ended at 10: stale_heartbeat
    35: a is lost
    35: -> 1: close lost
41 hello a 2 p1 key key-1
    41: a is online
    41: -> 2: welcome to session 2
""")


def test_lost_no_sooner_than_a_gap_that_ends_a_stay() -> None:
    """Between two ticks: back at once after it was called lost is back after the whole time. A tick sooner, and the
    next session would go on with a stay that was over, and nobody would have failed."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5
5.1 beat 1
6 tick
until 35
    11: -> 1: ping
    15: a is suspect
35.25 tick
    35.25: session 1 ended at 10.1: stale_heartbeat
    35.25: a is lost
    35.25: -> 1: close lost
""")


def test_gone_for_less_is_not_lost() -> None:
    """The same where the socket broke: lost when the stay is over, not a tick before."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5
5.1 beat 1
5.1 closed 1
    5.1: session 1 ended at 5.1: read_error
    5.1: a is suspect
6 tick
until 35
35.25 tick
    35.25: a is lost
""")


def test_a_duplicate_identity_is_refused() -> None:
    """A copied disk claims the identity while its holder lives: it stays out, and both are shown."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
7 hello a 2 p2
    7: -> 1: ping
8 pong 1
    8: -> 2: close duplicate
until 15 beating 1
""")


def test_an_old_dead_connection_is_superseded() -> None:
    """The agent was restarted behind a socket that nobody closed: five silent seconds, then it is in."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 7 beating 1
7 hello a 2 p2
    7: -> 1: ping
until 13
    11: -> 1: ping
    12: session 1 ended at 10: agent_restart
    12: a is suspect
    12: a is online
    12: -> 1: close superseded
    12: -> 2: welcome to session 2
""")


def test_the_key_supersedes_at_once() -> None:
    """The same process comes over another network while its old socket still looks alive."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
7 hello a 2 p1 key key-1
    7: session 1 ended at 7: superseded
    7: a is suspect
    7: a is online
    7: -> 1: close superseded
    7: -> 2: welcome to session 2
9 closed 1
until 10 beating 2
""")


def test_a_restart_with_the_same_and_with_another_agent() -> None:
    """Killed, back after ten minutes: one goes on, one was restarted meanwhile, one never comes."""
    check("""
0 new a b c
0 a joins as 1 p1 in session 1
0 b joins as 2 q1 in session 2
0 c joins as 3 r1 in session 3
until 61 beating 1 2 3
660 serves again
    660: unobserved since 61 (restart)
    660: a is awaited
    660: b is awaited
    660: c is awaited
until 662
662 hello a 4 p1
    662: a is online
    662: -> 4: welcome back to session 1
until 663
663 hello b 5 q2
    663: session 2 ended at 60: coordinator_restart
    663: b is lost
    663: b is online
    663: -> 5: welcome to session 4
until 725 beating 4 5
    720: session 3 ended at 60: coordinator_restart
    720: c is lost
""")


def test_a_planned_stop() -> None:
    """Agents are told; the sockets that close then are nobody's failure."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
6 stopping
    6: -> 1: close going_away
6.2 closed 1
12 serves again
    12: unobserved since 6 (restart)
    12: a is awaited
14 hello a 2 p1
    14: a is online
    14: -> 2: welcome back to session 1
""")


def test_a_stall() -> None:
    """We stood still for forty seconds: one lived on, one gave up and came back, nobody is judged."""
    check("""
0 new a b
0 a joins as 1 p1 in session 1
0 b joins as 2 q1 in session 2
until 5 beating 1 2
46 closed 2
    46: session 2 ended at 10: read_error
    46: b is suspect
46 hello b 3 q1 key key-2
    46: b is online
    46: -> 3: welcome to session 3
46 beat 1
46 stalled 40
    46: unobserved since 5.25 (stall)
until 50 beating 1 3
""")


def test_a_full_disk() -> None:
    """What was decided while the disk was full is undone, and decided again as it was."""
    check("""
0 new a b c
0 a joins as 1 p1 in session 1
0 b joins as 2 q1 in session 2
until 5 beating 1 2
6 disk full
6 bye 2 draining
    6: session 2 ended at 6: draining
    6: b is away
    6: -> 2: close going_away
6 c joins as 3 r1 in session 3
7 rolled back
    7: b is suspect
    7: c is never_seen
    7: -> 3: close going_away
    7: -> 2: close going_away
until 10 beating 1
    8: session 2 ended at 6: draining
    8: b is away
11 c joins as 4 r1 in session 4
""")


def test_drain_and_return() -> None:
    """Drained by hand, it leaves, comes back drained, and takes work again when it is told to."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
6 drain a
    6: granted
    6: a is online, drained
    6: -> 1: drain
7 bye 1 draining
    7: session 1 ended at 7: draining
    7: a is away, drained
    7: -> 1: close going_away
20 hello a 2 p2
    20: a is online, drained
    20: -> 2: welcome to session 2
21 resume a
    21: granted
    21: a is online
    21: -> 2: take work again
""")


def test_forgotten_while_connected() -> None:
    """Its connection is closed and its identity is gone; a hello of it is turned away."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
6 forget a
    6: granted
    6: session 1 ended at 6: superseded
    6: a is suspect
    6: a is forgotten
    6: -> 1: close forgotten
6.1 closed 1
8 hello a 2 p1 key key-1
    8: -> 2: close forgotten
9 enrol a
    9: granted
    9: a is never_seen
10 a joins as 3 p1 in session 2
""")


def test_challenged_while_the_old_link_closes() -> None:
    """The newcomer waits for the answer of a socket that breaks meanwhile: it is in at once."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 5 beating 1
7 hello a 2 p2
    7: -> 1: ping
8 closed 1
    8: session 1 ended at 8: agent_restart
    8: a is suspect
    8: a is online
    8: -> 2: welcome to session 2
until 9 beating 2
""")


def test_challenged_while_the_old_session_is_lost() -> None:
    """Silent for 28 s when the newcomer comes: at 30 s the old one is lost and the new one is in."""
    check("""
0 new a
0 a joins as 1 p1 in session 1
until 28
    6: -> 1: ping
    10: a is suspect
28 hello a 2 p2
    28: -> 1: ping
until 31
    30: session 1 ended at 5: stale_heartbeat
    30: a is lost
    30: a is online
    30: -> 1: close lost
    30: -> 2: welcome to session 2
""")
