"""Messages between agent and coordinator: JSON text frames, one message or an array of them a frame.

The contract with agents in any language; docs/reference/wire.md tells it in words. Unknown fields are
ignored. Times are Unix milliseconds, lengths of time are in the unit that their name ends in.
"""

from __future__ import annotations

import struct as _struct
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from coordinator.core.amounts import Share as Held
from coordinator.core.ids import AttemptId, JobId
from coordinator.core.rows import EndCause, LeaseToken, Promises, Resources
from coordinator.core.work.launch_plan import LaunchPlan

VERSIONS = (1, 2)
"""Protocol versions that this coordinator and this agent speak, best last. From 2 on an agent runs attempts; one that
speaks 1 is never granted any."""
CONNECT_PATH = "/v1/agents/connect"
ENROL_PATH = "/v1/providers/enrol"
FRAME_BYTES_MAX = 288 * 1024
"""Of a frame from an agent, text or binary."""
LOG_BYTES_MAX = 256 * 1024
"""Of a log's bytes in one binary frame."""
LOG_WINDOW_BYTES = 4 * 1024 * 1024
"""Bytes of one stream that an agent sends ahead of their acknowledgement."""
LOG_CONNECTION_BYTES = 8 * 1024 * 1024
"""The same over all streams of a connection: what the coordinator may have to hold while its disk is full."""
LOG_UNWANTED = 2**53
"""A `log_ack` with this offset: nothing of the stream is wanted any more."""
FREEZE_SHARE = 5 / 6
"""An agent freezes an attempt when so much of its lease's term went by without a renewal."""
KEPT_FROZEN_S = 24 * 3600.0
"""A frozen attempt is killed after this."""
ATTEMPTS_MAX = 1_024
"""That an agent may hold."""
DISK_BYTES_MAX = 1 << 62
"""That an agent may say its disk has."""
FRAME_MESSAGES_MAX = 64
"""Messages in one array frame."""
LABELS_MAX = 64
GPUS_MAX = 64
NAMED_MAX = 64

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""A time of an agent's that is kept and shown: no later than the year 9999, which is as far as text goes."""
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=128)]
AttemptName = Annotated[str, Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,9}){3}\Z")]
"""`JOB.STEP.TASK.ATTEMPT`. What this lets in `ids.attempt_of` takes: no digit of another script, no line end."""
Rank = Annotated[int, Meta(ge=0, lt=65_536)]
Status = Literal["starting", "idle", "busy", "draining", "error"]
Thermal = Literal["nominal", "fair", "serious", "critical"]
"""Ordered: each is worse than the one before."""
STATUSES: tuple[Status, ...] = ("starting", "idle", "busy", "draining", "error")
THERMALS: tuple[Thermal, ...] = ("nominal", "fair", "serious", "critical")


class Message(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type"):
    """Anything that a frame carries."""


# ---- from the agent


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The first message on a connection."""

    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=16)]
    provider_id: Name
    machine_id: Name
    boot_id: Text = ""
    process_id: Text = ""
    """Of this run of the agent: the same one may take its session up again after a restart of the coordinator."""
    agent_version: Text = ""
    resume_key: Text = ""
    """From the last welcome that this process received."""
    resources: Resources = Resources()
    labels: dict[str, str] = {}
    promises: Promises = Promises()
    """Version 2, like what follows. `work` is set by the coordinator: by the version."""
    attempts: Annotated[tuple[HeldAttempt, ...], Meta(max_length=ATTEMPTS_MAX)] = ()
    """Every attempt that this agent holds in any phase. One that is missing has ended here, or never arrived."""


class Exit(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How a rank ended: rows.ExitInfo, bounded."""

    cause: EndCause
    code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=128)] | None = None
    text: Annotated[str, Meta(max_length=1000)] = ""
    ran_ms: Count = 0
    lived_ms: Count = 0
    out_bytes: Count = 0
    err_bytes: Count = 0
    dropped_bytes: Count = 0
    memory_max: Count = 0
    cpu_ms: Count = 0


