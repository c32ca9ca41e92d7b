"""What the core wants an agent to be told, as messages of the wire. Pure; the welcome and the close are the link's."""

from __future__ import annotations

from coordinator import wire
from coordinator.core import commands
from coordinator.core.ids import dotted
from coordinator.runtimes import RUNTIMES

Work = (
    commands.Grant
    | commands.Launch
    | commands.StopAttempt
    | commands.Settled
    | commands.Renew
    | commands.Warm
    | commands.SaveState
)
Plain = commands.PingAgent | commands.TellInterval | commands.TellDrain | Work


def to_wire(message: Plain) -> wire.FromCoordinator:
    """The message as an agent hears it. CoordError(BAD_JOB) when a runtime cannot make a plan of a launch."""
    match message:
        case commands.Grant():
            return wire.Grant(
                attempt=dotted(message.attempt_id),
                rank=message.rank,
                token=message.token,
                term_s=message.term_ms / 1_000,
                share=message.share,
                prefetched=message.prefetched,
            )
        case commands.Launch():
            return wire.Launch(
                attempt=dotted(message.attempt_id),
                rank=message.rank,
                token=message.token,
                plan=RUNTIMES[message.step.runtime](message),
            )
        case commands.PingAgent():
            return wire.Ping()
        case commands.TellInterval():
            return wire.Settings(heartbeat_interval_s=message.heartbeat_interval_ms / 1_000)
        case commands.TellDrain():
            return wire.Drain(draining=message.draining, note=message.note)
        case commands.StopAttempt():
            return wire.Stop(
                attempt=dotted(message.attempt_id),
                token=message.token,
                why=message.why,
                grace_s=message.grace_ms / 1_000,
                unbegun=message.unbegun,
            )
        case commands.Settled():
            return wire.Settled(attempt=dotted(message.attempt_id), rank=message.rank, token=message.token)
        case commands.Renew():
            leases = tuple(
                wire.Renewal(attempt=dotted(term.attempt_id), token=term.token, term_s=term.term_ms / 1_000)
                for term in message.terms
            )
            return wire.Renew(seq=message.seq, leases=leases)
        case commands.Warm():
            return wire.Warm(attempt=dotted(message.attempt_id), rank=message.rank)
        case commands.SaveState():
            return wire.Save(attempt=dotted(message.attempt_id), token=message.token, why=message.why)
