"""A verdict: why an attempt ended as it did, whose fault that is, and what to do. Made by analytics, from logs.

Offsets are bytes, times Unix milliseconds on the observed clock.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from coordinator.core.ends import ExitInfo
from coordinator.core.ids import JobId, Ms, ProviderId, TenantName, dotted


class Cause(StrEnum):
    """What it died of. docs/reference/causes.md says of each what a user should do."""

    GPU_HARDWARE = "gpu_hardware"
    GPU_OOM = "gpu_oom"
    HOST_OOM = "host_oom"
    PROCESS_KILLED_UNKNOWN = "process_killed_unknown"
    NCCL_TIMEOUT = "nccl_timeout"
    NETWORK_FABRIC = "network_fabric"
    NODE_FAILURE = "node_failure"
    NODE_PRESSURE_EVICTION = "node_pressure_eviction"
    PREEMPTION = "preemption"
    TIME_LIMIT = "time_limit"
    USER_CANCELLED = "user_cancelled"
    STORAGE_FULL = "storage_full"
    STORAGE_FS = "storage_fs"
    QUOTA = "quota"
    CAPACITY = "capacity"
    CHECKPOINT_CORRUPT = "checkpoint_corrupt"
    CHECKPOINT_MISMATCH = "checkpoint_mismatch"
    NUMERICAL_NAN = "numerical_nan"
    DATA_ERROR = "data_error"
    USER_CODE = "user_code"
    NATIVE_CRASH = "native_crash"
    CONFIG_ERROR = "config_error"
    ENV_DEPENDENCY = "env_dependency"
    PERMISSION = "permission"
    AUTH = "auth"
    EXTERNAL_SERVICE = "external_service"
    IMAGE_PULL = "image_pull"
    PORT_IN_USE = "port_in_use"
    RENDEZVOUS = "rendezvous"
    LAUNCHER_SUMMARY_ONLY = "launcher_summary_only"
    UNKNOWN = "unknown"
    OK = "ok"


class Fault(StrEnum):
    """Whose fault it is."""

    JOB = "job"
    PROVIDER = "provider"
    PLATFORM = "platform"
    DATA = "data"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


class Recommendation(StrEnum):
    RESTART = "RESTART"
    RESTART_ELSEWHERE = "RESTART_ELSEWHERE"
    STOP = "STOP"
    OK = "OK"
    """Nothing wrong was found."""
    UNKNOWN = "UNKNOWN"
    """Nothing can be said: the rules for exit codes decide."""


class Role(StrEnum):
    """What a line is to the story."""

    ROOT = "root"
    CONFIRM = "confirm"
    """Says more of a root: the kernel's OOM report behind a bare `Killed`."""
    CASCADE = "cascade"
    """Follows from something else; counts only where no root is found."""
    LIFECYCLE = "lifecycle"
    """Somebody ended it: cancelled, its time limit, preempted."""
    BENIGN = "benign"
    """Looks bad and is not."""
    PROGRESS = "progress"
    EXIT = "exit"
    """No line: an exit code or a signal."""


class Evidence(Struct, frozen=True, gc=False, kw_only=True):
    """One line that the verdict rests on."""

    role: Role
    signature: str
    """The row of the table that knew it; `exit` where the process's end is the evidence."""
    text: str
    """As it was written, without prefixes; cut at TEXT_MAX characters."""
    offset: int = -1
    """Where the line begins in its stream; -1: no line."""
    line: int = 0
    """From 1; 0: no line."""
    rank: int | None = None
    """The program's own rank, where the line names one."""
    source: str = ""
    """`stdout`, `stderr`, with several nodes `1/stderr`; of files their name."""


class Incident(Struct, frozen=True, gc=False, kw_only=True):
    """The same event, however many lines and ranks told of it."""

    cause: Cause
    role: Role
    signature: str
    count: int
    first_offset: int
    first_line: int
    last_line: int
    ranks: tuple[int, ...] = ()
    """Sorted; at most RANKS_MAX of them."""
    refuted: bool = False
    """The program went on working afterwards."""


class Seen(Struct, frozen=True, gc=False, kw_only=True):
    """How far the program came in this run."""

    lines: int = 0
    """Of the log, altogether."""
    steps: int = 0
    """Lines that tell of progress."""
    first_step: int | None = None
    last_step: int | None = None
    """The numbers they name."""
    checkpoints: int = 0
    """Saved, as the log tells it."""
    restored: bool = False
    """It resumed from one."""
    finished: bool = False
    """It said that it was through."""


class Benign(Struct, frozen=True, gc=False, kw_only=True):
    """Lines that look bad and are not, with why."""

    signature: str
    why: str
    count: int
    text: str
    """The first of them."""
    first_line: int


