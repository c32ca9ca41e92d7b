"""What we may do: the parts of a Decision. Nothing here is done by the core.

Order of carrying out: writes, and when they are durable replies and sends, then notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum

from msgspec import Struct, field
from msgspec.structs import replace

from coordinator.core.amounts import Share
from coordinator.core.data.answers import Admitted, CheckpointTaken, Published, Swept, UploadGone, UploadOpened
from coordinator.core.data.rows import ArtifactRow, BlobRow
from coordinator.core.errors import CoordError
from coordinator.core.ids import (
    AttemptId,
    ConnId,
    JobId,
    Ms,
    PoolName,
    ProviderId,
    RequestId,
    SessionId,
    TenantName,
)
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    AuditRow,
    EndReason,
    ExitInfo,
    JobRow,
    LeaseToken,
    PoolRow,
    ProviderRow,
    Row,
    SessionRow,
    TenantRow,
    TokenRow,
)
from coordinator.core.snapshot import ProviderView
from coordinator.core.together import Ended as Ended
from coordinator.core.together import FirstLeases as FirstLeases
from coordinator.core.together import Launched as Launched
from coordinator.core.together import Together as Together
from coordinator.core.verdict.rows import PastVerdict
from coordinator.core.work.jobspec import StepSpec

# ---- writes


class Put(Struct, frozen=True, gc=False):
    """Insert or replace the row with this key."""

    row: Row


class Delete(Struct, frozen=True, gc=False):
    """Remove the row with this key, if it is there. `table` and `key` as of rows.row_key."""

    table: str
    key: object


Write = Put | Delete | Together


def one_by_one(writes: Iterable[Write]) -> Iterator[Put | Delete]:
    """The same writes, each of one row."""
    for write in writes:
        if isinstance(write, Together):
            yield from map(Put, write.rows())
        else:
            yield write


def rows_put(writes: Iterable[Write]) -> Iterator[Row]:
    """The rows that are put by these, in their order."""
    return (write.row for write in one_by_one(writes) if isinstance(write, Put))


def count_rows(writes: Iterable[Write]) -> int:
    """How many rows are put or deleted by these."""
    return sum(1 if isinstance(write, Put | Delete) else write.count for write in writes)


# ---- replies


class Enrolled(Struct, frozen=True, gc=False, kw_only=True):
    """The identity is granted: the service hands out the credential whose digest the event carried."""

    provider: ProviderRow


class Obstacle(Struct, frozen=True, gc=False, kw_only=True):
    """One constraint, and how many of the enrolled providers it alone rules out."""

    constraint: str
    """`online`, `drained`, `quarantined`, `pool`, `labels`, `isolation`, `tenant`, `cpus`, `gpus`, `memory`,
    `named:NAME`, `nodes`, `min_score`, `min_forecast`, `elsewhere`, `avoided`, `quota:DIMENSION` (of the tenant: rules
    out all), `planned` (kept for one that stands ahead) ..."""
    providers: int
    text: str
    """What was asked and what is there."""
    ever: bool = True
    """Waiting may help: false when no provider as it is enrolled could ever pass it."""


class StepExplanation(Struct, frozen=True, gc=False, kw_only=True):
    """Why a step's tasks run or do not run."""

    step: int
    name: str
    tasks: int
    waiting: int
    running: int
    verdict: str
    """`runs`, `wait`, `never`, `ended`."""
    text: str
    obstacles: tuple[Obstacle, ...] = ()
    able_now: int = 0
    """Providers that could take a task of it this moment."""
    able_ever: int = 0
    """Providers that could with nothing else on them."""
    hint: str = ""
    """The nearest change that would help."""
    eta_ms: Ms | None = None
    """When it is expected to start, those ahead of it in the queue counted, where run times or limits tell."""
    ahead: int = 0
    """Places in the queue before it."""


class QuotaAsk(Struct, frozen=True, gc=False, kw_only=True):
    """A limited dimension of a tenant's quota and what a job would ask of it, in the units of rows.Quota."""

    name: str
    used: int
    reserved: int
    request: int
    limit: int
    guardrail: int
    fits: bool
    """Whether it would be admitted now, as far as this dimension goes."""


class Explanation(Struct, frozen=True, gc=False, kw_only=True):
    """Why a job is not running, step by step."""

    job_id: JobId | None
    providers: int
    """Enrolled ones."""
    steps: tuple[StepExplanation, ...]
    estimate: int = 0
    """Of a preview: what would be reserved for it, in millionths of the unit of account."""
    quota: tuple[QuotaAsk, ...] = ()
    """Of a preview: its tenant's limited dimensions."""