class HeldAttempt(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One attempt in a hello."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken
    phase: Literal["leased", "staging", "running", "frozen", "uploading", "exited"]
    exit: Exit | None = None


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """How the provider is. `seq` rises with every heartbeat of a process; an old one is a duplicate."""

    seq: Count
    sent_at_ms: Count = 0
    status: Status = "idle"
    memory_pressure: Share | None = None
    cpu_usage: Share | None = None
    thermal_state: Thermal | None = None
    memory_available_gb: Amount | None = None
    gpu_memory_active_gb: Amount | None = None
    gpu_memory_cache_gb: Amount | None = None
    backend_state: Text | None = None
    active_model: Text | None = None
    capacity: Amount | None = None
    attempts: Annotated[tuple[AttemptName, ...], Meta(max_length=ATTEMPTS_MAX)] = ()
    """What runs or is frozen here, or waits for the order to launch: what is to be renewed."""
    renewed_seq: Count = 0
    """Of the last renewal that arrived."""
    requests_served: Count = 0
    tokens_generated: Count = 0
    clock_offset_ms: float | None = None
    """Coordinator's clock minus ours, as estimated from acknowledgements."""
    clock_bound_ms: Amount | None = None
    """The estimate is off by at most this."""


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to a ping message."""


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """The agent leaves on purpose and waits for the close."""

    draining: bool = False
    away_until_ms: Moment | None = None


class Granted(Message, frozen=True, kw_only=True, tag="granted"):
    """The lease is held: launch when you like."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The grant is not taken, and nothing was started."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken
    why: Annotated[str, Meta(max_length=500)]


class Phase(Message, frozen=True, kw_only=True, tag="phase"):
    """The attempt runs, or is frozen, or runs again; its inputs are fetched before, its outputs are sent after."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken
    phase: Literal["staging", "running", "frozen", "uploading"]
    ran_ms: Count = 0
    """How long its program has been there when this is said."""


class Exited(Message, frozen=True, kw_only=True, tag="exited"):
    """No process of it is left. Said again on every connection until it is settled."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken
    exit: Exit


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """How far the program says that it is. At most one a second and attempt; the newest one counts."""

    attempt: AttemptName
    rank: Rank = 0
    token: LeaseToken
    fraction: Share | None = None
    values: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=64)]], Meta(max_length=16)
    ] = {}
    text: Annotated[str, Meta(max_length=200)] = ""


