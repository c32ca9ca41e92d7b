"""What can happen. Time, random text and whatever the core cannot know arrive inside the event.

`at_ms` is the observed clock when it happened. Secrets never come here, only their SHA-256: events are
recorded.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.amounts import Price
from coordinator.core.data.events import AttemptProgress, DataEvent
from coordinator.core.data.rows import BlobRow
from coordinator.core.event import Event
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, PoolName, ProviderId, RequestId, TenantName, TokenId
from coordinator.core.rows import (
    ExitInfo,
    JobRow,
    LeaseToken,
    OnBudget,
    OnFull,
    Promises,
    Resources,
    Role,
    StepRow,
    TaskRow,
)
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.work.jobspec import JobSpec


class LastBeat(Struct, frozen=True, gc=False, kw_only=True):
    """What telemetry knows of a provider's last heartbeat before a restart."""

    provider_id: ProviderId
    at_ms: Ms


class Boot(Event, frozen=True, kw_only=True, tag="boot"):
    """The coordinator serves again: the first event after the state was loaded."""

    last_beats: tuple[LastBeat, ...] = ()
    wall_step_ms: Ms = 0
    """How far the wall clock was moved against the machine's own since the last run; 0 where that is not known."""
    clock: str = ""
    """What to store so that the next start can tell; empty: nothing."""


class Tick(Event, frozen=True, kw_only=True, tag="tick"):
    """A second went by. `stalled_ms` of it we were not looking; `wall_step_ms` the wall clock was moved."""

    stalled_ms: Ms = 0
    wall_step_ms: Ms = 0


class ProviderEnrol(Event, frozen=True, kw_only=True, tag="provider_enrol"):
    """A machine asks for an identity, with a join token or as an admin."""

    request_id: RequestId
    provider_id: ProviderId
    machine_id: str
    token_digest: str
    """Of the token that the request came with: a join token's, an admin's, or the provider's own."""
    credential_digest: str
    """Of the fresh credential that the service hands out when this is granted."""
    credential_id: TokenId
    pool: PoolName | None = None


class AgentHello(Event, frozen=True, kw_only=True, tag="agent_hello"):
    """An agent's first message on a connection. Its credential was checked when the socket was opened."""

    conn_id: ConnId
    provider_id: ProviderId
    machine_id: str
    boot_id: str
    process_id: str
    agent_version: str
    peer: str
    """Address and port that it came from, for people."""
    fresh_resume_digest: str
    """Of the fresh resume key that the service puts into the welcome."""
    resume_digest: str = ""
    """Of the resume key that it presents; empty when it has none."""
    resources: Resources = Resources()
    labels: dict[str, str] = {}
    promises: Promises = Promises()
    attempts: tuple[HeldAttempt, ...] = ()
    """Everything that it holds: what is not here has ended there, or never arrived."""


class HeldAttempt(Struct, frozen=True, gc=False, kw_only=True):
    """An attempt as the agent that connects knows it."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    phase: str
    """`leased`, `staging`, `running`, `frozen`, `exited`."""
    exit: ExitInfo | None = None
    """Of one that exited and was not acknowledged yet."""


class Beat(Struct, frozen=True, gc=False, kw_only=True):
    """The newest heartbeat of one connection in a batch, as far as the core needs it."""

    conn_id: ConnId
    received_ms: Ms
    requests_served: int = 0
    tokens_generated: int = 0
    seq: int = 0
    """Its number: what a renewal answers."""
    renewed_seq: int = 0
    """Of the last renewal that the agent has received: it holds no older term."""
    attempts: tuple[AttemptId, ...] = ()
    """What it runs, frozen ones included; only these are renewed."""


class Heartbeats(Event, frozen=True, kw_only=True, tag="heartbeats"):
    """Every connection that sent heartbeats since the last such event."""

    beats: tuple[Beat, ...]


class AgentPong(Event, frozen=True, kw_only=True, tag="agent_pong"):
    """A connection answered our ping (or sent anything else that proves its agent is there)."""

    conn_id: ConnId


class AgentBye(Event, frozen=True, kw_only=True, tag="agent_bye"):
    """An agent says that it leaves: `draining` when it was told to or will be back at `away_until_ms`."""

    conn_id: ConnId
    draining: bool = False
    away_until_ms: Ms | None = None


class LinkClosed(Event, frozen=True, kw_only=True, tag="link_closed"):
    """A socket is gone."""

    conn_id: ConnId


class ProviderDrain(Event, frozen=True, kw_only=True, tag="provider_drain"):
    """An admin wants no new work there; `away_until_ms` when it is known to come back."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    provider_id: ProviderId
    note: str = ""
    away_until_ms: Ms | None = None


