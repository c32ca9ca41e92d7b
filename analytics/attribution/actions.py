"""What to do about what it died of: the signature's action, changed by how far it came and by what happened before."""

from __future__ import annotations

from analytics.attribution.case import Case, Choice, Decision, Happening
from analytics.attribution.taxonomy import CLASSES, NEVER
from coordinator.core.verdict.rows import Cause, Fault, PastVerdict, Recommendation, Role

MEMORY_STEPS = 100
"""A run that came so far, and has a checkpoint, fitted into the memory of the GPU once: it may again."""
WRONG_EVERYWHERE = 2
"""So many other providers have seen the same without progress: it is none of theirs."""
AMBIGUOUS = frozenset(
    {
        Cause.NCCL_TIMEOUT,
        Cause.PROCESS_KILLED_UNKNOWN,
        Cause.NATIVE_CRASH,
        Cause.NETWORK_FABRIC,
        Cause.RENDEZVOUS,
        Cause.STORAGE_FS,
        Cause.LAUNCHER_SUMMARY_ONLY,
    }
)
"""May be the machine's doing as well as the program's."""
OF_OTHERS = frozenset({Cause.NCCL_TIMEOUT, Cause.NETWORK_FABRIC})
"""The rank that tells of it is not the one that it tells of."""
SILENT_SHOWN = 8
SUMMARY_MAX = 400
WROTE_NOTHING = "it ended, and wrote nothing that says why"
WRITE_SOMETHING = (
    "It wrote nothing, or nothing of it has come. Let it say on its error output why it fails (a shell script: sh -x)."
)


def decide(case: Case, choice: Choice, root: str = "") -> Decision:
    """Deterministic: the same case, choice and history give the same decision."""
    kind = CLASSES[choice.cause]
    action = _action(case, choice, root)
    blamed = _suspected(case, choice) if action is Recommendation.RESTART else ()
    if blamed:
        action = Recommendation.RESTART_ELSEWHERE
    fault = _fault(case, choice, root)
    points = action is Recommendation.RESTART and (fault is Fault.PROVIDER or choice.cause is Cause.NCCL_TIMEOUT)
    avoid = _avoid(case, choice) if points or action is Recommendation.RESTART_ELSEWHERE else ()
    avoid = tuple(dict.fromkeys((*avoid, *blamed)))
    return Decision(
        fault=fault,
        recommendation=action,
        confidence=_confidence(case, choice),
        summary=_summary(case, choice),
        advice=_advice(choice, action, WRITE_SOMETHING if _wrote_nothing(case, choice) else kind.advice),
        avoid=avoid,
    )


def _action(case: Case, choice: Choice, root: str) -> Recommendation:
    kind = CLASSES[choice.cause]
    if choice.primary is None or choice.cause in (Cause.OK, Cause.UNKNOWN):
        first = repeat = kind.action
        if first is Recommendation.RESTART:
            repeat = Recommendation.STOP
    else:
        first, repeat = choice.primary.row.first, choice.primary.row.repeat
    if choice.cause is Cause.GPU_OOM and _went_far(case):
        first = Recommendation.RESTART
    if kind.patience >= NEVER or _progressed(case):
        return first
    met = [past for past in case.history if _same(past, choice, root) and _in_vain(past)]
    if len(met) > kind.patience:
        return repeat
    return first


def _went_far(case: Case) -> bool:
    """It has run well with the same settings: what it asks for can be had."""
    return case.seen.steps >= MEMORY_STEPS and (case.seen.checkpoints > 0 or case.seen.restored)


def _progressed(case: Case) -> bool:
    """A restart does not begin where this run began."""
    return case.seen.checkpoints > 0


def _in_vain(past: PastVerdict) -> bool:
    """It says that another attempt comes to the same point. A hiccup that many tasks of a job meet at once does not."""
    return not past.progressed and not past.first_of_another


def _same(past: PastVerdict, choice: Choice, root: str) -> bool:
    if past.cause is not choice.cause:
        return False
    return not root or not past.root or past.root == root


def _suspected(case: Case, choice: Choice) -> tuple[str, ...]:
    """Where nobody can say whose fault it was, a provider that other jobs' verdicts blame is not given it again."""
    return tuple(name for name in case.where if name in case.suspected) if choice.cause in AMBIGUOUS else ()


