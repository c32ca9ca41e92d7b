"""The live work: jobs that have not ended, their steps and tasks, and every attempt that still holds something.

Part of the ClusterState, changed by functions of this package alone. Nothing here grows with history: tasks that were
never launched are a range, tasks that ended are counts, an attempt goes when nothing of it holds capacity any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, field

from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import AttemptId, Digest, JobId, Ms, PoolName, ProviderId, TaskId, TenantName
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, JobRow, LeaseToken, StepRow, TaskRow
from coordinator.core.tenants.account import Accounts
from coordinator.core.verdict.rows import PastVerdict, SuspicionRow, VerdictRow
from coordinator.core.wheel import Wheel
from coordinator.core.work.jobspec import Arrangement, Isolation, JobSpec, StepSpec

if TYPE_CHECKING:
    from coordinator.core.queue.candidates import Candidates
    from coordinator.core.queue.rooms import Rooms

T = TypeVar("T")
NO_TOKEN = LeaseToken(0, 0)
"""Of an attempt that was not granted yet."""
FRESH = 1 << 60
"""Stands for "the next task that was never launched" in a line: behind every task that has a number."""
RECENT_MAX = 4_096
"""Jobs that ended lately and are remembered (about 2 MB): a look into the store may have missed their end."""


NOTHING_KNOWN: Mapping[int, Any] = MappingProxyType({})
"""Of any rank: what attempts have that nothing befell."""

Sized = tuple[tuple[Digest, int], ...]
"""Blobs and their sizes."""
Failure = tuple[JobId, Ms]
"""Whose, and when."""


class Shape(Struct, frozen=True, gc=False, kw_only=True, cache_hash=True):
    """What a task needs of providers, whoever wants it: providers are judged once for each of these."""

    asks: tuple[Ask, ...]
    nodes: int
    pools: tuple[PoolName, ...]
    labels: tuple[tuple[str, str], ...]
    isolation: Isolation
    min_score: float | None
    min_forecast: float | None
    run_ms: Ms
    """How long it is taken to run; rounded up, so that shapes are few, where no `min_forecast` rests on it."""
    arrangement: Arrangement = Arrangement.PACK
    avoid: tuple[ProviderId, ...] = ()
    """Where it must not be placed again."""
    shunned: tuple[tuple[ProviderId, Ms], ...] = ()
    """Where its verdicts send it away from, and until when that is no question of better or worse."""
    inputs: Sized = ()
    """The largest blobs that it takes, and their sizes: where they are cached they need not be brought."""
    fetches: int | None = None
    """Bytes that have to be brought for it at least: its tenant's quota of egress must have room for them. None:
    nothing is."""
    saves_ms: Ms | None = None
    """How often its state is saved, so that no more is lost; 0: as often as is best where it runs. None: it is not."""
    data: bool = False
    """Its agent has to stage inputs, publish outputs, keep checkpoints or watch over progress."""


class Want(Struct, frozen=True, gc=False, kw_only=True, cache_hash=True):
    """Who wants what: tasks with equal wants stand in one line."""

    tenant: TenantName
    priority: int
    limit_ms: Ms | None
    """Its time limit, rounded up: when it is over for certain, for those that it is let past. None: it has none."""
    shape: Shape


Place = tuple[JobId, int, int]
"""A place in a line: (job, step, task), or FRESH as the task. Their order is that of submission."""


class Line(Struct, kw_only=True):
    """Those who wait for the same."""

    number: int = 0
    """Lines are numbered as they come."""
    heap: list[Place] = field(default_factory=list)
    """Who left the line stays in here until it is its turn."""
    waiting: int = 0
    held_by: str = ""
    """Why the last Place that came to it placed nobody: `capacity`, `quota cpus,gpus` (its tenant's, and of what),
    `nobody` (none can as it stands). Empty: it was not blocked."""
    held_ms: Ms = -1
    """When that was."""
    entry: int = 0
    """Which entry among the heads of its band stands for it; 0: none does."""
    first: Place | None = None
    """The place that this entry names."""
    tried_ms: Ms | None = None
    """When a planned start was looked for last."""


class Band(Struct, kw_only=True):
    """The lines of one tenant with one priority. They age together."""

    wants: dict[Want, None] = field(default_factory=dict)
    heads: list[tuple[Place, int, Want]] = field(default_factory=list)
    """A heap: who is first in each line. What has changed is dropped when it comes up."""
    later: list[tuple[Place, int, Want]] = field(default_factory=list)
    """Heads that were looked at in vain, and are not before the others were: of a tenant with very many lines."""
    since_ms: Ms | None = None
    """Since when it got nothing though it could be served; None: it has just come."""


class Kept(Struct, frozen=True, gc=False, kw_only=True):
    """Candidates that an image tells of: made when they are asked for."""

    at_ms: Ms
    figures_ms: Ms | None
    used_ms: Ms


class Plan(Struct, kw_only=True):
    """Where and when the head of a line that has no room is expected to start."""

    number: int
    want: Want
    ask: Ask
    providers: tuple[ProviderId, ...]
    start_ms: Ms
    then: dict[ProviderId, Load]
    """What they will hold then: what has not ended by that time, and this task."""
    seen: int = 0
    """`Work.moves` when that was worked out."""
    dirty: set[ProviderId] = field(default_factory=set)
    """Of an image: where something had changed since."""
    made_ms: Ms
    betters: int
    """`Work.betters` then."""
    stale: bool = False
    """Somebody who stands ahead of it took room there."""
    first: bool
    """Nobody stood ahead: what was kept for others then is no reason for a later start."""


class Task(Struct, gc=False, kw_only=True):
    """A task that has a row and has not ended. Nothing in it or in an Attempt leads back to it: a hundred thousand of
    them are nothing to the collector of cycles."""

    row: TaskRow
    attempts: tuple[Attempt, ...] = ()
    """Its live ones, the oldest first: one, or with `overlap` or a replacement two. Ended ones that still hold capacity
    are only in `Work.attempts`."""
    cancelling: bool = False
    wanted: bool = False
    """Its attempt is in doubt, and a replacement is to be reserved or launched."""
    newest: LeaseToken = NO_TOKEN
    """The highest token that was issued for it: only the attempt that has it may come back from being lost."""
    line: Want | None = None
    """Where it stands in the queue."""
    since_ms: Ms = 0
    """From when on it could have been placed, had there been room. Memory only: 0 after a start."""


class Attempt(Struct, gc=False, kw_only=True):
    """An attempt that is live, or ended and still holds capacity somewhere.

    There may be a hundred thousand, of which few are anything but leased or running: what is by rank are values that
    they share, another one where something changes (`with_rank`). Containers of their own were a third of their memory,
    and all of the work that they made for the collector.
    """

    row: AttemptRow
    renewed_ms: tuple[Ms, ...]
    """By rank: receipt of the last heartbeat that renewed it. Memory only, carried over a full disk."""
    terms_ms: tuple[Ms, ...]
    """By rank: the longest term that its agent may hold, counted from `renewed_ms`. Never above `row.term_ms`."""
    stopping: str = ""
    """Why its agents were told to stop it."""
    silent: frozenset[int] = frozenset()
    """Ranks whose provider is suspect or gone."""
    granted_ms: Ms = 0
    """When its grant was sent, as far as is remembered."""
    unseen_ms: Mapping[int, Ms] = NOTHING_KNOWN
    """By rank: when it was heard of last, where `renewed_ms` was moved by a stall or a start of ours. Who is lost is
    charged for no longer than that."""
    ended_by_ms: Mapping[int, Ms] = NOTHING_KNOWN
    """By rank: no later than that it ran, of one whose agent came back with its end and has yet to tell it."""
    shrinks: Mapping[int, tuple[int, Ms]] = NOTHING_KNOWN
    """By rank: the renewal (its seq) that told of a shorter term. It counts when the agent is known to have it."""
    planned: tuple[Ms, Ms] = (-1, 0)
    """From when it was reckoned and when it should have ended: kept by `freeing.planned_end_ms` while that is ahead."""
    told_ms: Ms = 0
    """When its progress was written last."""
    paced: tuple[Ms, float] | None = None
    """Its first word of how far it is."""
    tenant: TenantName = TenantName("")
    """Its job's; empty when that had ended before the coordinator started."""
    turned_by: str = ""
    """What gave one that was granted ahead its turn. In its row when something else of it is written."""


class Asked(Struct, kw_only=True):
    """A verdict that analytics was asked for."""

    tenant: TenantName
    providers: tuple[ProviderId, ...]
    """By rank."""


class Step(Struct, kw_only=True):
    """One step of a live job."""

    row: StepRow
    spec: StepSpec
    tasks: dict[int, Task] = field(default_factory=dict)
    """Those below the cursor that have not ended."""
    ready: bool = False
    """Everything that it needs has ended as it wants it."""
    retry: list[int] = field(default_factory=list)
    """Tasks that have a row and no live attempt, and may be placed when their backoff is over; in their order."""
    running: int = 0
    """Tasks with a live attempt that has a token."""
    lasted_ms: list[Ms] = field(default_factory=list)
    """Run times of the last hundred that completed, for the median. Memory only."""
    unblocked_by: str = ""
    """What let it start."""
    unblocked_ms: Ms = 0
    """When that was. Memory only: 0 after a start."""
    closed: bool = False
    """Its tasks that were never launched never will be: they are counted as cancelled."""
    want: Want
    line: Want | None = None
    """Where its next task that was never launched stands in the queue."""


class Job(Struct, kw_only=True):
    """A live job."""

    row: JobRow
    spec: JobSpec
    steps: list[Step]
    reserved: int = 0
    """What is set aside for its tasks that have not ended, in millionths of the unit of account; follows from rows."""
    retried_ms: list[Ms] = field(default_factory=list)
    """When its last retries were, as many as a storm needs. Memory only."""
    stormed: bool = False
    """A retry storm was reported. Memory only."""
    past: list[PastVerdict] = field(default_factory=list)
    """The last verdicts on its attempts, as their rows tell; each task remembers its own."""


class Load(Struct, kw_only=True):
    """What a provider holds for attempts. Derived from the attempts alone; rebuilt on load."""

    cpus: int = 0
    """Held, in millionths; likewise the others."""
    memory: int = 0
    gpus: list[int] = field(default_factory=list)
    """Held of each GPU, by index."""
    named: dict[str, int] = field(default_factory=dict)
    attempts: dict[tuple[AttemptId, int], TenantName] = field(default_factory=dict)
    """(attempt, rank) of all that hold something here or stand in line, and whose they are."""
    behind: dict[tuple[AttemptId, int], Share] = field(default_factory=dict)
    """Of these the prefetched ones that hold nothing yet, in the order of their tokens. While there are any, the first
    of them does not fit, and nothing else is placed here."""


class Work:
    """Jobs, attempts and what providers hold."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        """In the order of submission, which is the order of the queue."""
        self.attempts: dict[AttemptId, Attempt] = {}
        self.behind: dict[TenantName, tuple[int, int]] = {}
        """CPUs and memory that prefetched ones of a tenant will hold when it is their turn; absent: nothing."""
        self.loads: dict[ProviderId, Load] = {}
        """Of providers that hold something; absent: nothing."""
        self.by_key: dict[tuple[TenantName, str], JobId] = {}
        """Idempotency keys of live jobs."""
        self.recent: dict[JobId, JobRow] = {}
        """Jobs that ended lately, RECENT_MAX of them: the oldest goes first."""
        self.recent_keys: dict[tuple[TenantName, str], JobId] = {}
        """Idempotency keys of the recent ones."""
        self.queue: dict[Want, Line] = {}
        """Everything that could be placed at once if there were room."""
        self.bands: dict[tuple[TenantName, int], Band] = {}
        """The same by tenant and priority."""
        self.later: dict[tuple[TenantName, int], None] = {}
        """Those of them that have lines for the next Places."""
        self.arrivals = 0
        """Heads of lines that were put into a band's heap: tells equal ones apart."""
        self.lines = 0
        """Lines that ever were."""
        self.accounts = Accounts()
        self.accounts.behind = self.behind
        """Of tenants."""
        self.wheel: Wheel[tuple[int, ...]] = Wheel()
        """(job): its deadline. (job, step): the look for stragglers. TaskId: the end of a backoff. AttemptId: a look
        at its lease."""
        self.asked: dict[AttemptId, Asked] = {}
        """Verdicts that were asked for lately, verdict.rows.ASKED_MAX of them."""
        self.suspicions: dict[ProviderId, tuple[SuspicionRow, ...]] = {}
        """Of providers that a verdict blamed, oldest first. Nobody is in here without one."""
        self.faded_ms: Ms = 0
        """When they were looked through last for those that have faded."""
        self.unsaid: list[VerdictRow | SuspicionRow] = []
        """What verdicts said and a full disk undid: the next tick writes it again."""
        self.quarantined: dict[ProviderId, Ms] = {}
        """Until when."""
        self.failures: dict[ProviderId, list[Failure]] = {}
        """Failures in a row on each provider, oldest first; while it is quarantined those that it is quarantined for,
        too. Nobody is in here without one. Memory only."""
        self.looked_ms: Ms = 0
        """When the queue was last looked at for no other reason than the time."""
        self.touched_steps: dict[tuple[JobId, int], Step] = {}
        """Counts that changed in this decision; written at its end. Empty between decisions, like the next one."""
        self.touched_jobs: dict[JobId, Job] = {}
        self.moves = 0
        """How often what a provider holds or can take has changed."""
        self.moved: dict[ProviderId, int] = {}
        """Which of these times was the last one of each provider; the latest stands last."""
        self.lined_up_to = 0
        """`moves` when a Place last gave everybody all that may be lined up there."""
        self.judged_anew: dict[ProviderId, int] = {}
        """The same of those of which more has changed than what they hold."""
        self.betters = 0
        """How often a provider became able to take what it could not before."""
        self.candidates: dict[Shape, Candidates | Kept] = {}
        """Kept from one Place to the next, those used last at the end."""
        self.rooms: dict[tuple[Ask, Arrangement], Rooms] = {}
        """What these share."""
        self.plans: dict[Want, Plan] = {}
        """Planned starts of those who stand ahead and have no room."""
        self.planned: dict[ProviderId, int] = {}
        """The number of the plan that a provider is kept for."""
        self.next_plan = 1
        self.shapes: dict[Shape, dict[Ms | None, int]] = {}
        """How many lines there are of each, by their limits."""
        self.promised_ms: Ms | None = None
        """When a job's start was worked out last."""
        self.blocked_to = 0
        """Lines up to this number have seen a Place at whose end nobody had room for anything."""
        self.fleet_ms: Ms | None = None
        """When `accounts.fleet` was measured."""
        self.unanswered: dict[AttemptId, None] = {}
        """Attempts that are LEASED, in the order of their tokens: their agents have not answered yet."""
        self.paused = False
        """The last Place stopped since too many were unanswered: the next answer asks for another one."""
        self.place_due = False
        """The queue or capacity changed: the engine posts a Place."""
        self.freed: dict[ProviderId, tuple[Ms, str]] = {}
        """What gave each provider room last and when, as `AuditRow.unblocked_by` has it; the latest stands last.
        Memory only."""
        self.next_job_id = JobId(1)
        self.next_token = 1
        self.next_audit = 1

    def load_of(self, provider_id: ProviderId) -> Load:
        """What it holds, to be changed."""
        self.move(provider_id)
        load = self.loads.get(provider_id)
        if load is None:
            load = self.loads[provider_id] = Load()
        return load

    def drop_empty_load(self, provider_id: ProviderId) -> None:
        """A provider that holds nothing has none."""
        load = self.loads.get(provider_id)
        if load is not None and not load.attempts:
            del self.loads[provider_id]

    def move(self, provider_id: ProviderId) -> None:
        """What this provider holds has changed."""
        self.moves += 1
        self.moved.pop(provider_id, None)
        self.moved[provider_id] = self.moves

    def better(self, provider_id: ProviderId) -> None:
        """This provider holds less than before."""
        self.betters += 1
        self.move(provider_id)
        self.ask_place()

    def changed(self, provider_id: ProviderId) -> None:
        """Whether this provider takes work, or which, has changed: it went, was drained, is quarantined."""
        self.move(provider_id)
        self.judged_anew.pop(provider_id, None)
        self.judged_anew[provider_id] = self.moves

    def able(self, provider_id: ProviderId, now_ms: Ms) -> None:
        """This provider may be able to take what it never could: it came, or is another one now."""
        self.gave_room(provider_id, now_ms, f"provider {provider_id}")
        self.better(provider_id)
        self.changed(provider_id)

    def gave_room(self, provider_id: ProviderId, now_ms: Ms, what: str) -> None:
        """This came free there."""
        self.freed.pop(provider_id, None)
        self.freed[provider_id] = now_ms, what

    def freed_last(self) -> tuple[Ms, str] | None:
        """What came free last of all."""
        return self.freed[next(reversed(self.freed))] if self.freed else None

    def forget(self, provider_id: ProviderId) -> None:
        """This provider is not enrolled any more."""
        self.moved.pop(provider_id, None)
        self.judged_anew.pop(provider_id, None)
        self.freed.pop(provider_id, None)
        self.failures.pop(provider_id, None)
        for candidates in self.candidates.values():
            if not isinstance(candidates, Kept):
                candidates.forget(provider_id)
        for rooms in self.rooms.values():
            rooms.forget(provider_id)
        for want in [want for want, plan in self.plans.items() if provider_id in plan.providers]:
            self.drop_plan(want)

    def drop_plan(self, want: Want) -> None:
        """Nothing is kept for the head of this line any more."""
        plan = self.plans.pop(want, None)
        for provider_id in plan.providers if plan is not None else ():
            del self.planned[provider_id]
            self.move(provider_id)

    def put_plan(self, plan: Plan) -> None:
        """These providers are kept for the head of this line. They are in no other plan."""
        self.drop_plan(plan.want)
        self.plans[plan.want] = plan
        for provider_id in plan.providers:
            self.planned[provider_id] = plan.number
            self.move(provider_id)
        plan.seen = self.moves

    def moved_since(self, then: int) -> list[ProviderId]:
        """Whose holdings or abilities changed after `moves` was `then`. O(those)."""
        return _since(self.moved, then)

    def judged_anew_since(self, then: int) -> list[ProviderId]:
        return _since(self.judged_anew, then)

    def ask_place(self) -> None:
        """Capacity or the queue changed: whoever waits should be looked at."""
        if self.queue:
            self.place_due = True

    def task(self, task_id: TaskId) -> Task | None:
        """The live task of this id."""
        job = self.jobs.get(task_id[0])
        if job is None or not 0 <= task_id[1] < len(job.steps):
            return None
        return job.steps[task_id[1]].tasks.get(task_id[2])


def _since(log: dict[ProviderId, int], then: int) -> list[ProviderId]:
    found = []
    for provider_id, at in reversed(log.items()):
        if at <= then:
            break
        found.append(provider_id)
    return found


def with_rank(times: tuple[Ms, ...], rank: int, time_ms: Ms) -> tuple[Ms, ...]:
    """The same by rank, with another one of this rank."""
    return (time_ms,) if len(times) == 1 else (*times[:rank], time_ms, *times[rank + 1 :])


def without(known: Mapping[int, T], rank: int) -> Mapping[int, T]:
    """The same but for this rank."""
    if rank not in known:
        return known
    return {other: what for other, what in known.items() if other != rank} or NOTHING_KNOWN


def is_live(attempt: Attempt) -> bool:
    """It may run, or may yet be launched."""
    return attempt.row.state in LIVE_ATTEMPT