class Dimension(Struct, frozen=True, gc=False, kw_only=True):
    """One quota of one tenant, in the units of rows.Quota."""

    name: str
    """`cpus`, `gpus`, `memory`, `running`, `queued`, `storage`, `ingress`, `egress`, `budget`."""
    used: int
    """Held or counted now; of cumulative ones what is metered, running work up to this moment included."""
    reserved: int
    """Promised to live jobs beyond what is used; 0 of concurrent ones."""
    limit: int | None


class Usage(Struct, frozen=True, gc=False, kw_only=True):
    """What a tenant uses, as it is decided by."""

    tenant: TenantRow
    month: int
    dimensions: tuple[Dimension, ...]
    share: float
    """Dominant share of the fleet that it holds now, 0..1."""
    share_decayed: float
    """The same as fair share remembers it."""
    live_jobs: int


class Usages(Struct, frozen=True, gc=False, kw_only=True):
    entries: tuple[Usage, ...]


Result = (
    Usages
    | TenantRow
    | Enrolled
    | ProviderView
    | TokenRow
    | PoolRow
    | JobRow
    | Explanation
    | UploadOpened
    | BlobRow
    | ArtifactRow
    | Admitted
    | Published
    | CheckpointTaken
    | Swept
    | None
)


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


class Grant(Struct, frozen=True, gc=False, kw_only=True):
    """A lease. It starts nothing; the agent answers that it holds it."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    term_ms: Ms
    share: Share
    prefetched: bool = False
    """Start it, once it is ordered, when what runs there leaves room for it; in the order of tokens."""


class Grants(Struct, frozen=True, gc=False, kw_only=True):
    """Leases of attempts of one rank, which have their term and their share in common: a Grant each."""

    term_ms: Ms
    share: Share
    leases: list[tuple[AttemptId, LeaseToken]]
    prefetched: bool = False

    def each(self) -> Iterator[Grant]:
        """One by one."""
        for attempt_id, token in self.leases:
            yield Grant(
                attempt_id=attempt_id,
                rank=0,
                token=token,
                term_ms=self.term_ms,
                share=self.share,
                prefetched=self.prefetched,
            )


class Launch(Struct, frozen=True, gc=False, kw_only=True):
    """Start this rank now. The service makes the LaunchPlan of it by the step's runtime."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    tenant: TenantName
    step: StepSpec
    share: Share
    nodes: tuple[ProviderId, ...]
    """The provider of each rank."""
    checkpoint_every_ms: Ms | None = None
    """How often it is to save its state; None: when it takes a checkpoint itself, or the step has none."""
    restore: bool = False
    """There are checkpoints to resume from."""
    passed_on: tuple[str, ...] = ()
    """Patterns by which later steps take its outputs, placeholders and all."""


class Launches(Struct, frozen=True, gc=False, kw_only=True):
    """Start these attempts of one rank, which differ in nothing but their tasks' numbers: a Launch each."""

    like: Launch
    """The order of the first of them."""
    leases: list[tuple[AttemptId, LeaseToken]]

    def each(self) -> Iterator[Launch]:
        """One by one."""
        for attempt_id, token in self.leases:
            yield replace(self.like, attempt_id=attempt_id, token=token)


class StopAttempt(Struct, frozen=True, gc=False, kw_only=True):
    """End it: SIGTERM, `grace_ms`, SIGKILL; then say that it exited. Also one that was never launched."""

    attempt_id: AttemptId
    token: LeaseToken
    why: str
    grace_ms: Ms
    unbegun: bool = False
    """Only if it was not started yet; one that was goes on."""


