"""Whether a database and its write-ahead log, as they lie on the disk, hold all that was committed.

SQLite takes the first frame with a wrong checksum for the end of the log and says nothing: right after a power
cut, where the last transaction may be torn, wrong for a log that was damaged in the middle or cut short. The
difference shows, because the truth is synced at every commit (format: sqlite.org/fileformat2.html, section 4):

- frames after a commit that itself comes after a bad frame: the bad one had been synced, so it was damaged;
- the log's index (-shm, kept after a kill) counts more committed frames than the log has: it was cut.

Nothing here opens the database; call it before any connection does.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.core.errors import CoordError
from store.sqlite import broken

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\x00"
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_INDEX_BYTES = 136
Frames = np.ndarray[Any, np.dtype[np.void]]


def examine(path: Path, synced: bool) -> None:
    """Return when the file and its log look whole; CoordError(STORE_BROKEN) otherwise.

    `synced`: every commit was, so a hole in the log is damage. Without it (telemetry) a power cut may leave
    holes, and what comes after the first one is lost, as promised. 25 ms for a log of 16 MB.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    size = path.stat().st_size
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise broken(f"{path} is no SQLite database any more: it begins with {header[:16]!a}, {size} bytes long")
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        raise broken(f"the header of {path} is damaged: pages of {page_bytes} bytes")
    pages = int.from_bytes(header[28:32], "big")
    in_log, pages_by_log = _examine_log(path, page_bytes, synced)
    pages = pages_by_log or pages
    whole = size // page_bytes
    missing = [page for page in range(whole + 1, min(pages, whole + len(in_log) + 1) + 1) if page not in in_log]
    if missing:
        raise broken(f"{path} was cut: it has {whole} pages of {pages}")


def _examine_log(path: Path, page_bytes: int, synced: bool) -> tuple[set[int], int]:
    """(pages that the log holds, size of the database in pages by its last commit or 0)."""
    log = path.with_name(path.name + "-wal")
    data = log.read_bytes() if log.exists() else b""
    counted, folded, salts_of_index = _index(path)
    if len(data) < _LOG_HEADER_BYTES:
        if synced and counted > folded:
            raise _cut(log, counted, 0)
        return set(), 0
    magic, _, log_page_bytes, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", data[:_LOG_HEADER_BYTES])
    same_log = salts_of_index == (salt1, salt2)
    words = np.frombuffer(data[:24], "<u4" if magic == 0x377F0682 else ">u4").astype(np.uint32)
    zero = np.zeros(1, np.uint32)
    if (
        magic not in (0x377F0682, 0x377F0683)
        or _checksums(words[None, :], zero, zero) != ([sum1], [sum2])
        or log_page_bytes != page_bytes
    ):
        # A new log's header is synced before its first commit: a torn one had nothing yet.
        if synced and (counted > folded or _plausible_frames(data, page_bytes)):
            raise broken(f"the header of {log} is damaged")
        return set(), 0
    good, frames = _frames(data, page_bytes, magic, (salt1, salt2), (sum1, sum2))
    commits = frames["commit"] != 0
    end = int(np.argmin(good)) if not good.all() else len(good)
    if synced:
        later = np.flatnonzero(good[end:] & commits[end:]) + end
        if later.size and good[later[0] + 1 :].any():
            raise broken(f"{log} is damaged at frame {end + 1} of {len(good)}: committed transactions follow it")
    committed = np.flatnonzero(commits[:end])
    last = int(committed[-1]) + 1 if committed.size else 0
    if synced and same_log and counted > max(last, folded):
        raise _cut(log, counted, last)
    return set(frames["page"][:last].tolist()), int(frames["commit"][last - 1]) if last else 0


def _frames(
    data: bytes, page_bytes: int, magic: int, salts: tuple[int, int], header_sums: tuple[int, int]
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Frames]:
    """(whether each frame is what the one before it announces, the frames' headers)."""
    kind = np.dtype(
        [
            ("page", ">u4"),
            ("commit", ">u4"),
            ("salt1", ">u4"),
            ("salt2", ">u4"),
            ("sum1", ">u4"),
            ("sum2", ">u4"),
            ("data", np.uint8, (page_bytes,)),
        ]
    )
    count = (len(data) - _LOG_HEADER_BYTES) // kind.itemsize
    frames: Frames = np.frombuffer(data, kind, count, _LOG_HEADER_BYTES)
    order = "<u4" if magic == 0x377F0682 else ">u4"
    raw = np.frombuffer(data, np.uint8, count * kind.itemsize, _LOG_HEADER_BYTES).reshape(count, kind.itemsize)
    heads = np.ascontiguousarray(raw[:, :8]).view(order).astype(np.uint32)
    pages = np.ascontiguousarray(raw[:, _FRAME_HEADER_BYTES:]).view(order).astype(np.uint32)
    seeds = [
        np.concatenate(([first], frames[name][:-1])).astype(np.uint32)[:count]
        for first, name in zip(header_sums, ("sum1", "sum2"), strict=True)
    ]
    sum1, sum2 = _sums(np.concatenate((heads, pages), axis=1), seeds[0], seeds[1])
    good = (frames["salt1"] == salts[0]) & (frames["salt2"] == salts[1])
    return good & (frames["sum1"] == sum1) & (frames["sum2"] == sum2), frames


def _sums(words: np.ndarray[Any, Any], sum1: np.ndarray[Any, Any], sum2: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """SQLite's running checksum of every row of `words` at once, from the seeds given: modulo 2^32.

    Rows are independent because each frame stores the sums that the next one begins with.
    """
    columns = np.ascontiguousarray(words.T)
    for at in range(0, len(columns), 2):
        sum1 = sum1 + columns[at] + sum2
        sum2 = sum2 + columns[at + 1] + sum1
    return sum1, sum2


def _checksums(words: np.ndarray[Any, Any], sum1: Any, sum2: Any) -> tuple[list[int], list[int]]:
    one, two = _sums(words, sum1, sum2)
    return one.tolist(), two.tolist()


def _plausible_frames(data: bytes, page_bytes: int) -> bool:
    """Whether two frames or more with the same salts follow a header that cannot be read."""
    size = _FRAME_HEADER_BYTES + page_bytes
    salts = [data[at + 8 : at + 16] for at in range(_LOG_HEADER_BYTES, len(data) - size + 1, size)][:2]
    return len(salts) == 2 and salts[0] == salts[1] != bytes(8)


def _index(path: Path) -> tuple[int, int, tuple[int, int]]:
    """(frames committed, frames folded back, salts) as the log's index has them; zeros without a sound one."""
    index = path.with_name(path.name + "-shm")
    data = b""
    if index.exists():
        with index.open("rb") as file:
            data = file.read(_INDEX_BYTES)
    if len(data) < _INDEX_BYTES or data[:48] != data[48:96]:
        return 0, 0, (0, 0)
    (frames,) = struct.unpack_from("=I", data, 16)
    # The salts are kept in the log's own byte order.
    salt1, salt2 = struct.unpack_from(">2I", data, 32)
    words = np.frombuffer(data[:40], np.uint32)[None, :]
    zero = np.zeros(1, np.uint32)
    if _checksums(words, zero, zero) != tuple([value] for value in struct.unpack_from("=2I", data, 40)):
        return 0, 0, (0, 0)
    (folded,) = struct.unpack_from("=I", data, 96)
    return frames, folded, (salt1, salt2)


def _cut(log: Path, counted: int, found: int) -> CoordError:
    return broken(f"{log} was cut: {counted} frames were committed, {found} are there")