class ProviderResume(Event, frozen=True, kw_only=True, tag="provider_resume"):
    """The drain is over."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    provider_id: ProviderId


class ProviderForget(Event, frozen=True, kw_only=True, tag="provider_forget"):
    """Remove the enrolment and the credential. History stays until its retention."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    provider_id: ProviderId


class TokenCreate(Event, frozen=True, kw_only=True, tag="token_create"):
    """An admin makes a token; its text was made by the service and is shown once."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    token_id: TokenId
    digest: str
    role: Role
    note: str = ""
    expires_at_ms: Ms | None = None
    pool: PoolName | None = None
    tenant: str | None = None


class TokenRevoke(Event, frozen=True, kw_only=True, tag="token_revoke"):
    """An admin revokes a token: streams that stand on it are cut."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    token_id: TokenId


class PoolCreate(Event, frozen=True, kw_only=True, tag="pool_create"):
    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    name: PoolName
    note: str = ""


class PoolPrice(Event, frozen=True, kw_only=True, tag="pool_price"):
    """An admin says what a pool costs from now on; also of the default pool. -> PoolRow"""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    name: PoolName
    price: Price


class TenantSet(Event, frozen=True, kw_only=True, tag="tenant_set"):
    """An admin makes a tenant (`create`) or changes one. What is None stays as it is. -> TenantRow"""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    name: TenantName
    create: bool = False
    note: str | None = None
    weight: int | None = None
    priority_max: int | None = None
    on_full: OnFull | None = None
    on_budget: OnBudget | None = None
    runtime_ms: Ms | None = None
    quota: tuple[tuple[str, int | None], ...] = ()
    """(dimension, limit) of those that change; None lifts it."""


class TenantDelete(Event, frozen=True, kw_only=True, tag="tenant_delete"):
    """Refused while it has live jobs or valid tokens. Its ledger and its ended jobs stay until their retention."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    name: TenantName


class UsageRead(Event, frozen=True, kw_only=True, tag="usage_read"):
    """-> commands.Usages: what is used, reserved and left, as it is decided by. Changes nothing."""

    request_id: RequestId
    tenant: TenantName | None = None
    """None: of every tenant."""


class PoolDelete(Event, frozen=True, kw_only=True, tag="pool_delete"):
    """Refused while a provider or a valid join token names the pool."""

    request_id: RequestId
    by: str = "coord"
    """Who asked: `token:ID`."""
    name: PoolName


class Curve(Struct, frozen=True, gc=False, kw_only=True):
    """A curve over time: `p` at `at_ms` (rising, above 0). Between two points the hazard is constant."""

    at_ms: tuple[Ms, ...] = ()
    p: tuple[float, ...] = ()


class Stopping(Event, frozen=True, kw_only=True, tag="stopping"):
    """A planned stop: agents are told, what is known is written."""


class ProviderFigures(Struct, frozen=True, gc=False, kw_only=True):
    """What analytics says of one provider."""

    provider_id: ProviderId
    score: float
    stays: tuple[float, ...] = ()
    """P(still here) at the table's horizons, counted from `computed_at_ms`; empty when it was not online."""
    returns: tuple[float, ...] = ()
    """P(back again) at the table's delays, counted from the moment it goes."""


class FiguresPublished(Event, frozen=True, kw_only=True, tag="figures_published"):
    """The analytics worker's latest figures replace the ones before as a whole."""

    computed_at_ms: Ms
    horizons_ms: tuple[Ms, ...]
    delays_ms: tuple[Ms, ...]
    providers: tuple[ProviderFigures, ...]
    fleet_stays: Curve
    """Survival of the fleet's stays by age."""
    fleet_returns: Curve
    """P(back within) of the fleet's absences."""


# ---- work


class JobSubmit(Event, frozen=True, kw_only=True, tag="job_submit"):
    """A tenant wants this run. -> JobRow: the new one, or the one that this idempotency key made before."""

    request_id: RequestId
    tenant: TenantName
    by: str
    spec: JobSpec
    idempotency_key: str = ""
    """SHA-256 of the key."""
    body_digest: str = ""
    """SHA-256 of what was asked for: another body under one key is refused (CONFLICT)."""
    known: JobRow | None = None
    """What the store has under this tenant's key."""
    any_priority: bool = False
    """An admin asks: the tenant's own bound of the priority does not count."""
    inputs: tuple[BlobRow, ...] = ()
    """Those of the blobs that its steps name which the store has."""


