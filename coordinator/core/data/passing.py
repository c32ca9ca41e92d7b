"""What a step leaves to those behind it: which files its agent keeps copies of, and which ones they will take.

The core matches no patterns. A literal one means its path; any other is taken to mean everything beneath the directory
that it begins with: for where a task is best placed that is good enough. Patterns with a placeholder mean other files
for each task, and tasks that stand in one line are placed by what is the same for all of them: they say nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.core.data.rows import FileEntry
from coordinator.core.queue.lines import FETCH_MIN, FETCHED_MAX, want_of
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import Input
from coordinator.core.work.live import Job, Step
from coordinator.core.work.transitions import touch_step

LOOKED_AT_MAX = 256
"""The largest files of a task, that are looked at."""
_SPECIAL = "*?["


def passed_on(job: Job, step: Step) -> tuple[str, ...]:
    """The patterns by which later steps take its outputs, each once, as they were written."""
    if not step.spec.outputs:
        return ()
    return tuple(dict.fromkeys(wanted.pattern for later in _behind(job, step) for wanted in _of(later, step)))


def pass_on(state: ClusterState, job: Job, step: Step, files: Sequence[FileEntry]) -> None:
    """A task of it published these: steps behind it that have not begun, and so stand in no line, know what they will
    take. O(files)."""
    large: list[FileEntry] | None = None
    for later in _behind(job, step):
        patterns = [wanted.pattern for wanted in _of(later, step) if "{" not in wanted.pattern]
        if later.ready or not patterns:
            continue
        if large is None:
            large = [entry for entry in files if entry.size >= FETCH_MIN]
            large = sorted(large, key=lambda entry: (-entry.size, entry.path))[:LOOKED_AT_MAX]
        taken = [entry for entry in large if any(_means(pattern, entry.path) for pattern in patterns)]
        made = dict(later.row.made) | {entry.digest: entry.size for entry in taken[:FETCHED_MAX]}
        largest = tuple(sorted(made.items(), key=lambda entry: (-entry[1], entry[0]))[:FETCHED_MAX])
        if largest != later.row.made:
            touch_step(state, later, made=largest)
            later.want = want_of(job.row.tenant, job.row.priority, later.spec, largest)


def _behind(job: Job, step: Step) -> list[Step]:
    return job.steps[step.row.step + 1 :]


def _of(later: Step, step: Step) -> Iterable[Input]:
    return (wanted for wanted in later.spec.inputs if wanted.step == step.row.step)


def _means(pattern: str, path: str) -> bool:
    pattern = pattern.removeprefix("./")
    at = min((pattern.find(character) for character in _SPECIAL if character in pattern), default=-1)
    return path == pattern if at < 0 else path.startswith(pattern[: pattern.rfind("/", 0, at) + 1])
