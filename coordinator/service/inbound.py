"""What agents say, from bytes to messages: every bad frame is judged here, and nothing is done about it.

What a peer sends is not trusted: it is bounded in size, number and depth. Of an array frame the messages that are
right are taken, and each of the others has its complaint.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Annotated, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from coordinator import wire
from coordinator.core import events
from coordinator.core.data.events import AttemptProgress, CacheTold
from coordinator.core.ids import AttemptId, ConnId, Digest, Ms, ProviderId, attempt_of, read_together
from coordinator.core.rows import ExitInfo, LeaseToken
from coordinator.service.tokens import digest_of

TEXT_CHARS_MAX = 128
"""Of a label, its value, and a GPU's name."""
NAMED_MAX = 64
"""Named resources of a provider."""

decode = msgspec.json.Decoder(
    wire.FromAgent | Annotated[tuple[wire.FromAgent, ...], Meta(min_length=1, max_length=wire.FRAME_MESSAGES_MAX)]
).decode
"""The everyday way: one message, or an array of them. Raises one of BAD for anything else."""
_decode_one = msgspec.json.Decoder(wire.FromAgent).decode
_split = msgspec.json.Decoder(tuple[msgspec.Raw, ...]).decode
BAD = (ValueError, RecursionError)
"""What msgspec raises for bytes that are not such a message (its errors and UnicodeDecodeError are ValueErrors)."""


class _Tag(Struct):
    type: str


_decode_tag = msgspec.json.Decoder(_Tag).decode
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in get_args(wire.FromAgent))