class Verdict(Struct, frozen=True, gc=False, kw_only=True):
    """Equal for equal bytes, however they came."""

    cause: Cause
    fault: Fault
    recommendation: Recommendation
    confidence: float
    """0 to 1."""
    summary: str
    """One sentence: what happened."""
    advice: str = ""
    """What to do about it, in the user's words."""
    avoid_providers: tuple[str, ...] = ()
    """Hosts that the log names, or the provider that it ran on. With RESTART only who is thought to be at fault: the
    failure counts as theirs, and they are not left out."""
    evidence: tuple[Evidence, ...] = ()
    """The primary line first."""
    incidents: tuple[Incident, ...] = ()
    progress: Seen = Seen()
    benign: tuple[Benign, ...] = ()
    root: str = ""
    """What the same root has in common over attempts: signature and the line without numbers, hashed. Empty: none."""
    rules: str = ""
    """Digest of the table and of the engine's version that it was made with."""


class PastVerdict(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """What an earlier attempt of the same task, or of the same job, ended with."""

    attempt: str
    cause: Cause
    root: str
    provider_id: ProviderId
    progressed: bool
    first_of_another: bool = False
    """Of another task, which had not been tried again: what befell it says nothing of whether that helps."""


def progressed(verdict: Verdict) -> bool:
    """Whether the attempt did some of its work before it ended."""
    return bool(verdict.progress.steps or verdict.progress.checkpoints)


class Avoided(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """A verdict sends a task away from a provider."""

    provider_id: ProviderId
    at_ms: Ms
    until_ms: Ms
    """Until then it is not placed there at all; not above `at_ms`: from the beginning it only counts as worse there."""
    why: str


class Awaited(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """A failure whose verdict is waited for, with all that the rules need when none comes."""

    attempt: int
    rank: int
    """Whose end it was."""
    exits: tuple[ExitInfo | None, ...]
    providers: tuple[ProviderId, ...]
    """By rank, both."""
    saved: bool = False
    """A checkpoint of it was published: who comes after it begins elsewhere than it did."""
    spent: str = ""
    """How the rules alone would end its task; empty: they would try it again."""


class Judged(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """What verdicts made of a task."""

    awaits: Awaited | None = None
    """It waits for one, until `TaskRow.not_before_ms` at most."""
    avoid: tuple[Avoided, ...] = ()
    """Where it is not to go again; oldest first, AVOID_MAX at most."""
    past: tuple[PastVerdict, ...] = ()
    """Of its attempts since it was last run by hand; oldest first, PAST_MAX at most."""


class VerdictRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="verdict"):
    """Key: (`job_id`, `step`, `task`, `attempt`). Goes with the job's row."""

    job_id: JobId
    step: int
    task: int
    attempt: int
    at_ms: Ms
    late: bool
    """It came when the rules for exit codes had decided, or corrects one that came before it."""
    verdict: Verdict
    remark: str = ""
    """How it was made, where that was not as it should be: for people."""
    provider_id: ProviderId = ProviderId("")
    """Rank 0's; empty where that was not known any more."""
    saved: bool = False
    """The attempt left a checkpoint, which its log need not tell of."""
    run: int = 0
    """How often its job had been run again by hand: what was before that is not its past."""


def past_of(row: VerdictRow) -> PastVerdict:
    """As the attempts that come after it are told."""
    return PastVerdict(
        attempt=dotted((row.job_id, row.step, row.task, row.attempt)),
        cause=row.verdict.cause,
        root=row.verdict.root,
        provider_id=row.provider_id,
        progressed=row.saved or progressed(row.verdict),
    )


class SuspicionRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="suspicion"):
    """A verdict blames a provider. Key: (`provider_id`, `attempt`). Its weight halves with time. No disconnect."""

    provider_id: ProviderId
    attempt: str
    at_ms: Ms
    cause: Cause
    confidence: float
    text: str
    """The line that it rests on."""
    tenant: TenantName = TenantName("")
    """Whose attempt it was; empty: not known any more."""


VERDICT_WAITED_FOR = "its verdict is waited for"
"""How the reason of a task ends that waits."""
TEXT_MAX = 400
"""Characters of a line in a verdict."""
EVIDENCE_MAX = 16
INCIDENTS_MAX = 32
BENIGN_MAX = 16
RANKS_MAX = 64
AVOID_MAX = 16
PAST_MAX = 8
"""Verdicts that a task remembers of its own."""
HISTORY_MAX = 16
"""That a job remembers, and that a VerdictWanted tells."""
SUSPICIONS_MAX = 16
"""Of one provider: the newest."""
ASKED_MAX = 4_096
"""Attempts whose verdict was asked for and that are remembered (about 1 MB)."""