class JobCancel(Event, frozen=True, kw_only=True, tag="job_cancel"):
    """-> JobRow. Waiting tasks end at once, running ones when their agents say so or their leases are over."""

    request_id: RequestId
    tenant: TenantName | None
    """None: an admin, of any tenant."""
    by: str
    job_id: JobId
    task: tuple[int, int] | None = None
    """(step, task): this one alone."""
    why: str = ""
    known: JobRow | None = None
    """What the store has of it: tells one that ended already from one that never was."""


class JobRetry(Event, frozen=True, kw_only=True, tag="job_retry"):
    """-> JobRow. Runs again what failed, was lost or cancelled; the service attaches what the store has of the job."""

    request_id: RequestId
    tenant: TenantName | None
    by: str
    job_id: JobId
    job: JobRow
    spec: JobSpec
    steps: tuple[StepRow, ...]
    tasks: tuple[TaskRow, ...]
    """Every task of it that has a row and did not complete."""


class JobExplain(Event, frozen=True, kw_only=True, tag="job_explain"):
    """-> commands.Explanation: why it is not running. NOT_FOUND for one that is not live."""

    request_id: RequestId
    tenant: TenantName | None
    job_id: JobId


class JobPreview(Event, frozen=True, kw_only=True, tag="job_preview"):
    """-> commands.Explanation of a job that was not submitted: who could run it now, or ever."""

    request_id: RequestId
    tenant: TenantName
    spec: JobSpec


class Place(Event, frozen=True, kw_only=True, tag="place"):
    """Capacity or the queue changed since the last one. Posted by the engine when the state asks for it."""


class AgentGranted(Event, frozen=True, kw_only=True, tag="agent_granted"):
    """An agent has stored a grant: it holds the lease, and may be told to launch."""

    conn_id: ConnId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken


class LeasesHeld(Event, frozen=True, kw_only=True, tag="leases_held"):
    """An agent has stored several grants: an AgentGranted each, and one decision."""

    conn_id: ConnId
    held: tuple[tuple[AttemptId, int, LeaseToken], ...]
    """(attempt, rank, token) of each."""


class AgentRefused(Event, frozen=True, kw_only=True, tag="agent_refused"):
    """An agent does not take a grant; nothing was started."""

    conn_id: ConnId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    why: str


class AttemptPhase(Event, frozen=True, kw_only=True, tag="attempt_phase"):
    """An agent says how an attempt stands: `running`, `frozen`, or `running` again after a thaw."""

    conn_id: ConnId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    phase: str
    ran_ms: Ms = 0
    """How long it had run when this was said: what runs but for a moment may be told of at its end alone."""


class AttemptExited(Event, frozen=True, kw_only=True, tag="attempt_exited"):
    """The processes of a rank have ended, all of them. Repeated until it is settled; the token makes it count once."""

    conn_id: ConnId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    exit: ExitInfo


class AttemptsEnded(Event, frozen=True, kw_only=True, tag="attempts_ended"):
    """Several ends that one agent told: an AttemptExited each, and one decision."""

    conn_id: ConnId
    ended: tuple[tuple[AttemptId, int, LeaseToken, ExitInfo], ...]
    """(attempt, rank, token, how) of each."""


AttemptEvent = AgentGranted | LeasesHeld | AgentRefused | AttemptPhase | AttemptExited | AttemptsEnded | AttemptProgress


class AgentSaid(Event, frozen=True, kw_only=True, tag="agent_said"):
    """What one read of an agent's socket brought of its attempts, in its order. One decision: the rows of jobs and
    steps whose counts all of it changes are written once."""

    said: tuple[AttemptEvent, ...]


AnyEvent = (
    Boot
    | Tick
    | ProviderEnrol
    | AgentHello
    | Heartbeats
    | AgentPong
    | AgentBye
    | LinkClosed
    | ProviderDrain
    | ProviderResume
    | ProviderForget
    | TokenCreate
    | TokenRevoke
    | PoolCreate
    | PoolDelete
    | PoolPrice
    | TenantSet
    | TenantDelete
    | UsageRead
    | FiguresPublished
    | Stopping
    | JobSubmit
    | JobCancel
    | JobRetry
    | JobExplain
    | JobPreview
    | Place
    | AgentGranted
    | LeasesHeld
    | AgentRefused
    | AttemptPhase
    | AttemptExited
    | AttemptsEnded
    | AgentSaid
    | VerdictGiven
    | DataEvent
)
