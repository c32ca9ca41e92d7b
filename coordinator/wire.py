"""Messages between agent and coordinator: JSON text frames, one message or an array of them a frame.

The contract with agents in any language; docs/reference/wire.md tells it in words. Unknown fields are
ignored. Times are Unix milliseconds, lengths of time are in the unit that their name ends in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from coordinator.core.rows import Resources

VERSIONS = (1,)
"""Protocol versions that this coordinator and this agent speak, best last."""
CONNECT_PATH = "/v1/agents/connect"
ENROL_PATH = "/v1/providers/enrol"
FRAME_BYTES_MAX = 64 * 1024
"""Of a text frame from an agent."""
FRAME_MESSAGES_MAX = 64
"""Messages in one array frame."""
LABELS_MAX = 64
GPUS_MAX = 64

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Moment = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""A time of an agent's that is kept and shown: no later than the year 9999, which is as far as text goes."""
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=128)]
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
    attempts: Annotated[tuple[Name, ...], Meta(max_length=1024)] = ()
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


FromAgent = Hello | Heartbeat | Pong | Bye


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


FromCoordinator = Welcome | Ack | Ping | Settings | Drain | Error


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