class _Granted(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type", tag="granted"):
    """A wire.Granted whose name nobody has looked at yet."""

    attempt: str
    rank: wire.Rank = 0
    token: LeaseToken


class _Exited(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type", tag="exited"):
    """The same of a wire.Exited."""

    attempt: str
    rank: wire.Rank = 0
    token: LeaseToken
    exit: wire.Exit


_answers_begin = (b'[{"type":"granted"', b'[{"type":"exited"')
_decode_answers = msgspec.json.Decoder(
    Annotated[tuple[_Granted | _Exited, ...], Meta(min_length=1, max_length=wire.FRAME_MESSAGES_MAX)]
).decode


_TOKEN = attrgetter("token")


class Answers(NamedTuple):
    """What a frame of acknowledgements and ends says."""

    said: list[events.LeasesHeld | events.AttemptsEnded]
    """In its order; those of a kind that stand side by side are one event."""
    messages: int
    """How many these were."""


def answers_of(data: bytes, conn_id: ConnId, at_ms: Ms) -> Answers | None:
    """A frame of acknowledgements and ends alone, the commonest of frames with many messages, at a fifth of the price
    of all others. None: it is another one, or something is wrong with it, which the everyday way says."""
    if not data.startswith(_answers_begin):
        return None
    try:
        said = _decode_answers(data)
    except BAD:
        return None
    names = read_together([one.attempt for one in said])
    if names is None or not all(map(token_is_sane, map(_TOKEN, said))):
        return None
    found: list[events.LeasesHeld | events.AttemptsEnded] = []
    named = zip(names, said, strict=True)
    alike = len(set(map(type, said))) == 1
    for kind, some in ((type(said[0]), named),) if alike else groupby(named, key=_kind_of):
        if kind is _Granted:
            held = tuple([(name, one.rank, one.token) for name, one in some])
            found.append(events.LeasesHeld(at_ms=at_ms, conn_id=conn_id, held=held))
        else:
            ended = tuple([(name, one.rank, one.token, exit_info(one.exit)) for name, one in some])
            found.append(events.AttemptsEnded(at_ms=at_ms, conn_id=conn_id, ended=ended))
    return Answers(found, len(said))


def _kind_of(named: tuple[AttemptId, _Granted | _Exited]) -> type:
    return type(named[1])


class Complaint(Struct, frozen=True):
    """What is wrong with a message. One of an unknown type is the sender's future, not its fault."""

    what: str
    hint: str = "docs/reference/wire.md describes every message"
    unknown: bool = False


def sort_out(data: bytes) -> list[wire.FromAgent | Complaint]:
    """The messages of a frame that is not right as a whole, and a complaint for each that is not."""
    parts: tuple[msgspec.Raw, ...] = (msgspec.Raw(data),)
    if data[:64].lstrip()[:1] == b"[":
        try:
            parts = _split(data)
        except BAD as error:
            return [Complaint(f"not JSON: {error}")]
        if not 1 <= len(parts) <= wire.FRAME_MESSAGES_MAX:
            return [Complaint(f"an array of {len(parts)} messages", f"send 1 to {wire.FRAME_MESSAGES_MAX}")]
    return [_sorted(part) for part in parts]


def _sorted(part: msgspec.Raw) -> wire.FromAgent | Complaint:
    try:
        message: wire.FromAgent = _decode_one(part)
        return message
    except BAD as error:
        try:
            tag = _decode_tag(part).type
        except BAD:
            tag = ""
        if tag and tag not in _KNOWN:
            return Complaint(f"unknown message type {tag[:64]!a}", "it was ignored", unknown=True)
        return Complaint(str(error))


def problem_of(hello: wire.Hello) -> str:
    """What is wrong with a hello beyond its types; empty when nothing is."""
    resources = hello.resources
    if len(hello.labels) > wire.LABELS_MAX:
        return f"{len(hello.labels)} labels; at most {wire.LABELS_MAX} are taken"
    if "" in hello.labels:
        return "a label without a name"
    if len(resources.gpus) > wire.GPUS_MAX:
        return f"{len(resources.gpus)} GPUs; at most {wire.GPUS_MAX} are taken"
    if len(resources.named) > NAMED_MAX or "" in resources.named:
        return f"resources.named has at most {NAMED_MAX} entries, each with a name"
    if not (0 <= resources.cpus <= 1e6 and 0 <= resources.memory_gb <= 1e9):
        return "resources.cpus and resources.memory_gb must lie in 0 to 1e6 and 0 to 1e9"
    if not all(0 <= amount <= 1e9 for amount in resources.named.values()):
        return "amounts of resources.named must lie in 0 to 1e9"
    if not 0 <= hello.promises.prefetch <= wire.ATTEMPTS_MAX:
        return f"promises.prefetch must lie in 0 to {wire.ATTEMPTS_MAX}"
    if not 0 <= hello.promises.disk_bytes <= wire.DISK_BYTES_MAX:
        return f"promises.disk_bytes must lie in 0 to {wire.DISK_BYTES_MAX}"
    named = (hello.machine_id, hello.boot_id, hello.process_id, hello.agent_version)
    for text in (*named, *hello.labels, *hello.labels.values(), *resources.gpus, *resources.named):
        if len(text) > TEXT_CHARS_MAX or not text.isprintable():
            return f"{text[:32]!a}: texts have at most {TEXT_CHARS_MAX} printable characters"
    if not all(token_is_sane(held.token) for held in hello.attempts):
        return "a token beyond its bounds"
    if len({(held.attempt, held.rank) for held in hello.attempts}) != len(hello.attempts):
        return "an attempt is named twice"
    return ""


# ---- as events


OfAttempt = wire.Granted | wire.Refused | wire.Phase | wire.Exited | wire.Progress
"""What an agent says of an attempt."""


def event_of(message: OfAttempt, conn_id: ConnId, at_ms: Ms) -> events.AttemptEvent:
    """What the core is told. The message's types were checked; `token_is_sane` is asked before."""
    attempt_id = attempt_of(message.attempt)
    rank, token = message.rank, message.token
    match message:
        case wire.Granted():
            return events.AgentGranted(at_ms=at_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token)
        case wire.Refused():
            return events.AgentRefused(
                at_ms=at_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, why=message.why
            )
        case wire.Phase():
            return events.AttemptPhase(
                at_ms=at_ms,
                conn_id=conn_id,
                attempt_id=attempt_id,
                rank=rank,
                token=token,
                phase=message.phase,
                ran_ms=message.ran_ms,
            )
        case wire.Exited():
            return events.AttemptExited(
                at_ms=at_ms,
                conn_id=conn_id,
                attempt_id=attempt_id,
                rank=rank,
                token=token,
                exit=exit_info(message.exit),
            )
        case wire.Progress():
            return AttemptProgress(
                at_ms=at_ms,
                conn_id=conn_id,
                attempt_id=attempt_id,
                rank=rank,
                token=token,
                fraction=message.fraction,
                values=tuple((_printable(name), _printable(value)) for name, value in message.values.items()),
                text=_printable(message.text),
            )


def cache_of(message: wire.Cached, conn_id: ConnId, at_ms: Ms) -> CacheTold:
    return CacheTold(at_ms=at_ms, conn_id=conn_id, digests=tuple(map(Digest, message.digests)))


def _printable(text: str) -> str:
    """What a program said of itself, fit for a terminal: it is no fault of the agent that passes it on."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def hello_of(
    hello: wire.Hello,
    provider_id: ProviderId,
    conn_id: ConnId,
    peer: str,
    fresh_resume_digest: str,
    works: bool,
    at_ms: Ms,
) -> events.AgentHello:
    """A hello, said by the agent of this provider. One whose version knows no work promises none and holds none."""
    return events.AgentHello(
        at_ms=at_ms,
        conn_id=conn_id,
        provider_id=provider_id,
        machine_id=hello.machine_id,
        boot_id=hello.boot_id,
        process_id=hello.process_id,
        agent_version=hello.agent_version,
        peer=peer,
        fresh_resume_digest=fresh_resume_digest,
        resume_digest=digest_of(hello.resume_key) if hello.resume_key else "",
        resources=hello.resources,
        labels=hello.labels,
        promises=replace(hello.promises, work=works),
        attempts=tuple(held_of(held) for held in hello.attempts) if works else (),
    )


def held_of(held: wire.HeldAttempt) -> events.HeldAttempt:
    """An attempt of a hello."""
    return events.HeldAttempt(
        attempt_id=attempt_of(held.attempt),
        rank=held.rank,
        token=held.token,
        phase=held.phase,
        exit=exit_info(held.exit) if held.exit is not None else None,
    )


def token_is_sane(token: LeaseToken) -> bool:
    """Whether it is within what can be stored and recorded: JSON's numbers know no bound."""
    return 0 <= token.generation < 2**32 and 0 <= token.number < 2**63


def exit_info(said: wire.Exit) -> ExitInfo:
    return ExitInfo(
        cause=said.cause,
        code=said.code,
        signal=said.signal,
        text=said.text,
        ran_ms=said.ran_ms,
        lived_ms=said.lived_ms,
        out_bytes=said.out_bytes,
        err_bytes=said.err_bytes,
        dropped_bytes=said.dropped_bytes,
        memory_max=said.memory_max,
        cpu_ms=said.cpu_ms,
    )
