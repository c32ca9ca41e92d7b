"""A checkpoint's manifest: the blob that lists its files. Deterministic: the same files give the same bytes.

JSON, `{"version": 1, "files": [{"path", "digest", "size", "executable"}]}`, files by path. Written by agents, read by
agents and by the coordinator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import msgspec
from msgspec import Struct

from coordinator.core.data.rows import FileEntry
from coordinator.core.errors import Code, CoordError

VERSION = 1
BYTES_MAX = 4 << 20
FILES_MAX = 4_096
PATH_BYTES_MAX = 1_024
PART_BYTES_MAX = 255
SIZE_MAX = 1 << 53
"""Bytes of all files together. A number beyond 64 bits could be kept nowhere."""


class Manifest(Struct, frozen=True, kw_only=True):
    """Files by path, none twice."""

    files: tuple[FileEntry, ...]
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


_DECODER = msgspec.json.Decoder(Manifest)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode(data: bytes) -> Manifest:
    """What `encode` made. CoordError(BAD_REQUEST) for anything else, an unsafe path included."""
    if len(data) > BYTES_MAX:
        raise CoordError(Code.BAD_REQUEST, f"a manifest of {len(data)} bytes", f"at most {BYTES_MAX} bytes are read")
    try:
        found = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CoordError(Code.BAD_REQUEST, f"this is no manifest: {error}") from None
    paths = [entry.path for entry in found.files]
    if found.version != VERSION or len(paths) > FILES_MAX or paths != sorted(set(paths)):
        raise CoordError(Code.BAD_REQUEST, "this is no manifest: another version, too many files, or not in order")
    for entry in found.files:
        check_path(entry.path)
        if not _DIGEST.fullmatch(entry.digest):
            raise CoordError(Code.BAD_REQUEST, f"this is no manifest: the digest of {entry.path!a} is none")
        if entry.size < 0:
            raise CoordError(Code.BAD_REQUEST, f"this is no manifest: {entry.path!a} has a negative size")
    if found.size > SIZE_MAX:
        raise CoordError(Code.BAD_REQUEST, f"this is no manifest: its files have more than {SIZE_MAX} bytes")
    check_tree(paths)
    return found


def check_tree(paths: Iterable[str]) -> None:
    """Return when files can lie at all of these at once; CoordError(BAD_REQUEST) when one is a directory of another."""
    ordered = sorted(paths, key=lambda path: path.replace("/", "\0"))  # what lies in a directory follows its name
    for before, after in pairwise(ordered):
        if after.startswith(f"{before}/"):
            raise CoordError(
                Code.BAD_REQUEST, f"{before[:80]!a} is a file and the directory of {after[:80]!a}", "name one of them"
            )


def check_path(path: str) -> str:
    """Return `path` if it names a file beneath a directory, whatever lies there; CoordError(BAD_REQUEST) otherwise.

    Relative, `/` between parts; no part is empty, `.`, `..` or longer than 255 bytes; no NUL or other control
    character, nothing that is no UTF-8. Links are not its business: whoever opens it follows none.
    """
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        encoded = b""
    parts = path.split("/")
    good = (
        0 < len(encoded) <= PATH_BYTES_MAX
        and all(part not in ("", ".", "..") and len(part.encode()) <= PART_BYTES_MAX for part in parts)
        and not any(ord(character) < 32 or ord(character) == 127 for character in path)
    )
    if good:
        return path
    raise CoordError(
        Code.BAD_REQUEST,
        f"{path[:80]!a} names no file beneath a directory",
        "write it relative, without empty parts, . or .., and without control characters",
    )
