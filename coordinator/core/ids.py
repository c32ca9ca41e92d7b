"""Names of things, and the one rule for the names that come from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, NewType

import msgspec

from coordinator.core.errors import Code, CoordError

ProviderId = NewType("ProviderId", str)
"""What people and agents call a provider; fixed at enrolment."""
ProviderKey = NewType("ProviderKey", int)
"""The small integer that stands for an enrolled provider in telemetry."""
SessionId = NewType("SessionId", int)
ConnId = NewType("ConnId", int)
"""One socket, numbered by the service; never reused within a process."""
RequestId = NewType("RequestId", int)
"""One caller that waits for a Reply."""
TokenId = NewType("TokenId", str)
PoolName = NewType("PoolName", str)
TenantName = NewType("TenantName", str)
JobId = NewType("JobId", int)
"""Counts up from 1; what people type. Never given twice, also after its job was pruned."""
TaskId = tuple[JobId, int, int]
"""(job, step number, task number), both numbers from 0. Text: `12.0.7`."""
AttemptId = tuple[JobId, int, int, int]
"""A task and the number of the attempt, from 1. Text: `12.0.7.2`."""
Digest = NewType("Digest", str)
"""BLAKE3 of a blob's bytes: 64 hex digits."""
UploadId = NewType("UploadId", str)
"""The nonce of an upload: random, 32 hex digits."""
Ms = int
"""Milliseconds: Unix time on the coordinator's observed clock, or a length of time."""

NAME_CHARS_MAX = 128
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@+-]*[A-Za-z0-9_])?")


def check_name(text: str, what: str) -> str:
    """Return `text` if it may name a thing; CoordError(BAD_REQUEST) otherwise.

    Letters, digits and `. _ : @ + -`, beginning with a letter or digit and not ending in punctuation,
    at most 128 characters: safe in a URL, a file name, a label of a metric and a terminal.
    """
    if len(text) <= NAME_CHARS_MAX and _NAME.fullmatch(text):
        return text
    shown = ascii(text if len(text) <= 40 else text[:40] + "...")
    raise CoordError(
        Code.BAD_REQUEST,
        f"{shown} cannot be the name of {'an' if what[:1] in 'aeiou' else 'a'} {what}",
        f"use 1 to {NAME_CHARS_MAX} letters, digits or . _ : @ + - and begin with a letter or digit",
    )


_HEX64 = re.compile(r"[0-9a-f]{64}")


def digest_named(text: str) -> tuple[str, str]:
    """(`blake3` or `sha256`, 64 hex digits) of what people write: `blake3:HEX`, `sha256:HEX` or HEX alone, which is
    BLAKE3. CoordError(BAD_REQUEST) for anything else."""
    kind, _, digits = text.rpartition(":")
    if kind in ("", "blake3", "sha256") and _HEX64.fullmatch(digits):
        return kind or "blake3", digits
    raise CoordError(
        Code.BAD_REQUEST, f"{text[:80]!a} is no digest", "write blake3:HEX or sha256:HEX with 64 hex digits"
    )


_DOTTED = tuple(".".join(["%d"] * count) for count in range(5))
_ATTEMPT = re.compile(r"\.".join([r"([0-9]{1,15})"] * 4), re.ASCII)


def dotted(numbers: tuple[int, ...]) -> str:
    """The text of a TaskId or AttemptId, as people, file names, URLs and the wire have it."""
    return _DOTTED[len(numbers)] % numbers


def attempt_of(text: str) -> AttemptId:
    """The AttemptId that `text` names; CoordError(BAD_REQUEST) when it names none."""
    named = _ATTEMPT.fullmatch(text)
    if named is None:
        raise CoordError(Code.BAD_REQUEST, f"{text[:40]!a} names no attempt", "an attempt is JOB.STEP.TASK.ATTEMPT")
    job, step, task, number = named.groups()
    return JobId(int(job)), int(step), int(task), int(number)


_Job = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]
_Part = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
_numbers = msgspec.json.Decoder(tuple[tuple[_Job, _Part, _Part, _Part], ...]).decode


def attempts_of(names: Sequence[str]) -> tuple[AttemptId, ...]:
    """`attempt_of` of each."""
    found = read_together(names)
    return found if found is not None else tuple(map(attempt_of, names))


def read_together(names: Sequence[str]) -> tuple[AttemptId, ...] | None:
    """The same of names as agents write them, at a twentieth of the price: many are read as one text of numbers. None:
    one of them is no such name."""
    try:
        if not names or "".join(names).encode().translate(None, b"0123456789."):
            return None  # a name with brackets might pass for two
        return _numbers(f"[[{'],['.join(names)}]]".replace(".", ","))  # type: ignore[return-value]  # NewTypes
    except ValueError:
        return None


def names_attempt(text: str) -> bool:
    """Whether `text` names an attempt."""
    return _ATTEMPT.fullmatch(text) is not None
