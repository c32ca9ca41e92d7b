"""Which of the things that happened it died of.

The earliest root that later progress does not refute, with these limits. A *definite* cause (a broken GPU, a full
disk) outranks the *symptoms* before it: an exception of which only the form is known, a crash, a kill. A confirming
line (the kernel's report) outranks a bare kill. What may be the work of a peer's death, or of a request to end, gives
way to it. A cascade counts only where there is no root, a lifecycle only where nothing failed before it, and what
launchers tell of others last of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analytics.attribution.case import Case, Choice, End, Happening
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Role

FORM_ONLY = "any_"
"""Ids of rows that know only the form of an error begin so."""
SHELL = "any_shell_"
"""Complaints of commands in a script, which goes on: they give way to any other root, wherever it stands."""
LAST_RESORT = frozenset(
    {
        "timeout_error",
        "connection_lost",
        "native_gave_up",
        "nccl_in_pytorch",
        "not_connected",
        "gpu_library",
        "killed_shell",
        "xid_program",
        "ray_actor_died",
        "mpi_proxies",
    }
)
"""Cascades that give way to any other one."""
NO_REASON = frozenset({"cancelled", "step_cancelled", "told_to_end"})
"""Lifecycles that may follow from another one."""
TELLS_OF_AN_END = frozenset({"launcher_batch", "launcher_exit_code", "launcher_mpi"})
"""Launchers' lines before which some process had ended by itself; others only tell of their own killing."""
FADES = frozenset({"loss_scale_falls", "loss_nan_step"})
"""Signs that come with every step for as long as they hold: a step without one ends them."""
PROGRAM = frozenset(
    {
        Cause.USER_CODE,
        Cause.CONFIG_ERROR,
        Cause.DATA_ERROR,
        Cause.ENV_DEPENDENCY,
        Cause.EXTERNAL_SERVICE,
        Cause.PERMISSION,
        Cause.AUTH,
    }
)
"""What programs complain of and can live with."""
WENT_ON_LINES = 40
"""After so many lines without a word of failure it did, where nobody says how it ended."""
WHY_IT_CRASHED = frozenset({"gpu_illegal_access", "device_assert"})
EXPLAINS_LINES = 6
DEFINITE = frozenset(
    {
        Cause.GPU_HARDWARE,
        Cause.GPU_OOM,
        Cause.HOST_OOM,
        Cause.NODE_FAILURE,
        Cause.NODE_PRESSURE_EVICTION,
        Cause.STORAGE_FULL,
        Cause.STORAGE_FS,
        Cause.QUOTA,
        Cause.CAPACITY,
        Cause.CHECKPOINT_CORRUPT,
        Cause.CHECKPOINT_MISMATCH,
        Cause.IMAGE_PULL,
    }
)
SOFT = frozenset(
    {
        Cause.PROCESS_KILLED_UNKNOWN,
        Cause.NATIVE_CRASH,
        Cause.EXTERNAL_SERVICE,
        Cause.RENDEZVOUS,
        Cause.NETWORK_FABRIC,
        Cause.NCCL_TIMEOUT,
    }
)
"""May be what others saw of it when one was killed or told to end."""
CRASH_SIGNALS = frozenset({4, 6, 7, 8, 11})
EVIDENCE = 6


def choose(case: Case) -> Choice:
    """The cause, the line that it rests on, and how sure that is. Pure."""
    if _succeeded(case.end):
        return Choice(Cause.OK, None, confidence=0.9)
    live = [one for one in case.happenings if not one.usual and not _is_over(one, case)]
    if not _is_ended(case.end):
        live = [one for one in live if not _went_on(one, live)]
    by_role = {role: [one for one in live if one.row.role is role] for role in Role}
    found = (
        _root_or_end(_root(by_role), _end_first(case.end))
        or _cascade_or_lifecycle(by_role)
        or _end_last(case.end)
        or _summary(by_role[Role.CASCADE])
    )
    if found is None:
        return _nothing(case)
    if found.primary is None:
        return found
    return Choice(
        found.cause,
        found.primary,
        evidence=_evidence(found.primary, live),
        confidence=found.confidence,
        silent=_silent(case, live) if found.cause is Cause.NCCL_TIMEOUT else (),
    )


def _root_or_end(root: Choice | None, end: Choice | None) -> Choice | None:
    """What the agent knows for certain outranks what may be seen of it in the log: a kill, a lost peer, a crash."""
    if root is None or root.primary is None or end is None:
        return root or end
    return Choice(end.cause, None, (root.primary,), end.confidence) if _is_soft(root.primary) else root


