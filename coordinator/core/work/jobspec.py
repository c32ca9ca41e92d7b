"""A job as it was asked for, checked and in plain units: what the core decides by and the store keeps.

`coordinator.jobfile` makes it from TOML or JSON. Nothing here depends on where or when it runs. Lengths of time are
milliseconds, memory is bytes, amounts are as in `amounts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from coordinator.core.amounts import Ask
from coordinator.core.ids import Digest, Ms, PoolName

STEPS_MAX = 1_000
TASKS_MAX = 10_000_000
"""Of one step."""
PRIORITY_MIN, PRIORITY_MAX = -100, 100
SPEC_BYTES_MAX = 4 * 1024 * 1024
"""Of the whole specification as JSON, an array's own items included."""


class When(StrEnum):
    """Which end of the steps that it needs lets a step start."""

    SUCCEEDED = "succeeded"
    """All of them completed."""
    FAILED = "failed"
    """All of them ended, and at least one failed."""
    FINISHED = "finished"
    """All of them ended, however."""


class Isolation(StrEnum):
    """How far an attempt is kept from its neighbours and the agent; each includes the one before."""

    NONE = "none"
    UID = "uid"
    SANDBOX = "sandbox"


class LogFull(StrEnum):
    """What happens at a log's bound."""

    TRUNCATE = "truncate"
    """What is beyond is dropped, marked and counted."""
    BLOCK = "block"
    """The program waits until what was written is stored (the bound is then of what is not stored yet)."""
    FAIL = "fail"
    """The attempt is ended and has failed."""


class Overlap(StrEnum):
    FORBID = "forbid"
    ALLOW = "allow"
    """A replacement starts at once: results are fenced, side effects are not."""


class Arrangement(StrEnum):
    """Which of the providers that are equally good otherwise is taken."""

    PACK = "pack"
    """The fullest one that has room: free ones stay free for those who need them whole."""
    SPREAD = "spread"
    """The emptiest one: neighbours disturb each other least, and one loss takes least along."""


class Estimate(Struct, frozen=True, gc=False, kw_only=True):
    """What a job is declared to use, all of its tasks together. Whole numbers; reserved until it ends."""

    cost: int | None = None
    """Millionths of the unit of account; None: made from resources, run time and prices."""
    storage: int = 0
    """Bytes that stay; the next two are bytes that travel to and from providers."""
    ingress: int = 0
    egress: int = 0


class OnLost(Struct, frozen=True, gc=False, kw_only=True):
    """What to do when the provider of an attempt is lost."""

    mode: str = "auto"
    """`retry`, `wait` or `auto`."""
    wait_ms: Ms = 0
    """Of `wait`."""


class Heed(StrEnum):
    """What the verdict on a failure is worth."""

    OBEY = "obey"
    """It decides whether and where the task is tried again."""
    ADVISE = "advise"
    """It is shown; the rules for exit codes decide."""
    OFF = "off"
    """None is asked for."""


class RetryRule(Struct, frozen=True, gc=False, kw_only=True):
    """When a failure is tried again. Losses of a provider have a budget of their own."""

    limit: int = 3
    losses: int = 10
    delay_ms: Ms = 5_000
    factor: float = 2.0
    delay_max_ms: Ms = 600_000
    on: tuple[str, ...] = ()
    """Causes: `exit:N`, `exit:N-M`, `signal:NAME`, `timeout`, `oom`, `log_full`, `stalled`, `output`, `start`, `any`.
    Empty: the default, every failure but exit 126 and 127, a time limit, a full log and a missing output."""
    never: tuple[str, ...] = ()
    """Causes that are not tried again, whatever `on` says."""
    elsewhere: bool = False
    """Never again on a provider where the task has failed."""
    verdict: Heed = Heed.OBEY
    """Of failures that neither `on` nor `never` decides."""


class Input(Struct, frozen=True, gc=False, kw_only=True):
    """What is laid into the attempt's directory before it starts: a blob, or outputs of a step before it."""

    path: str
    """Of a blob: where it goes, relative to the working directory. Of outputs: the directory that they go into under
    their own paths (empty: the working directory); those of an array's tasks under `TASK/`, its number."""
    digest: Digest = Digest("")
    size: int = 0
    executable: bool = False
    step: int | None = None
    """Number of the step whose outputs are meant; None: a blob."""
    pattern: str = ""
    """Which of them: a glob over their paths, `*` within a part, `**` over parts."""


class CheckpointRule(Struct, frozen=True, gc=False, kw_only=True):
    """How the state of a task is saved."""

    path: str = ""
    """The directory that is saved and restored, relative to the working directory; empty: COORD_CHECKPOINT_DIR."""
    every_ms: Ms | None = None
    """How often; None with `auto`: as the hazard of the provider and the measured cost say; None without: the job
    takes them itself."""
    auto: bool = False
    keep: int = 2
    """The last so many are kept."""
    signal: str = ""
    """Sent to the program when a checkpoint is wanted (`USR1`); the file `.wanted` in the directory says so too."""
    grace_ms: Ms = 60_000
    """How long it has to write one when its provider is drained or its place is needed."""


