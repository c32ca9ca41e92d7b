"""`coord agent status`: what the agent of this machine says of itself."""

from __future__ import annotations

import pytest

from cli.agent import print_status
from coordinator.agent.standing import AgentStatus
from coordinator.agent.trace_spool import TraceStatus


@pytest.mark.parametrize(
    ("traces", "said"),
    [
        (TraceStatus(sent_parts=1), "1 part sent, 0 B waiting"),
        (
            TraceStatus(sent_parts=7, waiting_bytes=2048, rejected_rows=2, refused_parts=1, dropped_parts=3),
            "7 parts sent, 2 KiB waiting, 2 rows rejected, 1 part refused, 3 parts dropped here",
        ),
    ],
)
def test_traces_that_did_not_arrive_are_said_with_who_refused_them(
    capsys: pytest.CaptureFixture[str], traces: TraceStatus, said: str
) -> None:
    found = AgentStatus(
        phase="connected",
        provider_id="here",
        coordinator="http://127.0.0.1:1",
        process_id="p",
        keeper_pid=1,
        daemon_pid=2,
        daemons=1,
        session_id=None,
        draining=False,
        drain_note="",
        heartbeat_interval_s=None,
        heartbeats_sent=0,
        last_ack_age_s=None,
        clock_offset_ms=None,
        clock_bound_ms=None,
        next_try_in_s=None,
        away_until_ms=None,
        last_problem="",
        traces=traces,
    )
    print_status(found, "table")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("traces")]
    assert said == line.removeprefix("traces").strip()
