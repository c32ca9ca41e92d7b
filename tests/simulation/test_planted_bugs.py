"""The simulator must find what is wrong: each bug here is planted into the core's text, and must be caught.

One is planted into the model of the agents: a keeper that forgets to freeze. The witness must see that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from coordinator.core import (
    alive,
    arrivals,
    attempts,
    challenges,
    endings,
    jobs,
    leases,
    liveness,
    loss,
    pace,
    placement,
    providers,
    publish,
    queue,
    reload,
    renewals,
    restart,
    retries,
    sessions,
    work_carrying,
    work_loading,
    work_time,
)
from coordinator.simulator import fates, keeper, story

SEEDS_MAX = 80
EVENTS = 2_000

DECIDING = (
    alive,
    arrivals,
    attempts,
    challenges,
    endings,
    jobs,
    leases,
    liveness,
    loss,
    pace,
    placement,
    providers,
    publish,
    queue,
    reload,
    renewals,
    restart,
    retries,
    sessions,
    work_carrying,
    work_loading,
    work_time,
    keeper,
    fates,
)
"""Where a bug may be planted."""
BUGS = {
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
        "        and task.newest == attempt.row.token\n        and attempt.row.attempt not in task.attempts\n",
        "        and attempt.row.attempt not in task.attempts\n",
    ),
    "the end of a fenced attempt counts": (
        "    if is_live(attempt):\n        end_rank(state, attempt, rank, exit, by, policy, out)\n        return\n",
        "    if attempt.row.ranks:\n        end_rank(state, attempt, rank, exit, by, policy, out)\n        return\n",
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
        "        if not is_live(attempt) and not _counts_again(state, attempt, rank, provider, out):\n",
        "        if attempt.row.attempt < 0:\n",
    ),
    "a term shrinks before the agent knows": (
        "        attempt.shrinks[rank] = (beat.seq, term_ms)\n",
        "        attempt.terms_ms[rank] = term_ms\n",
    ),
    "an attempt is launched before all of its leases are held": (
        "    if all(row.acked for row in attempt.row.ranks):\n",
        "    if any(row.acked for row in attempt.row.ranks):\n",
    ),
    "a provider's silence puts nothing in doubt": (
        "        attempt.silent.add(rank)\n        attempt.shrinks.pop(rank, None)\n        _doubt(",
        "        if rank > 5:\n            _doubt(",
    ),
    "a planned stop makes no lease longer": (
        "            attempt.terms_ms[rank] += longer_ms\n",
        "            attempt.terms_ms[rank] += 0\n",
    ),
    "a full disk takes the renewals along": (
        "    attempt.renewed_ms = list(before.renewed_ms)\n",
        "    attempt.renewed_ms = [attempt.row.created_at_ms for _ in ranks]\n",
    ),
    "an idempotency key makes two jobs": (
        "    work.by_key[",
        "    dict[object, object]()[",
    ),
}


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


def first_violation() -> tuple[int, str] | None:
    for seed in range(SEEDS_MAX):
        outcome = story.simulate(seed, EVENTS)
        if outcome.violation:
            return seed, outcome.violation
    return None


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    """Within a bounded number of seeds, and replayed by its seed."""
    with planted(*BUGS[bug]):
        caught = first_violation()
        assert caught is not None, f"{SEEDS_MAX} seeds did not notice that {bug}"
        seed, violation = caught
        lines: list[str] = []
        assert 1 == story.run(seed, EVENTS, lines.append)
        assert f"VIOLATED {violation}" == lines[-2]
        assert f"replay it: coord simulate --seed {seed} --steps {EVENTS}" == lines[-1]
    assert 0 == story.run(0, 200, lines.append), "the bug stays behind"