def _fault(case: Case, choice: Choice, root: str) -> Fault:
    """The class's; a provider's no longer where other providers have seen the same."""
    fault = CLASSES[choice.cause].fault
    if fault is not Fault.PROVIDER or choice.cause is Cause.NODE_FAILURE:
        return fault
    here = set(case.where)
    others = {past.provider_id for past in case.history if _same(past, choice, root)} - here
    return Fault.UNKNOWN if len(others) >= WRONG_EVERYWHERE else fault


def _avoid(case: Case, choice: Choice) -> tuple[str, ...]:
    """Providers that the evidence points to; hosts that the log names, where no provider is known."""
    if choice.cause in _NOBODYS_PLACE:
        return ()
    if choice.cause is Cause.NCCL_TIMEOUT:
        return _absent(case) if case.sources > 1 else ()
    if choice.primary is None:
        alone = len(set(case.where)) == 1  # of several the end of one tells nothing of the others
        return case.where[:1] if alone and CLASSES[choice.cause].fault is Fault.PROVIDER else ()
    sources = _sources(case, choice.primary)
    if case.where:
        return tuple(dict.fromkeys(case.where[source] for source in sources if source < len(case.where)))
    host = choice.primary.open.host.decode(errors="replace")
    return (host,) if host else ()


def _sources(case: Case, primary: Happening) -> tuple[int, ...]:
    same = {one.source for one in case.happenings if one.row.id == primary.row.id and not one.refuted}
    return tuple(sorted(same | {primary.source}))


def _absent(case: Case) -> tuple[str, ...]:
    """Where a collective timed out: those of whom no rank reported it."""
    told = {one.source for one in case.happenings if one.row.cause is Cause.NCCL_TIMEOUT and not one.refuted}
    if not told or len(told) == case.sources:
        return ()
    return tuple(dict.fromkeys(name for source, name in enumerate(case.where) if source not in told))


def _confidence(case: Case, choice: Choice) -> float:
    """More when others say the same, less when it is met alone in the middle of much else."""
    sure = choice.confidence
    if any(one.row.role is Role.CONFIRM and one.row.cause is choice.cause for one in choice.evidence):
        sure += 0.05
    if choice.primary is not None and choice.primary.steps_after > 0:
        sure -= 0.2
    if case.sources > 1 and choice.primary is not None and len(_sources(case, choice.primary)) > 1:
        sure += 0.03
    return min(0.99, max(0.1, sure))


def _summary(case: Case, choice: Choice) -> str:
    headline = WROTE_NOTHING if _wrote_nothing(case, choice) else CLASSES[choice.cause].headline
    if choice.primary is None:
        return _ended(case, choice, headline)
    note = choice.primary.row.note
    text = note if note.startswith(headline) else f"{headline}: {note}"
    ranks = choice.primary.ranks
    if ranks:
        by = "told by " if choice.cause in OF_OTHERS else ""
        who = f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks, first {choice.primary.open.rank}"
        text += f" ({by}{who})"
    if choice.silent:
        text += f"; nothing came from rank{'s' * (len(choice.silent) > 1)} {_listed(choice.silent)}"
    if case.seen.last_step is not None and choice.primary.steps_after == 0:
        text += f", after step {case.seen.last_step}"
    return text[:SUMMARY_MAX]


def _listed(ranks: tuple[int, ...]) -> str:
    more = len(ranks) - SILENT_SHOWN
    return ", ".join(map(str, ranks[:SILENT_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _wrote_nothing(case: Case, choice: Choice) -> bool:
    """There is no last line to look at."""
    return choice.cause is Cause.UNKNOWN and case.seen.lines == 0


def _ended(case: Case, choice: Choice, headline: str) -> str:
    if case.end is None or choice.cause is Cause.OK:
        return headline
    return f"{headline} ({case.end.words})"[:SUMMARY_MAX] if case.end.words else headline


def _advice(choice: Choice, action: Recommendation, advice: str) -> str:
    first = choice.primary.row.first if choice.primary is not None else CLASSES[choice.cause].action
    if action is Recommendation.STOP and first is not Recommendation.STOP:
        return f"The same came again without progress, so another attempt is not worth it. {advice}"
    return advice


_NOBODYS_PLACE = frozenset(
    {Cause.PREEMPTION, Cause.CAPACITY, Cause.TIME_LIMIT, Cause.USER_CANCELLED, Cause.PORT_IN_USE}
)
"""The provider is as good as any other."""