class Settled(Struct, frozen=True, gc=False, kw_only=True):
    """The end of this rank is durable here, or concerns nobody any more: its record may go when its log is stored."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken


class Settlements(Struct, frozen=True, gc=False, kw_only=True):
    """The same of attempts of one rank: a Settled each."""

    leases: list[tuple[AttemptId, LeaseToken]]

    def each(self) -> Iterator[Settled]:
        """One by one."""
        for attempt_id, token in self.leases:
            yield Settled(attempt_id=attempt_id, rank=0, token=token)


class Warm(Struct, frozen=True, gc=False, kw_only=True):
    """Have the inputs of this attempt in the cache: it is reserved here and may be granted soon."""

    attempt_id: AttemptId
    rank: int


class SaveState(Struct, frozen=True, gc=False, kw_only=True):
    """Have the program take a checkpoint now: its provider is drained, or its place is needed."""

    attempt_id: AttemptId
    token: LeaseToken
    why: str


class Term(Struct, frozen=True, gc=False, kw_only=True):
    attempt_id: AttemptId
    token: LeaseToken
    term_ms: Ms


class Renew(Struct, frozen=True, gc=False, kw_only=True):
    """These leases are renewed, each for its term from the moment at which heartbeat `seq` was sent (0: the hello).

    An attempt that is not named is not renewed; a frozen one that is named may go on.
    """

    seq: int
    terms: tuple[Term, ...]


Message = (
    Welcome
    | PingAgent
    | TellInterval
    | TellDrain
    | CloseLink
    | Grant
    | Grants
    | Launch
    | Launches
    | StopAttempt
    | Settled
    | Settlements
    | Renew
    | Warm
    | SaveState
)


class Send(Struct, frozen=True, gc=False):
    """To one connection; dropped when it is gone."""

    conn_id: ConnId
    message: Message


def sends_one_by_one(sends: Iterable[Send]) -> Iterator[Send]:
    """The same sends, each of one message of the wire."""
    for send in sends:
        if isinstance(send.message, Grants | Launches | Settlements):
            for message in send.message.each():
                yield Send(send.conn_id, message)
        else:
            yield send


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


class Audited(Struct, frozen=True, gc=False):
    """A transition became durable: the feed of events, and what followers of a job wait for."""

    row: AuditRow


class JobChanged(Struct, frozen=True, gc=False):
    row: JobRow


class TenantChanged(Struct, frozen=True, gc=False):
    """A tenant was made or changed, or deleted when `row` is None."""

    name: TenantName
    row: TenantRow | None


class Promised(Struct, frozen=True, gc=False, kw_only=True):
    """A job started; when it had been expected to."""

    job_id: JobId
    tenant: TenantName
    promised_at_ms: Ms
    started_at_ms: Ms


class VerdictWanted(Struct, frozen=True, gc=False, kw_only=True):
    """An attempt has ended: what did it die of? Answered by a VerdictGiven. Also told of every success that wrote
    something, which needs no answer, and again after a start while a task still waits."""

    attempt_id: AttemptId
    tenant: TenantName
    name: str
    """Its job's."""
    step: str
    """Its step's name: the same job and step are the same program, as far as can be told."""
    state: AttemptState
    """COMPLETED, FAILED or LOST."""
    exits: tuple[ExitInfo | None, ...]
    """By rank, as far as they are known: with the final length of its streams. None: nobody saw it end."""
    providers: tuple[ProviderId, ...]
    """By rank."""
    until_ms: Ms | None = None
    """Its task waits for the answer until then. None: nobody waits."""
    history: tuple[PastVerdict, ...] = ()
    """Of earlier attempts of the task, then of others of its job; each oldest first, HISTORY_MAX at most."""
    suspected: tuple[ProviderId, ...] = ()
    """Those of `providers` that verdicts of other jobs blame."""


class AttemptChanged(Struct, frozen=True, gc=False, kw_only=True):
    """An attempt began, changed or ended. `tenant` is its job's."""

    row: AttemptRow
    tenant: TenantName
    fenced: bool = False
    """Its token counts no more: what it still sends is refused."""


class Calmed(Struct, frozen=True, gc=False, kw_only=True):
    """What was warned of is over."""

    kind: str
    subject: str


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
    | Calmed
    | Audited
    | JobChanged
    | AttemptChanged
    | TenantChanged
    | Promised
    | VerdictWanted
    | UploadGone
    | Together
)


def notes_one_by_one(notes: Iterable[Note]) -> Iterator[Note]:
    """The same notes, each of one row."""
    for note in notes:
        if not isinstance(note, Together):
            yield note
            continue
        for row in note.rows():
            match row:
                case AuditRow():
                    yield Audited(row)
                case AttemptRow():
                    yield AttemptChanged(row=row, tenant=note.tenant)
                case _:
                    pass  # a task's row is told of by its audit row


class Decision(Struct, gc=False):
    """What one event leads to. Lists are filled while deciding, and read-only afterwards."""

    writes: list[Write] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