def _root(by_role: dict[Role, list[Happening]]) -> Choice | None:
    """A root, or the line that confirms a kill; None where a request to end came before."""
    primary = _earliest_root(by_role[Role.ROOT])
    confirm = _earliest(by_role[Role.CONFIRM])
    if confirm is not None and (primary is None or _is_soft(primary) or _before(confirm, primary)):
        return Choice(confirm.row.cause, confirm, confidence=0.9)
    if primary is None:
        return None
    asked = _asked(by_role[Role.LIFECYCLE])
    if asked is not None and _is_soft(primary) and _before(asked, primary):
        return None
    return Choice(primary.row.cause, primary, confidence=_confidence(primary))


def _earliest_root(roots: Sequence[Happening]) -> Happening | None:
    first = _earliest([one for one in roots if not one.row.id.startswith(SHELL)]) or _earliest(roots)
    if first is None:
        return None
    if _is_form(first):
        told = [one for one in roots if not _is_form(one) and (_same_episode(one, first) or _explains(one, first))]
        first = _earliest(told) or first
    if _is_symptom(first):
        return _earliest([one for one in roots if _says_why(one)]) or first
    return first


def _asked(lifecycles: Sequence[Happening]) -> Happening | None:
    """Who ended it: a line that says why outranks those that only say that."""
    return _earliest([one for one in lifecycles if one.row.id not in NO_REASON]) or _earliest(lifecycles)


def _cascade_or_lifecycle(by_role: dict[Role, list[Happening]]) -> Choice | None:
    cascades = [one for one in by_role[Role.CASCADE] if one.row.cause is not Cause.LAUNCHER_SUMMARY_ONLY]
    told = [one for one in cascades if not _is_vague(one)]
    asked = _asked(by_role[Role.LIFECYCLE])
    first = _earliest(told) or _earliest([one for one in cascades if one.row.id in LAST_RESORT])
    summary = _earliest([one for one in by_role[Role.CASCADE] if one.row.id in TELLS_OF_AN_END])
    if asked is not None and asked.row.id == "step_cancelled" and summary is not None and _before(summary, asked):
        asked = None
    if asked is not None and (first is None or not _before(first, asked)):
        return Choice(asked.row.cause, asked, confidence=0.85)
    return Choice(first.row.cause, first, confidence=0.6) if first is not None else None


def _summary(cascades: Sequence[Happening]) -> Choice | None:
    """What launchers tell, and a traceback without its end."""
    killed = _earliest([one for one in cascades if one.row.id == "launcher_signal_9"])
    failed = any(one.row.id == "launcher_exit_code" for one in cascades)
    if killed is not None and not failed:
        return Choice(killed.row.cause, killed, confidence=0.5)
    cut = _earliest([one for one in cascades if _is_form(one) and one.row.cause is not Cause.LAUNCHER_SUMMARY_ONLY])
    summary = _earliest([one for one in cascades if one.row.cause is Cause.LAUNCHER_SUMMARY_ONLY])
    last = cut if cut is not None and (summary is None or _before(cut, summary)) else summary
    return Choice(last.row.cause, last, confidence=0.35) if last is not None else None


def _succeeded(end: End | None) -> bool:
    return end is not None and end.cause in (EndCause.EXITED, None) and end.code == 0 and end.signal is None


def _end_first(end: End | None) -> Choice | None:
    """What the agent knows for certain."""
    causes = {
        EndCause.OOM: (Cause.HOST_OOM, 0.95),
        EndCause.TIMEOUT: (Cause.TIME_LIMIT, 0.95),
        EndCause.LOG_FULL: (Cause.CONFIG_ERROR, 0.8),
        EndCause.OUTPUT: (Cause.CONFIG_ERROR, 0.6),
        EndCause.EXPIRED: (Cause.NODE_FAILURE, 0.8),
        EndCause.AGENT: (Cause.NODE_FAILURE, 0.8),
    }
    found = causes.get(end.cause) if end is not None and end.cause is not None else None
    return Choice(found[0], None, confidence=found[1]) if found is not None else None


