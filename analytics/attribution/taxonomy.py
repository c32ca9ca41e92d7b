"""What a run can die of, in words: whose fault each cause is, and what to do. docs/reference/causes.md says more.

Owns the words and the defaults; which cause it was is `primary`'s, what is done this time `actions`'.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.verdict.rows import Cause, Fault, Recommendation

NEVER = 1_000
"""Patience for what has nothing to do with the program: met however often, it is tried again."""


@dataclass(frozen=True, slots=True)
class Class:
    """One cause."""

    fault: Fault
    action: Recommendation
    """Where no line names it, but the end of the process."""
    patience: int
    """So often may the same root have been met before, without progress, until `repeat` of its signature holds."""
    headline: str
    advice: str


CLASSES: dict[Cause, Class] = {
    Cause.GPU_HARDWARE: Class(
        Fault.PROVIDER,
        Recommendation.RESTART_ELSEWHERE,
        1,
        "a GPU of the machine failed",
        "Nothing in the program needs to change. Reset the GPU, and take the machine out if it returns.",
    ),
    Cause.GPU_OOM: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "the memory of the GPU was not enough",
        "Make the batch, the sequence or the model's share smaller, or ask for GPUs with more memory.",
    ),
    Cause.HOST_OOM: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "the memory of the machine was not enough",
        "Ask for more memory (resources.memory of the job), or let it use less: fewer workers, smaller pieces.",
    ),
    Cause.PROCESS_KILLED_UNKNOWN: Class(
        Fault.UNKNOWN,
        Recommendation.RESTART,
        1,
        "the process was killed, and nobody says by whom",
        "Look for want of memory first: the kernel's log of the machine, the memory that the job asks for.",
    ),
    Cause.NCCL_TIMEOUT: Class(
        Fault.UNKNOWN,
        Recommendation.RESTART,
        1,
        "a collective operation did not finish in time",
        "If it returns, look at the ranks that did not report: a slow machine, or ranks that go different ways.",
    ),
    Cause.NETWORK_FABRIC: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        2,
        "the network between the machines failed",
        "If it returns, look at the links of the machines that are named, and at the interface that is used.",
    ),
    Cause.NODE_FAILURE: Class(
        Fault.PROVIDER,
        Recommendation.RESTART_ELSEWHERE,
        NEVER,
        "a machine failed or was lost",
        "Nothing in the program needs to change. Have the machine looked at if it is named again.",
    ),
    Cause.NODE_PRESSURE_EVICTION: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        1,
        "its machine ran short and threw it out",
        "Ask for the disk and memory that it really uses, so that it is placed where they are free.",
    ),
    Cause.PREEMPTION: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        NEVER,
        "its place was taken for somebody else",
        "Nothing in the program needs to change. Checkpoints more often than that lose less.",
    ),
    Cause.TIME_LIMIT: Class(
        Fault.JOB,
        Recommendation.RESTART,
        0,
        "its time was over",
        "Let it go on from its checkpoint, or give it more time; without progress more time may not help.",
    ),
    Cause.USER_CANCELLED: Class(
        Fault.NOBODY,
        Recommendation.STOP,
        0,
        "somebody cancelled it",
        "Nothing failed. Submit it again if that was not meant.",
    ),
    Cause.STORAGE_FULL: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "a disk was full",
        "Make room, or write elsewhere. What it wrote last may be cut short: resume from the checkpoint before.",
    ),
    Cause.STORAGE_FS: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        1,
        "a file system failed under it",
        "If it returns, look at the mount on the machine and at the file server; of /dev/shm, make it larger.",
    ),
    Cause.QUOTA: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "a quota was used up",
        "Free what is not needed, or ask for a larger quota: a restart meets the same bound.",
    ),
    Cause.CAPACITY: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        NEVER,
        "there was no room for it",
        "Wait and try again, or ask for a machine of another kind or in another place.",
    ),
    Cause.CHECKPOINT_CORRUPT: Class(
        Fault.DATA,
        Recommendation.STOP,
        0,
        "a checkpoint cannot be read",
        "Resume from the checkpoint before it, and remove this one. Look whether a disk was full when it was written.",
    ),
    Cause.CHECKPOINT_MISMATCH: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "the checkpoint does not fit the model",
        "Use the settings and the code that it was written with, or begin without it.",
    ),
    Cause.NUMERICAL_NAN: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "its numbers went out of range",
        "Go back to a checkpoint before it began, with a smaller learning rate or step; look at the data there.",
    ),
    Cause.DATA_ERROR: Class(
        Fault.DATA,
        Recommendation.STOP,
        0,
        "its data cannot be used",
        "Mend, replace or skip the file or record that is named: a restart meets it again.",
    ),
    Cause.USER_CODE: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "the program itself failed",
        "Look at the lines of the program that the evidence names: a restart comes to the same point.",
    ),
    Cause.NATIVE_CRASH: Class(
        Fault.UNKNOWN,
        Recommendation.RESTART,
        0,
        "native code crashed",
        "If it crashes again, look at the last library in the stack, at its version, and at the machine.",
    ),
    Cause.CONFIG_ERROR: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "its settings or arguments are wrong",
        "Mend the setting, the argument or the path that is named: a restart meets it again.",
    ),
    Cause.ENV_DEPENDENCY: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "its environment lacks what it needs",
        "Install what is named, in the version that fits, or use the right image; or avoid the one machine.",
    ),
    Cause.PERMISSION: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "it may not do what it wants to do",
        "Give it the right, or let it write where it may.",
    ),
    Cause.AUTH: Class(
        Fault.JOB,
        Recommendation.STOP,
        0,
        "a service does not accept who it is",
        "Give it a valid token or key, and ask for access where the resource is closed.",
    ),
    Cause.EXTERNAL_SERVICE: Class(
        Fault.PLATFORM,
        Recommendation.RESTART,
        2,
        "a service outside did not answer",
        "Try again later; let it use a local copy, or go on without the service.",
    ),
    Cause.IMAGE_PULL: Class(
        Fault.JOB,
        Recommendation.STOP,
        2,
        "its image could not be had",
        "Look at the name and tag of the image and at the right to pull it; a mirror helps against rate limits.",
    ),
    Cause.PORT_IN_USE: Class(
        Fault.JOB,
        Recommendation.RESTART,
        2,
        "a port that it needs is taken",
        "Let it choose a free port (0), or one of its own for each run.",
    ),
    Cause.RENDEZVOUS: Class(
        Fault.UNKNOWN,
        Recommendation.RESTART,
        1,
        "its processes did not find each other",
        "If it returns, look at the address of the first rank, the number of ranks, and the ranks that never came.",
    ),
    Cause.LAUNCHER_SUMMARY_ONLY: Class(
        Fault.UNKNOWN,
        Recommendation.RESTART,
        1,
        "a process of it failed, and only the launcher says so",
        "Keep the output of the ranks (their stderr, or a file for errors): the cause stands there.",
    ),
    Cause.UNKNOWN: Class(
        Fault.UNKNOWN,
        Recommendation.UNKNOWN,
        0,
        "the log does not say why it ended",
        "Look at the last lines of the log. A signature for what they say can be added (--signatures).",
    ),
    Cause.OK: Class(Fault.NOBODY, Recommendation.OK, 0, "nothing wrong was found", ""),
}
