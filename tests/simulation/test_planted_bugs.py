"""The simulator must find what is wrong: each bug here is planted into the core's text, and must be caught.

One is planted into the model of the agents: a keeper that forgets to freeze. The witness must see that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from coordinator.core import reload, restart
from coordinator.core.data import (
    blobs,
    checkpoints,
    claims,
    meters,
    outcomes,
    progress,
    results,
    saving,
    sweeps,
    uploads,
)
from coordinator.core.fleet import alive, challenges, liveness, pace, providers, publish, sessions
from coordinator.core.queue import (
    candidates,
    capacity,
    fair_share,
    feasible,
    fresh,
    order,
    placement,
    plans,
    prefetch,
    rooms,
    waiting,
)
from coordinator.core.queue import lines as queue
from coordinator.core.tenants import account, admission, budgets, charging, metering, quotas, reservations
from coordinator.core.tenants import image as account_image
from coordinator.core.tenants import registry as tenants
from coordinator.core.verdict import asking, avoiding, settling, suspicion
from coordinator.core.work import (
    arrivals,
    attempts,
    endings,
    holding,
    jobs,
    leases,
    loss,
    renewals,
    retries,
    succeeding,
)
from coordinator.core.work import carrying as work_carrying
from coordinator.core.work import due as work_time
from coordinator.core.work import loading as work_loading
from coordinator.simulator import fates, keeper, story
from coordinator.simulator.fairness import story as fairness
from coordinator.simulator.world import DATA_EVERY, VERDICTS_AT, VERDICTS_EVERY

SEEDS_MAX = 80
LIGHT_SEEDS_MAX = 150
EVENTS = 2_000

DECIDING = (
    account,
    account_image,
    admission,
    alive,
    arrivals,
    asking,
    attempts,
    avoiding,
    blobs,
    budgets,
    candidates,
    capacity,
    challenges,
    charging,
    checkpoints,
    claims,
    endings,
    fair_share,
    feasible,
    fresh,
    holding,
    jobs,
    leases,
    liveness,
    loss,
    metering,
    meters,
    order,
    outcomes,
    pace,
    placement,
    plans,
    prefetch,
    progress,
    providers,
    publish,
    queue,
    quotas,
    reload,
    renewals,
    reservations,
    restart,
    results,
    retries,
    rooms,
    saving,
    sessions,
    settling,
    succeeding,
    suspicion,
    sweeps,
    tenants,
    uploads,
    waiting,
    work_carrying,
    work_loading,
    work_time,
    keeper,
    fates,
)
"""Where a bug may be planted."""
BUGS = {
    "what was known of room counts when the provider has changed": (
        "if known is not None and known[0] == moved:",
        "if known is not None:",
    ),
    "what ends together keeps its place": (
        "            add_share(load, self._share, -1)\n        work.gave_room(",
        "            pass\n        work.gave_room(",
    ),
    "what ends together is still counted as running": (
        "        step.running -= ended\n",
        "        step.running -= 0\n",
    ),
    "a lease that was taken back is launched when its agent says with others that it holds it": (
        "    return row.state is _LEASED and rank == 0",
        "    return rank == 0",
    ),
    "a session ends when it was noticed": (
        "    ended_ms = max(min(state.now_ms, known + state.interval_ms), session.row.connected_at_ms)\n",
        "    ended_ms = state.now_ms\n",
    ),
    "a duplicate is accepted without a ping": (
        "    elif _holds_key(provider, event):\n",
        "    elif event.process_id:\n",
    ),
    "the resume key is ignored": (
        "    return bool(event.resume_digest) and ",
        "    return not row and ",
    ),
    "an outage of ours is charged": (
        "EndReason.COORDINATOR_RESTART, out)",
        "EndReason.READ_ERROR, out)",
    ),
    "an awaited session lasts until it was given up": (
        "    ended_ms = session.last_beat_ms if session.last_beat_ms is not None else session.row.connected_at_ms\n",
        "    ended_ms = state.now_ms\n",
    ),
    "a stall of ours is judged": (
        "    if stalled_ms >= policy.stall_ms:\n        _forgive",
        "    if stalled_ms < 0:\n        _forgive",
    ),
    "a stall cuts stays": (
        "    if unticked_ms >= policy.stall_ms:\n",
        "    if unticked_ms < 0:\n",
    ),
    "a suspect that came back is looked at late": (
        "    if provider.phase is Liveness.SUSPECT or session.interval_ms > state.interval_ms:\n",
        "    if session.interval_ms > state.interval_ms:\n",
    ),
    "a challenger outlives the session that it waited for": (
        "    if challenger is not None:\n        drop_challenger(state, provider)\n        _take_up",
        "    if challenger is not None and not provider:\n        drop_challenger(state, provider)\n        _take_up",
    ),
    "a session id is given twice": (
        "        state.next_session_id = SessionId(state.next_session_id + 1)\n",
        "",
    ),
    "a full disk changes why a session ended": (
        "        session.undone = undone\n",
        "        session.undone = None\n",
    ),
    "a planned stop is charged": (
        "    if provider is None or provider.session is None or state.stopping:\n",
        "    if provider is None or provider.session is None:\n",
    ),
    "a blip begins a new stay": (
        "gap_ms < policy.lost_ms(state.interval_ms)",
        "gap_ms < 1",
    ),
    "silence is judged by an interval that the agent has not heard of": (
        "            session.interval_ms = max(session.interval_ms, fitting)\n",
        "            session.interval_ms = min(session.interval_ms, fitting)\n",
    ),
    "who is awaited is awaited for ever": (
        "        if state.rejoin_by_ms <= now:\n",
        "        if state.rejoin_by_ms < 0:\n",
    ),
    "the last heartbeat is forgotten": (
        "        session.last_beat_ms = max(beat.received_ms, session.last_beat_ms or 0)\n",
        "        session.last_beat_ms = session.last_beat_ms or beat.received_ms\n",
    ),
    "a lease is not fenced by the one after it": (
        "        and task.newest == attempt.row.token\n        and attempt not in task.attempts\n",
        "        and attempt not in task.attempts\n",
    ),
    "the end of a fenced attempt counts": (
        "    if is_live(attempt):\n        end_rank(state, attempt, rank, as_it_counts",
        "    if attempt.row.ranks:\n        end_rank(state, attempt, rank, as_it_counts",
    ),
    "an end is counted twice": (
        "    count(state, job, step, to, 1)\n    if to is WorkState.FAILED",
        "    count(state, job, step, to, 2)\n    if to is WorkState.FAILED",
    ),
    "a keeper forgets to freeze": (
        '        if held.phase == "running" and held.freeze_at_ms <= now:\n',
        '        if held.phase == "running" and held.freeze_at_ms < 0:\n',
    ),
    "a retry is not budgeted": (
        "    if row.failures > rule.limit:\n",
        "    if row.failures > 1_000:\n",
    ),
    "a loss is not budgeted": (
        "    if task.row.losses > rule.losses:\n",
        "    if task.row.losses > 1_000:\n",
    ),
    "capacity is given back before the machine says so": (
        "        if row.orphaned or row.provider_id not in state.providers:  # nobody",
        "        if row.provider_id:  # nobody",
    ),
    "a lease is over before its term is": (
        "    return attempt.renewed_ms[rank] + attempt.terms_ms[rank]\n",
        "    return attempt.renewed_ms[rank] + attempt.terms_ms[rank] // 2\n",
    ),
    "a fenced lease is renewed": (
        "        if not is_live(attempt) and not _counts_again(state, attempt, rank, provider, policy, out):\n",
        "        if attempt.row.attempt < 0:\n",
    ),
    "a term shrinks before the agent knows": (
        "        attempt.shrinks = {**attempt.shrinks, rank: (beat.seq, term_ms)}\n",
        "        attempt.terms_ms = with_rank(attempt.terms_ms, rank, term_ms)\n",
    ),
    "an attempt is launched before all of its leases are held": (
        "    if len(ranks) == 1 or all(row.acked for number, row in enumerate(ranks) if number != rank):\n",
        "    if ranks:\n",
    ),
    "a provider's silence puts nothing in doubt": (
        "        attempt.silent |= {rank}\n        attempt.shrinks = without(attempt.shrinks, rank)\n        _doubt(",
        "        if rank > 5:\n            _doubt(",
    ),
    "a planned stop makes no lease longer": (
        "            attempt.terms_ms = with_rank(attempt.terms_ms, rank, attempt.terms_ms[rank] + longer_ms)\n",
        "            attempt.terms_ms = with_rank(attempt.terms_ms, rank, attempt.terms_ms[rank])\n",
    ),
    "a full disk takes the renewals along": (
        "    attempt.renewed_ms, attempt.unseen_ms = before.renewed_ms, before.unseen_ms\n",
        "    attempt.renewed_ms = tuple([attempt.row.created_at_ms for _ in ranks])\n",
    ),
    "an idempotency key makes two jobs": (
        "    work.by_key[",
        "    dict[object, object]()[",
    ),
    "a quota of CPUs is filled by one more": (
        "return limit * percent // 100 - held",
        "return limit * percent // 100 - held + 1_000_000",
    ),
    "a quota of running jobs is off by one": (
        "len(account.jobs) >= quota.running:",
        "len(account.jobs) > quota.running:",
    ),
    "a job that ended goes on being reserved for": (
        "    account.reserved -= job.reserved\n",
        "",
    ),
    "what is reserved is not counted": (
        "    return min(account.row.cost + account.reserved - (",
        "    return min(account.row.cost - (",
    ),
    "something starts at a budget that is used up": (
        "    if quota.budget is not None and is_broke(account, state.now_ms):\n",
        "    if quota.budget is not None and account.row.cost < 0:\n",
    ),
    "work goes on at the end of a budget": (
        "    if not broke or account.tenant.on_budget is not OnBudget.STOP:\n",
        "    if not broke or account.tenant.name:\n",
    ),
    "a full disk keeps what was charged in vain": (
        "            account.freed = max(account.freed, before.freed) + 1\n",
        "            account.freed = max(account.freed, before.freed) + 1\n            account.row = before.row\n",
    ),
    "what the month before was charged for is charged again": (
        "    since_ms = row.metered_ms if row.metered_ms is not None else _began_ms(row)\n",
        "    since_ms = _began_ms(row)\n",
    ),
    "a new month begins with what the old one cost": (
        "month=next_month(account.row.month), cost=0,",
        "month=next_month(account.row.month),",
    ),
    "an agent is paid for what it says": (
        "min(_began_ms(row) + exit.ran_ms, state.now_ms)",
        "_began_ms(row) + exit.ran_ms",
    ),
    "who was lost is charged for until somebody noticed": (
        "    until_ms = max(until_ms, _began_ms(row))\n",
        "    until_ms = max(state.now_ms, _began_ms(row))\n",
    ),
    "a charge is rounded down": (
        "    return -(-rate * ran_ms // SCALE)\n",
        "    return rate * ran_ms // SCALE\n",
    ),
    "one in line holds room that is not there": (
        "    if share_of(offer, load, share.ask) is None:\n        return False\n",
        "",
    ),
    "a keeper starts those in line beyond its room": (
        "            if not self._fits(first.share.ask):\n                return\n",
        "",
    ),
}
VERDICT_BUGS = {
    "a verdict on an older attempt is obeyed": (
        "    return awaited is not None and awaited.attempt == attempt_id[3]\n",
        "    return awaited is not None\n",
    ),
    "a verdict is waited for without end": (
        "                    overdue(state, task, policy, out)\n",
        "                    state.work.wheel.put(task.row.task_id, (task.row.not_before_ms or 0) + 60_000)\n",
    ),
    "who is told to stop goes on": (
        '        refused = "it is not tried again"\n',
        '        refused = ""\n',
    ),
    "a provider that is to be avoided is taken": (
        "    if shape.shunned and is_shunned(",
        "    if shape.shunned and not is_shunned(",
    ),
    "a verdict asks for more than there are retries": (
        "        refused = no_more(state, job, step, task, cause_of(exit), policy, helps=True)\n",
        '        refused = ""\n',
    ),
}
"""Caught in the worlds that have verdicts."""
DATA_BUGS = {
    "a fenced attempt goes on saving": (
        "        raise _not_connected(claim) if may_revive(state, attempt) else stale(claim)\n",
        "        pass\n",
    ),
    "what was referred to meanwhile is swept": (
        "        if len(gone) < policy.sweep_max and key not in sweep.referred and not young and not missed:\n",
        "        if len(gone) < policy.sweep_max and not missed:\n",
    ),
    "storage counts a blob twice": (
        "        row = replace(row, touched_ms=state.now_ms, sha256=row.sha256 or sha256)\n",
        "        row = replace(row, touched_ms=state.now_ms)\n        storage_changes(state, tenant, size, out)\n",
    ),
    "a damaged checkpoint is offered again": (
        "        left = tuple(n for n in task.row.checkpoints if n != number)\n",
        "        left = task.row.checkpoints\n",
    ),
    "a checkpoint is another task's": (
        "        task=of.task,\n        number=number,\n",
        "        task=0,\n        number=number,\n",
    ),
    "a published upload stays open": (
        '    out.writes.append(Delete("upload", row.upload_id))\n',
        "",
    ),
    "a job with outputs completes without them": (
        "    if home is None or not home[1].spec.outputs:\n",
        "    if home is None or home[1].spec.outputs:\n",
    ),
    "what was saved is lost all the same": (
        "    return began_ms if row is None or row.saved_ms is None else max(began_ms, row.saved_ms)\n",
        "    return began_ms\n",
    ),
    "any rank says how far the attempt is": (
        " or not is_live(attempt) or event.rank:\n",
        " or not is_live(attempt):\n",
    ),
    "a replacement is fetched for by another provider": (
        "            tell(state, row.provider_id, Warm(",
        "            tell(state, max(state.providers), Warm(",
    ),
    "a result is held by nobody": (
        "    out.writes.append(Put(HoldRow(tenant=tenant, holder=holder_of_result(",
        "    out.writes.count(Put(HoldRow(tenant=tenant, holder=holder_of_result(",
    ),
}
"""Caught in the worlds that have data."""

FOUND_BY = {
    "a suspect that came back is looked at late": 9,
    "silence is judged by an interval that the agent has not heard of": 3,
    "a full disk takes the renewals along": 0,
    "a planned stop is charged": 4,
    "a term shrinks before the agent knows": 59,
    "a planned stop makes no lease longer": 26,
    "capacity is given back before the machine says so": 14,
    "something starts at a budget that is used up": 11,
    "work goes on at the end of a budget": 6,
    "a keeper starts those in line beyond its room": 6,
    "a fenced attempt goes on saving": 38,
    "what was referred to meanwhile is swept": 5,
    "storage counts a blob twice": 17,
    "a damaged checkpoint is offered again": 2,
    "a job with outputs completes without them": 5,
    "a verdict on an older attempt is obeyed": 9,
    "who is told to stop goes on": 9,
    "a quota of running jobs is off by one": 9,
    "one in line holds room that is not there": 6,
    "who is awaited is awaited for ever": 4,
    "what is reserved is not counted": 2,
    "a replacement is fetched for by another provider": 5,
    "a full disk keeps what was charged in vain": 4,
    "a lease that was taken back is launched when its agent says with others that it holds it": 3,
    "an awaited session lasts until it was given up": 1,
    "any rank says how far the attempt is": 5,
}
"""Where the first seeds find nothing, the one that did: tried first, since another world costs a second. A world that
changes makes these worth nothing, and nothing wrong."""
LIGHT_BUGS = {
    "what a tenant had is not remembered": (
        "shares",
        "    account.share = _decayed(account.share, now, past_ms, accounts.half_life_ms)\n",
        "    account.share = 0.0\n",
    ),
    "who pays back gets nothing meanwhile": (
        "incumbents",
        "        return lately(accounts, account) >= least, ",
        "        return False, ",
    ),
    "weights do not count": (
        "shares",
        "dominant(accounts, account)) / account.tenant.weight",
        "dominant(accounts, account))",
    ),
    "nobody ages": (
        "floods",
        "    return (now_ms - band.since_ms) // policy.aging_ms if band.since_ms is not None else 0\n",
        "    return 0\n",
    ),
    "aging undoes the shares of equals": (
        "shares",
        "min(priority + aged, max(priority, top))",
        "priority + aged",
    ),
    "whoever has a time limit passes a planned start": (
        "backfill",
        "    return want.limit_ms is not None and now_ms + want.limit_ms + SLACK_MS <= plan.start_ms\n",
        "    return want.limit_ms is not None\n",
    ),
    "the first of the queue waits for its plan": (
        "backfill",
        "        now_and_then = not first or len(work.queue) == 1\n",
        "        now_and_then = True\n",
    ),
}
"""Caught by the light world that is named."""


@contextmanager
def planted(old: str, new: str) -> Iterator[None]:
    """Within the block the core decides by a text in which `old`, found once in all of it, is `new`."""
    texts = {module: Path(str(module.__file__)).read_text() for module in DECIDING}
    found = [module for module, text in texts.items() for _ in range(text.count(old))]
    assert 1 == len(found), f"found {len(found)} times: {old}"
    (target,) = found
    kept = {module: dict(vars(module)) for module in DECIDING}
    try:
        exec(compile(texts[target].replace(old, new), str(target.__file__), "exec"), vars(target))
        for module in DECIDING:
            _rebind(module, target, kept[target])
        yield
    finally:
        for module, names in kept.items():
            vars(module).update(names)


def _rebind(module: ModuleType, target: ModuleType, before: dict[str, object]) -> None:
    """Names that `module` imported from the planted one follow its new text."""
    for name, value in list(vars(module).items()):
        if name in before and value is before[name] and getattr(value, "__module__", "") == target.__name__:
            setattr(module, name, vars(target)[name])


def caught_by(bug: str) -> tuple[int, list[str]] | None:
    """The seed that found it before, else the first that does, with the story that it tells."""
    seeds = range(SEEDS_MAX)
    if bug in DATA_BUGS:
        seeds = range(DATA_EVERY - 1, SEEDS_MAX, DATA_EVERY)
    elif bug in VERDICT_BUGS:
        seeds = range(VERDICTS_AT, SEEDS_MAX, VERDICTS_EVERY)
    first = FOUND_BY.get(bug, seeds[0])
    for seed in (first, *(seed for seed in seeds if seed != first)):
        lines: list[str] = []
        if story.run(seed, EVENTS, lines.append):
            return seed, lines
    return None


@pytest.mark.parametrize("bug", [*BUGS, *DATA_BUGS, *VERDICT_BUGS])
def test_a_planted_bug_is_caught(bug: str) -> None:
    """Within a bounded number of seeds; the story says what was violated and how to see it again."""
    with planted(*{**BUGS, **DATA_BUGS, **VERDICT_BUGS}[bug]):
        caught = caught_by(bug)
        assert caught is not None, f"{SEEDS_MAX} seeds did not notice that {bug}"
    seed, lines = caught
    assert lines[-2].removeprefix("VIOLATED ") not in ("", lines[-2])
    assert f"replay it: coord simulate --seed {seed} --steps {EVENTS}" == lines[-1]
    assert 0 == story.run(0, 200, lines.append), "the bug stays behind"


def test_what_is_violated_is_violated_again_by_its_seed() -> None:
    """The same story to its last word, also for who looks at the outcome alone."""
    bug = "the last heartbeat is forgotten"
    with planted(*BUGS[bug]):
        caught = caught_by(bug)
        assert caught is not None
        seed, lines = caught
        again: list[str] = []
        assert 1 == story.run(seed, EVENTS, again.append)
        assert lines == again
        assert f"VIOLATED {story.simulate(seed, EVENTS).violation}" == lines[-2]


@pytest.mark.parametrize("bug", LIGHT_BUGS)
def test_a_planted_unfairness_is_caught(bug: str) -> None:
    world, old, new = LIGHT_BUGS[bug]
    seeds = [seed for seed in range(LIGHT_SEEDS_MAX) if fairness.world_of(seed).__name__.lower() == world]
    with planted(old, new):
        caught = next((seed for seed in seeds if fairness.be_fair(seed).violation), None)
        assert caught is not None, f"{len(seeds)} seeds did not notice that {bug}"
    assert not fairness.be_fair(caught).violation, "the bug stays behind"