def _end_last(end: End | None) -> Choice | None:
    """What an exit code or a signal says where no line says anything."""
    if end is None:
        return None
    if end.cause is EndCause.STAGE:
        cause = {28: Cause.STORAGE_FULL, 2: Cause.DATA_ERROR}.get(end.code or 0, Cause.EXTERNAL_SERVICE)
        return Choice(cause, None, confidence=0.6)
    if end.cause is EndCause.START:
        return Choice(Cause.ENV_DEPENDENCY, None, confidence=0.5)
    if end.cause is EndCause.STOPPED:
        return Choice(Cause.USER_CANCELLED, None, confidence=0.6)
    signal = (
        end.signal if end.signal is not None else (end.code - 128 if end.code is not None and end.code > 128 else None)
    )
    if signal in CRASH_SIGNALS:
        return Choice(Cause.NATIVE_CRASH, None, confidence=0.6)
    if signal == 9:
        return Choice(Cause.PROCESS_KILLED_UNKNOWN, None, confidence=0.6)
    if signal == 15:
        return Choice(Cause.PREEMPTION, None, confidence=0.4)
    if signal == 2:
        return Choice(Cause.USER_CANCELLED, None, confidence=0.6)
    return None


def _nothing(case: Case) -> Choice:
    if _is_ended(case.end):
        return Choice(Cause.UNKNOWN, None, confidence=0.2)
    return Choice(Cause.OK, None, confidence=0.8 if case.seen.steps or case.seen.finished else 0.5)


def _silent(case: Case, live: Sequence[Happening]) -> tuple[int, ...]:
    """Ranks that did not report the timeout that others report: it is they who did not come."""
    told = {rank for one in live if one.row.cause is Cause.NCCL_TIMEOUT for rank in one.ranks}
    if not told or any(one.ranks_more for one in live):
        return ()
    everybody = range(case.world) if case.world is not None else case.ranks
    return tuple(rank for rank in everybody if rank not in told)


def _evidence(primary: Happening, live: Sequence[Happening]) -> tuple[Happening, ...]:
    """The same cause told otherwise, then what confirms it, then what followed."""
    weight = {Role.CONFIRM: 1, Role.ROOT: 2, Role.LIFECYCLE: 3, Role.CASCADE: 4}
    others = [one for one in live if one is not primary and one.row.role in weight]
    others.sort(key=lambda one: (0 if one.row.cause is primary.row.cause else weight[one.row.role], _when(one)))
    return tuple(others[:EVIDENCE])


def _confidence(primary: Happening) -> float:
    if _is_form(primary):
        return 0.6
    return 0.7 if primary.row.cause in SOFT else 0.9


def _is_form(one: Happening) -> bool:
    return one.row.id.startswith(FORM_ONLY)


def _is_symptom(one: Happening) -> bool:
    return _is_form(one) or one.row.cause in (Cause.NATIVE_CRASH, Cause.PROCESS_KILLED_UNKNOWN)


def _is_soft(one: Happening) -> bool:
    return _is_form(one) or one.row.cause in SOFT


def _is_vague(one: Happening) -> bool:
    return _is_form(one) or one.row.id in LAST_RESORT or one.row.id == "launcher_signal_9"


def _same_episode(one: Happening, other: Happening) -> bool:
    return one.source == other.source and one.open.episode > 0 and one.open.episode == other.open.episode


def _explains(one: Happening, header: Happening) -> bool:
    after = one.open.order - header.open.order
    return one.source == header.source and 0 < after <= EXPLAINS_LINES


def _says_why(one: Happening) -> bool:
    return one.row.cause in DEFINITE or one.row.id in WHY_IT_CRASHED


def _is_ended(end: End | None) -> bool:
    return end is not None and (end.cause is not None or end.code is not None or end.signal is not None)


def _is_over(one: Happening, case: Case) -> bool:
    """The program went on after it as it would have without."""
    if one.row.id in FADES and not case.seen.finished:
        between = (one.last.steps - one.first.steps) / (one.count - 1) if one.count > 1 else 0
        return one.steps_after >= max(1, between)
    return one.refuted or (one.steps_after > 0 and (_is_mild(one) or one.row.id.startswith(SHELL)))


def _went_on(one: Happening, live: Sequence[Happening]) -> bool:
    """Nobody says how it ended, and what was complained of in the middle of the log is not what it ends with."""
    if one.row.role is not Role.ROOT or one.row.cause not in PROGRAM:
        return False
    if _is_mild(one):
        return True
    later = any(other.row.role is not Role.BENIGN and other.last.order > one.last.order for other in live)
    return one.lines_after >= WENT_ON_LINES and not later


def _is_mild(one: Happening) -> bool:
    return one.open.mild and not one.open.episode


def _before(one: Happening, other: Happening) -> bool:
    return one.moment < other.moment


def _earliest(happenings: Iterable[Happening]) -> Happening | None:
    return min(happenings, key=_when, default=None)


def _when(one: Happening) -> int:
    return one.moment
