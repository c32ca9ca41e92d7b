"""Why a job is not running: per constraint how many providers it rules out, and the nearest thing to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from types import MappingProxyType

from coordinator.core.amounts import UNIT
from coordinator.core.commands import Decision, Explanation, Obstacle, Reply, StepExplanation
from coordinator.core.events import JobExplain, JobPreview
from coordinator.core.fleet.forecast import curve_of, stays_on
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.plural import count as counted
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import NOTHING, lacks
from coordinator.core.queue.feasible import as_enrolled, as_it_stands, score
from coordinator.core.queue.lines import has_room, want_of
from coordinator.core.queue.waiting import Ahead, ahead_of, kept_from, starts_at_ms
from coordinator.core.state import ClusterState, Provider
from coordinator.core.tenants.admission import asked, known_tenant, plan_for
from coordinator.core.tenants.quotas import never_fits, room_for
from coordinator.core.work import graph
from coordinator.core.work.jobs import theirs
from coordinator.core.work.jobspec import StepSpec
from coordinator.core.work.live import FRESH, Job, Place, Step, Want

GIB = 1 << 30
NOBODY_AHEAD = Ahead(0, 0)
QUOTA_HINT = "wait for work of this tenant to end, or have its limit raised: coord tenant set"
HOUR_MS = 3_600_000
_NOW = MappingProxyType(
    {
        "online": "not connected",
        "drained": "drained",
        "quarantined": "quarantined",
        "tenant": "serving another tenant",
        "min_score": "below the score",
        "min_forecast": "below the forecast",
        "planned": "kept for work that stands ahead",
        "avoided": "avoided after a verdict",
        "lined_up": "busy, with more lined up",
    }
)
"""What keeps a provider from taking it now, in a word, the gravest first; anything else: it is busy."""


def on_explain(state: ClusterState, event: JobExplain, policy: Policy, out: Decision) -> None:
    job = state.work.jobs.get(event.job_id)
    theirs(event.tenant, job.row if job is not None else None, event.job_id)
    assert job is not None
    steps = tuple(_of_live(state, job, step, policy) for step in job.steps)
    found = Explanation(job_id=event.job_id, providers=len(state.providers), steps=steps)
    out.replies.append(Reply(event.request_id, found))


def on_preview(state: ClusterState, event: JobPreview, policy: Policy, out: Decision) -> None:
    tenant = known_tenant(state, event.tenant)
    plan = plan_for(state, tenant, event.spec)
    quota = tuple(asked(state, tenant, event.spec, plan.cost, policy))
    steps = []
    for number, spec in enumerate(event.spec.steps):
        want = want_of(event.tenant, event.spec.priority, spec)
        judged = Judged(state, want, policy, kept_from(state, want, policy))
        if spec.needs:  # it will come later: who stands before it now says nothing
            steps.append(judged.explain(number, spec, waiting=spec.tasks, running=0, first=""))
            continue
        place = (state.work.next_job_id, number, FRESH)
        ahead, short = ahead_of(state, want, place, policy), _short_of(state, want, place, policy)
        steps.append(judged.explain(number, spec, spec.tasks, 0, "", ahead, short))
    found = Explanation(
        job_id=None, providers=len(state.providers), steps=tuple(steps), estimate=plan.cost, quota=quota
    )
    out.replies.append(Reply(event.request_id, found))


def _of_live(state: ClusterState, job: Job, step: Step, policy: Policy) -> StepExplanation:
    row, spec = step.row, step.spec
    waiting = 0 if step.closed else graph.fresh_tasks(step)
    waiting += sum(not task.attempts for task in step.tasks.values())
    common = {"step": row.step, "name": spec.name, "tasks": spec.tasks, "waiting": waiting, "running": step.running}
    if graph.has_ended(step):
        return StepExplanation(**common, verdict="ended", text=row.reason or row.state.value)  # type: ignore[arg-type]
    if job.row.cancelling:
        return StepExplanation(**common, verdict="wait", text=f"is being cancelled: {job.row.cancelling}")  # type: ignore[arg-type]
    if not waiting:
        return StepExplanation(**common, verdict="runs", text="everything of it has its place")  # type: ignore[arg-type]
    if not step.ready:
        text = f"waits for {graph.waits_for(job, step)} to end"
        return StepExplanation(**common, verdict="wait", text=text)  # type: ignore[arg-type]
    first = ""
    if not has_room(step):
        first = f"runs {counted(step.running, 'task')} at a time, as it asks for; "
    elif step.retry and not step.line:
        first = f"{step.tasks[step.retry[0]].row.reason}; "
    want = step.line or _line_of_retries(step) or step.want
    judged = Judged(state, want, policy, kept_from(state, want, policy), avoided=_avoided(state, step, want))
    place = first_of(step, want)
    if place is None:
        return judged.explain(row.step, spec, waiting, step.running, first)
    ahead = ahead_of(state, want, place, policy)
    short = () if not state.work.accounts.of(want.tenant).limited else _short_of(state, want, place, policy)
    return judged.explain(row.step, spec, waiting, step.running, first, ahead, short)


def _line_of_retries(step: Step) -> Want | None:
    """Where the first of its tasks stands that is to be tried again: elsewhere, it may be."""
    return next((step.tasks[task].line for task in step.retry if step.tasks[task].line is not None), None)


def _avoided(state: ClusterState, step: Step, want: Want) -> str:
    """What the verdict on a task that waits in this line sent it away from, and why."""
    if not want.shape.shunned:
        return ""
    task = next((step.tasks[task] for task in step.retry if step.tasks[task].line == want), None)
    avoid = task.row.judged.avoid if task is not None and task.row.judged is not None else ()
    hard = [one for one in avoid if one.until_ms > state.now_ms]
    return "; ".join(f"{one.provider_id} for {_left(one.until_ms - state.now_ms)}: {one.why}" for one in hard)


def first_of(step: Step, want: Want) -> Place | None:
    """Where the step stands in this line with its next task."""
    job_id, number = step.row.job_id, step.row.step
    waits = next((task for task in step.retry if step.tasks[task].line == want), None)
    if waits is not None:
        return job_id, number, waits
    return (job_id, number, FRESH) if step.line == want else None


def _short_of(state: ClusterState, want: Want, place: Place, policy: Policy) -> tuple[str, ...]:
    """The dimensions in which its tenant has no room for any of its alternatives now: of the first one."""
    shape = want.shape
    found = [room_for(state, want.tenant, place[0], ask, shape.nodes, policy, shape.fetches) for ask in shape.asks]
    return found[0] if all(found) else ()


class Judged:
    """Every provider against one want. O(providers)."""

    def __init__(
        self,
        state: ClusterState,
        want: Want,
        policy: Policy,
        kept: Container[ProviderId] = frozenset(),
        avoided: str = "",
    ) -> None:
        """`kept`: providers that are kept for others who stand ahead; `avoided`: those that a verdict rules out."""
        self._state, self._want, self._policy, self._kept = state, want, policy, kept
        self._avoided = avoided
        self.able_now = self.able_ever = 0
        self._alone: dict[str, int] = {}
        self._ever: dict[str, bool] = {}
        self._blocked: Counter[str] = Counter()
        self._missing: dict[frozenset[str], list[Provider]] = {}
        """Providers by the constraints that no waiting changes and that rule them out."""
        self._best: dict[str, float] = {}
        """The best of those that `min_score` or `min_forecast` rules out now."""
        for provider in state.providers.values():
            self._judge(provider, policy)

    def _judge(self, provider: Provider, policy: Policy) -> None:
        fixed = list(as_enrolled(provider, self._want.shape))
        passing = list(as_it_stands(self._state, provider, self._want, policy))
        self._missing.setdefault(frozenset(fixed), []).append(provider)
        if not fixed:
            self._compare(provider, passing, policy)
            load = self._state.work.loads.get(provider.row.provider_id, NOTHING)
            lacking = [lacks(provider.offer, load, ask) for ask in self._want.shape.asks]
            if all(lacking):
                passing += lacking[0]
            if not passing and provider.row.provider_id in self._kept:
                passing.append("planned")
            self.able_ever += 1
            self.able_now += not passing
            if passing:
                self._blocked[next((_NOW[name] for name in _NOW if name in passing), "busy")] += 1
        for name in fixed:
            self._count(name, ever=False)
        for name in passing:
            self._count(name, ever=True)

    def _compare(self, provider: Provider, passing: list[str], policy: Policy) -> None:
        """How near it comes to what is asked of its staying, where it falls short of that."""
        if "min_score" in passing:
            of_it = score(self._state, provider.row.provider_id)
            self._best["min_score"] = max(of_it, self._best.get("min_score", 0.0))
        if "min_forecast" in passing:
            curve = curve_of(self._state, provider, policy)
            of_it = stays_on(curve, self._want.shape.run_ms).probability if curve is not None else 0.0
            self._best["min_forecast"] = max(of_it, self._best.get("min_forecast", 0.0))

    def _count(self, name: str, *, ever: bool) -> None:
        self._alone[name] = self._alone.get(name, 0) + 1
        self._ever[name] = self._ever.get(name, False) or ever

    def explain(
        self,
        number: int,
        spec: StepSpec,
        waiting: int,
        running: int,
        first: str,
        ahead: Ahead = NOBODY_AHEAD,
        short: tuple[str, ...] = (),
    ) -> StepExplanation:
        """`short`: dimensions in which its tenant has no room."""
        nodes, total = self._want.shape.nodes, len(self._state.providers)
        if self.able_ever < nodes:
            verdict, text = "never", f"{first}no provider that is enrolled could run it"
            if nodes > 1:
                text = f"{first}it needs {nodes} providers, and {self.able_ever} could ever run a rank of it"
        elif self.able_now < nodes:
            verdict = "wait"
            text = f"{first}{self.able_ever} of {total} providers could run it, {self.able_now} now{self.blockers()}"
        else:
            verdict, text = "wait", f"{first}{self.able_now} of {total} providers could take it now"
        shape = self._want.shape
        never = (
            never_fits(self._state, self._want.tenant, shape.asks, nodes, self._policy, shape.fetches)
            if short
            else set()
        )
        if never and verdict == "wait":
            verdict, text = "never", f"{first}its tenant's limit of {' and '.join(sorted(never))} is below what it asks"
        if short and verdict == "wait":
            text = (
                f"{first}waits for room under its tenant's limit of {' and '.join(short)}; {text.removeprefix(first)}"
            )
        obstacles = (*(self._quota(name, name not in never) for name in short), *self.obstacles())
        waits = verdict == "wait" and (self.able_now < nodes or ahead.places)
        return StepExplanation(
            step=number,
            name=spec.name,
            tasks=spec.tasks,
            waiting=waiting,
            running=running,
            verdict=verdict,
            text=text,
            obstacles=obstacles,
            able_now=self.able_now,
            able_ever=self.able_ever,
            hint=(QUOTA_HINT if never else "") or self.hint(verdict) or (QUOTA_HINT if short else ""),
            eta_ms=starts_at_ms(self._state, self._want, ahead.tasks, self._policy) if waits and not short else None,
            ahead=ahead.places,
        )

    def _quota(self, name: str, ever: bool) -> Obstacle:
        text = f"its tenant holds as much of {name} as it may: work of its own has to end first"
        if name == "budget":
            text = "its tenant's budget is used up: nothing new starts until it is raised or the month is over"
        if name == "egress":
            text = "its tenant may fetch no more bytes, of its inputs either: until it is raised or the month is over"
        if not ever:
            text = f"its tenant's limit of {name} is below what it asks: no end of other work makes room"
        return Obstacle(constraint=f"quota:{name}", providers=len(self._state.providers), text=text, ever=ever)

    def blockers(self) -> str:
        """`: 2 busy, 1 quarantined`, of those that could run it."""
        if not self._blocked:
            return ""
        ordered = sorted(self._blocked.items(), key=lambda found: (-found[1], found[0]))
        return ": " + ", ".join(f"{providers} {what}" for what, providers in ordered)

    def obstacles(self) -> tuple[Obstacle, ...]:
        """Each constraint that rules somebody out, those that rule out most first."""
        found = [
            Obstacle(constraint=name, providers=providers, text=self._asked(name), ever=self._ever[name])
            for name, providers in self._alone.items()
        ]
        return tuple(sorted(found, key=lambda obstacle: (-obstacle.providers, obstacle.constraint)))

    def _asked(self, name: str) -> str:
        want, ask = self._want.shape, self._want.shape.asks[0]
        asked = {
            "work": "its agent runs no attempts",
            "online": "not connected now",
            "drained": "drained: takes no new work until coord providers resume",
            "quarantined": "quarantined after failures in a row: coord providers resume ends it",
            "tenant": "at isolation none it serves another tenant now",
            "attempts": "as many attempts there as a provider may have",
            "elsewhere": "the task failed there before",
            "avoided": f"the verdict on its last attempt keeps it away from {self._avoided or 'there'}",
            "planned": "kept for the planned start of work that stands ahead: a time limit that ends before it helps",
            "lined_up": "short tasks are lined up there",
            "data": "an agent that brings inputs, publishes outputs, keeps checkpoints and watches over progress",
            "disk": f"its inputs are {_size(want.fetches or 0)}, more than the whole disk there",
            "pool": f"asked for pool {' or '.join(want.pools)}",
            "labels": f"asked for labels {', '.join(f'{k}={v}' for k, v in want.labels)}",
            "isolation": f"asked for isolation {want.isolation.value}",
            "min_score": f"asked for a score of {want.min_score} at least{self._nearest_has('min_score', '.2f')}",
            "min_forecast": f"asked to stay {_length(want.run_ms)} with {want.min_forecast or 0:.0%} at least"
            f"{self._nearest_has('min_forecast', '.0%')}",
            "cpus": f"asked for {_many(ask.cpus, 'CPU')}",
            "gpus": f"asked for {_many(ask.gpus, 'GPU')}",
            "memory": f"asked for {_size(ask.memory)} of memory",
        }
        if name in asked:
            return asked[name]
        named = name.removeprefix("named:")
        return f"asked for {dict(ask.named).get(named, 0) / UNIT:g} {named}"

    def _nearest_has(self, name: str, form: str) -> str:
        """`: the best of them has 0.36`, where anybody falls short of that alone."""
        return f": the best of them has {self._best[name]:{form}}" if name in self._best else ""

    def hint(self, verdict: str) -> str:
        """The nearest change that would help: the fewest constraints without which enough could run it."""
        if verdict != "never":
            return ""
        if not self._state.providers:
            return "no provider is enrolled: start an agent"
        nearest = self._nearest()
        if nearest is None:
            nodes, total = self._want.shape.nodes, len(self._state.providers)
            enrolled = f"{total} provider{'s are' if total > 1 else ' is'} enrolled"
            return f"asked for {nodes} nodes: {enrolled}: ask for fewer, or start more agents"
        return "; and ".join(f"{self._asked(name)}: {self._remedy(name, nearest)}" for name in sorted(nearest))

    def _nearest(self) -> frozenset[str] | None:
        """The fewest constraints without which there would be providers enough; of as few, those without which there
        would be most. None: nobody enrolled would make it enough."""
        each = [missing for missing in self._missing if missing]
        enough = []
        for without in {*each, frozenset[str]().union(*each)}:
            able = sum(len(them) for missing, them in self._missing.items() if missing <= without)
            if able >= self._want.shape.nodes:
                enough.append((len(without), -able, sorted(without), without))
        return min(enough)[3] if enough else None

    def _remedy(self, constraint: str, without: frozenset[str]) -> str:
        match constraint:
            case "work":
                return "start one that runs them"
            case "data":
                return "start a newer agent there"
            case "disk":
                return "bring fewer, or a provider with a larger disk: coord agent --work DIR"
            case "pool":
                return "name another pool, or enrol a provider there: coord pool list"
            case "labels":
                return "ask for other labels, or give them to a provider: coord agent --label NAME=VALUE"
            case "isolation":
                return "ask for less, or bring a provider that gives so much: coord agent --work DIR"
            case "elsewhere":
                return "mend the cause there, or bring another provider"
        return f"{self._most(constraint, without)}: ask for less, or bring a provider that has it"

    def _most(self, constraint: str, without: frozenset[str]) -> str:
        """The most of it that any provider has that could run it `without` these constraints."""
        offers = [one.offer for missing, them in self._missing.items() if missing <= without for one in them]
        name = constraint.removeprefix("named:")
        match constraint:
            case "cpus":
                most = _many(max((offer.cpus for offer in offers), default=0), "CPU")
            case "gpus":
                most = _many(UNIT * max((offer.gpus for offer in offers), default=0), "GPU")
            case "memory":
                most = _size(max((offer.memory for offer in offers), default=0))
            case _:
                most = f"{max((offer.named.get(name, 0) for offer in offers), default=0) / UNIT:g} {name}"
        return f"the most that one has is {most}"


def _many(amount: int, what: str) -> str:
    """`1 CPU`, `0.5 CPUs`, `8 CPUs`."""
    return f"{amount / UNIT:g} {what}{'' if amount == UNIT else 's'}"


def _left(ms: Ms) -> str:
    """`6 h` or `20 min`, about."""
    return f"{ms / HOUR_MS:.0f} h" if ms >= 2 * HOUR_MS else f"{-(-ms // 60_000)} min"


def _length(ms: Ms) -> str:
    """`8h` or `90 min`."""
    return f"{ms // HOUR_MS}h" if ms >= HOUR_MS and not ms % HOUR_MS else f"{ms / 60_000:g} min"


def _size(size: int) -> str:
    """As it was most likely written: `900 GiB`, `50 MB`."""
    if size >= GIB and not size % (GIB // 4):
        return f"{size / GIB:g} GiB"
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