class Cached(Message, frozen=True, kw_only=True, tag="cached"):
    """What the cache holds, the most useful first: replaces what was said before. Said after a welcome and when it has
    changed, at most every ten seconds."""

    digests: Annotated[tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")], ...], Meta(max_length=512)]


FromAgent = Hello | Heartbeat | Pong | Bye | Granted | Refused | Phase | Exited | Progress | Cached


# ---- from the coordinator


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The session is open. Keep `resume_key` in memory alone: it proves that a later connection is you."""

    version: int
    provider_id: str
    session_id: int
    resumed: bool
    resume_key: str
    heartbeat_interval_s: float
    lost_after_s: float
    draining: bool
    coordinator_id: str
    coordinator_version: str
    now_ms: int


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Every heartbeat up to `seq` was received. Cumulative, at most four a second a connection."""

    seq: int
    received_at_ms: float
    """When the heartbeat `seq` was received, on the coordinator's clock."""
    held_ms: float
    """How long ago that was when this acknowledgement was sent."""


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Answer with a pong at once."""


class Settings(Message, frozen=True, kw_only=True, tag="settings"):
    """From now on heartbeats come at this interval."""

    heartbeat_interval_s: float


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """The provider is drained (`draining` true) or takes work again."""

    draining: bool
    note: str = ""


class Error(Message, frozen=True, kw_only=True, tag="error"):
    """What you sent was refused; the connection goes on unless a close follows."""

    code: str
    message: str
    hint: str = ""


class Grant(Message, frozen=True, kw_only=True, tag="grant"):
    """A lease for `term_s` from the send time of your last acknowledged heartbeat (before the first: of your hello).

    Store it, answer `granted`, start nothing. A token below one that you have seen for this task, or of a lower
    generation than you have ever seen, is refused.
    """

    attempt: str
    rank: int
    token: LeaseToken
    term_s: float
    share: Held
    prefetched: bool = False
    """It has no room of its own: once ordered to launch, start it when what you run leaves room for its share, in the
    order of tokens among those that were granted so."""


class Launch(Message, frozen=True, kw_only=True, tag="launch"):
    """Start it now, once: a repeated order for what runs or ran here changes nothing."""

    attempt: str
    rank: int
    token: LeaseToken
    plan: LaunchPlan


class Stop(Message, frozen=True, kw_only=True, tag="stop"):
    """End it, all of it, and say that it exited. What was only leased is forgotten and said to have exited too."""

    attempt: str
    token: LeaseToken
    why: str
    grace_s: float = 10.0
    unbegun: bool = False
    """Only if it was not started: else say its phase."""


class Settled(Message, frozen=True, kw_only=True, tag="settled"):
    """Its end is stored: when its log is acknowledged too, nothing of it needs to be kept."""

    attempt: str
    rank: int
    token: LeaseToken


class Renewal(Struct, frozen=True, gc=False, kw_only=True):
    attempt: str
    token: LeaseToken
    term_s: float


class Renew(Message, frozen=True, kw_only=True, tag="renew"):
    """These leases hold for their term from the moment you sent heartbeat `seq` (0: your hello). Thaw what is frozen
    and named with its token; what is not named is not renewed."""

    seq: int
    leases: tuple[Renewal, ...]


class Warm(Message, frozen=True, kw_only=True, tag="warm"):
    """Fetch the inputs of this attempt into your cache, if you have room: it may be granted to you soon."""

    attempt: str
    rank: int


class Save(Message, frozen=True, kw_only=True, tag="save"):
    """Have the program take a checkpoint now."""

    attempt: str
    token: LeaseToken
    why: str


class LogAck(Message, frozen=True, kw_only=True, tag="log_ack"):
    """Every byte of this stream below `offset` is stored; the next one to send is that one."""

    attempt: str
    rank: int
    stream: int
    offset: int


FromCoordinator = (
    Welcome | Ack | Ping | Settings | Drain | Error | Grant | Launch | Stop | Settled | Renew | LogAck | Warm | Save
)


# ---- binary frames: a log's bytes behind a fixed header, big-endian

LOG_FRAME = 1
"""First byte of a frame that carries log bytes."""
_LOG_HEADER = _struct.Struct("!BBHIQIIIIQQ")
LOG_HEADER_BYTES = _LOG_HEADER.size
STREAMS = ("stdout", "stderr")


class LogChunk(NamedTuple):
    """Bytes [offset, offset + len(data)) of one stream of one rank."""

    attempt_id: AttemptId
    rank: int
    stream: int
    """Index into STREAMS."""
    token: LeaseToken
    offset: int
    data: bytes


def log_frame(chunk: LogChunk) -> bytes:
    """kind u8, stream u8, rank u16, reserved u32, job u64, step u32, task u32, attempt u32, token generation u32,
    token number u64, offset u64, then the bytes."""
    job, step, task, attempt = chunk.attempt_id
    head = _LOG_HEADER.pack(
        LOG_FRAME,
        chunk.stream,
        chunk.rank,
        0,
        job,
        step,
        task,
        attempt,
        chunk.token.generation,
        chunk.token.number,
        chunk.offset,
    )
    return head + chunk.data


def log_chunk(frame: bytes) -> LogChunk:
    """What `log_frame` made. ValueError for anything else."""
    if len(frame) < LOG_HEADER_BYTES or len(frame) > LOG_HEADER_BYTES + LOG_BYTES_MAX:
        raise ValueError(f"a log frame of {len(frame)} bytes")
    kind, stream, rank, _, job, step, task, attempt, generation, number, offset = _LOG_HEADER.unpack_from(frame)
    if kind != LOG_FRAME or stream >= len(STREAMS) or offset > 2**53:
        raise ValueError("no log frame")
    data = bytes(frame[LOG_HEADER_BYTES:])
    return LogChunk((JobId(job), step, task, attempt), rank, stream, LeaseToken(generation, number), offset, data)


# ---- enrolment, over HTTP


class EnrolRequest(Struct, frozen=True, kw_only=True):
    """Body of POST /v1/providers/enrol, sent with a join token."""

    provider_id: Name
    machine_id: Name
    pool: Name | None = None


class EnrolAnswer(Struct, frozen=True, kw_only=True):
    """The identity, and the credential that opens its connections. It is shown once."""

    provider_id: str
    pool: str
    credential: str
