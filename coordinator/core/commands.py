"""What we may do: the parts of a Decision. Nothing here is done by the core.

Order of carrying out: writes, and when they are durable replies and sends, then notes.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct, field

from coordinator.core.errors import CoordError
from coordinator.core.ids import ConnId, Ms, PoolName, ProviderId, RequestId, SessionId
from coordinator.core.rows import EndReason, PoolRow, ProviderRow, Row, SessionRow, TokenRow
from coordinator.core.snapshot import ProviderView

# ---- writes


class Put(Struct, frozen=True, gc=False):
    """Insert or replace the row with this key."""

    row: Row


class Delete(Struct, frozen=True, gc=False):
    """Remove the row with this key, if it is there. `table` and `key` as of rows.row_key."""

    table: str
    key: object


Write = Put | Delete


# ---- replies


class Enrolled(Struct, frozen=True, gc=False, kw_only=True):
    """The identity is granted: the service hands out the credential whose digest the event carried."""

    provider: ProviderRow


Result = Enrolled | ProviderView | TokenRow | PoolRow | None


class Reply(Struct, frozen=True):
    """The answer to the caller that waits as `request_id`."""

    request_id: RequestId
    result: Result | CoordError


# ---- sends: what goes to an agent. `wire` has the frames.


class CloseCode(IntEnum):
    """WebSocket close codes of ours (docs/reference/wire.md says what an agent should do on each)."""

    GOING_AWAY = 1001
    BAD_FRAME = 4400
    UNAUTHENTICATED = 4401
    MACHINE_MISMATCH = 4403
    FORGOTTEN = 4404
    HELLO_TIMEOUT = 4408
    DUPLICATE = 4409
    SUPERSEDED = 4410
    TOO_FAST = 4429
    LOST = 4430
    VERSION = 4426


class Welcome(Struct, frozen=True, gc=False, kw_only=True):
    """The session is open, or goes on. The service adds the fresh resume key of this connection's hello."""

    session_id: SessionId
    resumed: bool
    heartbeat_interval_ms: Ms
    lost_after_ms: Ms
    draining: bool
    provider_id: ProviderId


class PingAgent(Struct, frozen=True, gc=False, kw_only=True):
    """Ask for a sign of life."""


class TellInterval(Struct, frozen=True, gc=False, kw_only=True):
    heartbeat_interval_ms: Ms


class TellDrain(Struct, frozen=True, gc=False, kw_only=True):
    """The provider is drained (or no longer)."""

    draining: bool
    note: str = ""


class CloseLink(Struct, frozen=True, gc=False, kw_only=True):
    """Say why, then close."""

    code: CloseCode
    reason: str


Message = Welcome | PingAgent | TellInterval | TellDrain | CloseLink


class Send(Struct, frozen=True, gc=False):
    """To one connection; dropped when it is gone."""

    conn_id: ConnId
    message: Message


# ---- notes: for readers, metrics and people; never needed for correctness


class ProviderChanged(Struct, frozen=True, gc=False):
    """Published to readers once the writes are durable."""

    view: ProviderView


class ProviderForgotten(Struct, frozen=True, gc=False):
    provider_id: ProviderId


class LinkBound(Struct, frozen=True, gc=False):
    """From here on, heartbeats of this connection are this provider's."""

    conn_id: ConnId
    view: ProviderView


class SessionOpened(Struct, frozen=True, gc=False):
    row: SessionRow
    resumed: bool


class SessionEnded(Struct, frozen=True, gc=False):
    row: SessionRow
    reason: EndReason


class TokenChanged(Struct, frozen=True, gc=False):
    """A token was made or revoked: the door's list is renewed; streams of a revoked one are cut."""

    row: TokenRow


class TokenForgotten(Struct, frozen=True, gc=False):
    """A token that opened nothing any more was removed to make room."""

    row: TokenRow


class PoolChanged(Struct, frozen=True, gc=False):
    """A pool was made, or deleted when `row` is None."""

    name: PoolName
    row: PoolRow | None


class Warned(Struct, frozen=True, gc=False, kw_only=True):
    """Something that an operator should know. `kind` is an alert kind of the semantics."""

    kind: str
    subject: str
    text: str


Note = (
    ProviderChanged
    | ProviderForgotten
    | LinkBound
    | SessionOpened
    | SessionEnded
    | TokenChanged
    | TokenForgotten
    | PoolChanged
    | Warned
)


class Decision(Struct, gc=False):
    """What one event leads to. Lists are filled while deciding, and read-only afterwards."""

    writes: list[Write] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