class StepSpec(Struct, frozen=True, gc=False, kw_only=True):
    """One step: the tasks that it stands for, and how each of them is run."""

    name: str
    command: tuple[str, ...]
    """The argument list; for a shell it was made into `/bin/sh -c TEXT` already. May hold `{placeholders}`."""
    tasks: int = 1
    """How many: the product of the array and the matrix. Task t is array place t // M and matrix place t % M."""
    array: tuple[tuple[int, int, int], ...] = ()
    """Ranges (first, last, stride), inclusive, in their order; empty: no array, or one of items."""
    items: tuple[str, ...] = ()
    """Values of an array that was read from lines."""
    matrix: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Axes in their order with their values as text; the last one turns fastest."""
    needs: tuple[int, ...] = ()
    """Numbers of the steps before it."""
    when: When = When.SUCCEEDED
    asks: tuple[Ask, ...] = (Ask(),)
    """Alternatives, the preferred one first. Of one rank."""
    nodes: int = 1
    """Ranks, each on a provider of its own."""
    pools: tuple[PoolName, ...] = ()
    """Empty: any."""
    labels: tuple[tuple[str, str], ...] = ()
    """What a provider's labels must say."""
    isolation: Isolation = Isolation.NONE
    min_score: float | None = None
    min_forecast: float | None = None
    """P(the stay outlasts the expected run time), at least."""
    time_limit_ms: Ms | None = None
    expected_ms: Ms | None = None
    grace_ms: Ms = 10_000
    """From SIGTERM to SIGKILL."""
    env: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    """On the provider; empty: the attempt's own."""
    stdin: str = ""
    retry: RetryRule = RetryRule()
    on_lost: OnLost = OnLost()
    overlap: Overlap = Overlap.FORBID
    log_full: LogFull = LogFull.TRUNCATE
    log_bytes_max: int = 0
    """Of each stream of an attempt; 0: the agent's own bound."""
    max_fails: int | None = None
    """More failed tasks than this end the step; None: no bound."""
    max_running: int | None = None
    """At most so many of its tasks at a time."""
    runtime: str = "plain"
    arrangement: Arrangement = Arrangement.PACK
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    """Globs over paths relative to the working directory, or to COORD_OUTPUT_DIR. Each must match a file. Rank 0's."""
    checkpoint: CheckpointRule | None = None
    stall_ms: Ms | None = None
    """No progress for so long is a failure: reports, checkpoints, or, of one that makes neither, output."""


class JobSpec(Struct, frozen=True, gc=False, kw_only=True):
    """A whole job. Its steps are in an order in which every step comes after those that it needs."""

    name: str
    steps: tuple[StepSpec, ...]
    deadline_ms: Ms | None = None
    """A moment on the coordinator's clock; already absolute when it is here."""
    priority: int = 0
    """Higher goes first; PRIORITY_MIN to PRIORITY_MAX, above its tenant's own bound refused."""
    estimate: Estimate = Estimate()


def task_values(step: StepSpec, task: int) -> dict[str, str]:
    """What the placeholders of task number `task` stand for: `index` and `item` of an array, and the matrix's axes.

    `index` is the array's own number (the place, from 0, for items); without an array it is the task's number.
    """
    place, turn = _place_of(step, task)
    found: dict[str, str] = {"index": str(_number_at(step, place))}
    if step.items:
        found["item"] = step.items[place]
    elif step.array:
        found["item"] = found["index"]
    for name, values in reversed(step.matrix):
        turn, at = divmod(turn, len(values))
        found[name] = values[at]
    return found


def task_number(step: StepSpec, task: int) -> int:
    """The `index` of task number `task` alone."""
    return _number_at(step, _place_of(step, task)[0])


def task_numbers(step: StepSpec, tasks: Sequence[int]) -> Sequence[int]:
    """`task_number` of each of them."""
    if step.matrix or step.items or len(step.array) > 1:
        return [task_number(step, task) for task in tasks]
    if not step.array:
        return tasks
    ((first, last, stride),) = step.array
    most = (last - first) // stride
    return [first + task * stride if task <= most else task_number(step, task) for task in tasks]


def _place_of(step: StepSpec, task: int) -> tuple[int, int]:
    """Its place in the array, and in the matrix beneath that."""
    width = 1
    for _, values in step.matrix:
        width *= len(values)
    return divmod(task, width)


def _number_at(step: StepSpec, place: int) -> int:
    left = place
    for first, last, stride in step.array if not step.items else ():
        size = (last - first) // stride + 1
        if left < size:
            return first + left * stride
        left -= size
    return place
