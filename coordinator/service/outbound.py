"""What the core wants an agent to be told, as messages of the wire. Pure; the welcome and the close are the link's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator import wire
from coordinator.core import commands
from coordinator.core.ids import AttemptId, dotted
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import task_numbers
from coordinator.runtimes import RUNTIMES, SHARED
from coordinator.runtimes.plain import ARRAY_INDEX

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


LARGE_BYTES = 16 * 1024
"""Of what a step brings along into its orders to launch. Shorter ones are made and sent by the thousand at once."""


def is_large(order: commands.Launch) -> bool:
    """Whether this order may be long: by its input, its arguments, its environment, its patterns, or what a task fills
    into them, which is 4 kB at most for a placeholder and far less as a rule."""
    step = order.step
    texts = (step.stdin, step.directory, *step.command, *[value for _, value in step.env], *step.outputs)
    size = sum(map(len, texts)) + sum(map(len, order.passed_on))
    if step.items or step.matrix:
        size += 256 * sum([text.count("{") for text in texts])
    return size > LARGE_BYTES


# ---- what many messages have in common, encoded once

_encode = msgspec.json.Encoder().encode
_NOBODY = LeaseToken(0, 0)
_OF_ONE = b'"@","rank":0,"token":[0,0]'
"""What is another thing in each of them."""
_INDEX = ARRAY_INDEX.encode()
_NUMBER = _encode((ARRAY_INDEX, ""))
"""The number of an array's task, as its environment has it."""


def grants_to_wire(message: commands.Grants) -> list[bytes]:
    """A wire.Grant of each lease, encoded."""
    like = wire.Grant(
        attempt="@",
        rank=0,
        token=_NOBODY,
        term_s=message.term_ms / 1_000,
        share=message.share,
        prefetched=message.prefetched,
    )
    return _each(*_parted(like, _OF_ONE), message.leases)


def settlements_to_wire(message: commands.Settlements) -> list[bytes]:
    """A wire.Settled of each, encoded."""
    return _each(*_parted(wire.Settled(attempt="@", rank=0, token=_NOBODY), _OF_ONE), message.leases)


def launches_to_wire(message: commands.Launches) -> list[bytes]:
    """A wire.Launch of each, encoded. Raises what `to_wire` does."""
    like, leases = message.like, message.leases
    known = SHARED[like.step.runtime](like) if len(leases) > 1 else None
    if known is None:
        return [_encode(to_wire(order)) for order in message.each()]
    plan = known.numbered_as("") if known.numbered else known.plan
    begin, end = _parted(wire.Launch(attempt="@", rank=0, token=_NOBODY, plan=plan), _OF_ONE)
    if not known.numbered:
        return _each(begin, end, leases)
    if end.count(_NUMBER) != 1:  # an argument list that reads like it
        return [_encode(to_wire(order)) for order in message.each()]
    middle, end = end.split(_NUMBER)
    step = known.step
    numbers = task_numbers(step, [attempt_id[2] for attempt_id, _ in leases])
    middle, end = b'%s["%s","' % (middle, _INDEX), b'"]%s' % end
    return [
        b'%s"%d.%d.%d.%d","rank":0,"token":[%d,%d]%s%d%s'
        % (begin, *attempt_id, token.generation, token.number, middle, number, end)
        for (attempt_id, token), number in zip(leases, numbers, strict=True)
    ]


def _parted(like: wire.FromCoordinator, at: bytes) -> tuple[bytes, bytes]:
    """What stands before and behind its first `at`: nothing that anybody wrote stands before it."""
    begin, _, end = _encode(like).partition(at)
    return begin, end


def _each(begin: bytes, end: bytes, leases: Sequence[tuple[AttemptId, LeaseToken]]) -> list[bytes]:
    return [
        b'%s"%d.%d.%d.%d","rank":0,"token":[%d,%d]%s' % (begin, *attempt_id, token.generation, token.number, end)
        for attempt_id, token in leases
    ]
