"""Bodies of what agents ask over HTTP for an attempt that they hold: what to fetch, where to send, what counts.

POST /v1/attempts/{attempt}/…, with the agent's own credential. `rank` and `token` say for whom it acts; a token that is
not current is refused (409 `stale_token`). Bytes move by the signed URLs in the answers: GET with ranges; PUT with
`Content-Range` at the offset that HEAD tells in `Upload-Offset`. docs/reference/wire.md tells it in words.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.core.rows import LeaseToken
from coordinator.wire import Count, Exit, Rank

DIGESTS_MAX = 4_200
"""In one request: a checkpoint's files and its manifest."""
OUTPUTS_MAX = 1_024
SUSPECTS_MAX = 16
"""Blobs that one request says to be damaged."""
URL_LIVES_S = 900.0
"""A signed URL is good for so long; a transfer that has begun goes on, a later one asks for a new URL."""

Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
PathText = Annotated[str, Meta(min_length=1, max_length=1_024)]


class File(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file: rows.FileEntry, bounded."""

    path: PathText
    digest: Hex64
    size: Count
    executable: bool = False


class ForAttempt(Struct, frozen=True, kw_only=True):
    """Who acts: the rank of the attempt in the path, under this token. (0, 0) is that of one that is only reserved."""

    rank: Rank = 0
    token: LeaseToken


class StagingRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/staging -> StagingAnswer"""


class StagedFile(Struct, frozen=True, kw_only=True):
    path: str
    digest: str
    size: int
    executable: bool
    url: str


class SavedState(Struct, frozen=True, kw_only=True):
    """A checkpoint: its manifest, which lists its files (`coordinator.manifest`)."""

    number: int
    manifest: str
    size: int
    """Bytes of all files."""
    url: str
    """Of the manifest."""


class StagingAnswer(Struct, frozen=True, kw_only=True):
    files: tuple[StagedFile, ...]
    """Inputs, relative to the working directory."""
    checkpoints: tuple[SavedState, ...]
    """The newest first; damaged ones are left out."""
    tenant: str = ""
    """Whose it is: a launch plan says so too, but what is fetched ahead of a grant has none yet."""


class UrlsRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/urls -> UrlsAnswer: of files that a checkpoint's manifest names, or whose URL has expired."""

    digests: Annotated[tuple[Hex64, ...], Meta(min_length=1, max_length=DIGESTS_MAX)]


class UrlsAnswer(Struct, frozen=True, kw_only=True):
    urls: dict[str, str]
    """By digest; what is not there is left out."""


class Wanted(Struct, frozen=True, kw_only=True):
    digest: Hex64
    size: Count


class UploadsRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/uploads -> UploadsAnswer: opens an upload of each that is missing."""

    blobs: Annotated[tuple[Wanted, ...], Meta(min_length=1, max_length=DIGESTS_MAX)]


class UploadTarget(Struct, frozen=True, kw_only=True):
    digest: str
    present: bool
    """Nothing has to be sent."""
    url: str = ""
    offset: int = 0
    """What arrived of it before."""


class UploadsAnswer(Struct, frozen=True, kw_only=True):
    """In the order of the request."""

    uploads: tuple[UploadTarget, ...]


class OutputsRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/outputs -> OutputsAnswer: the end of the rank together with its result. Once; repetitions are the same."""

    files: Annotated[tuple[File, ...], Meta(max_length=OUTPUTS_MAX)]
    exit: Exit
    cached: Annotated[tuple[Hex64, ...], Meta(max_length=OUTPUTS_MAX)] = ()
    """Digests of those of `files` that you keep copies of in your cache."""


class OutputsAnswer(Struct, frozen=True, kw_only=True):
    repeated: bool


class CheckpointRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/checkpoints -> CheckpointAnswer: the manifest and all that it names were uploaded."""

    manifest: Hex64
    sent: Count
    """Bytes that had to be uploaded for it."""
    age_ms: Count
    """How long ago its files were as they are in it."""
    cost_ms: Count
    label: Annotated[str, Meta(max_length=200)] = ""


class CheckpointAnswer(Struct, frozen=True, kw_only=True):
    number: int
    next_ms: int | None


class RestoredRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/restored -> 204: this checkpoint was laid out, and the program starts from it."""

    number: Annotated[int, Meta(ge=1)]


class DamagedRequest(ForAttempt, frozen=True, kw_only=True):
    """POST …/damaged -> 204: this checkpoint cannot be restored; it is not offered again."""

    number: Annotated[int, Meta(ge=0)]
    """0: it is of no checkpoint that this is said."""
    why: Annotated[str, Meta(max_length=500)]
    digests: Annotated[tuple[Hex64, ...], Meta(max_length=SUSPECTS_MAX)] = ()
    """Blobs that came whole and were something else: they are read over there, and taken anew where they are."""
