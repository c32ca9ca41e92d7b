"""The stored log of one rank: read by the index of what arrived when, which is the order that its streams are fed in.

The index is written behind synced bytes alone, so that what is read here is what the coordinator acknowledged. Where
the machine lost power, or the disk was full, its end may be made anew in another order: the last record that was read
must still be there, and of a state that was kept the whole index before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from analytics.attribution.engine import Analysis, Rules
from coordinator.core.errors import Code, CoordError
from store.log_files import INDEX, SUFFIXES, RankKey, log_path, read_at
from store.log_index import RECORD_BYTES, Arrival, decoded, mended

READ_BYTES = 1024 * 1024
RECORDS = 4_096
"""Of the index, read at a time."""
BEYOND_BYTES_MAX = 64 * 1024 * 1024
_FORMAT = 1
_DIGEST_BYTES = 16


class Gone(Exception):
    """The log was there and was removed."""


class _Kept(Struct, frozen=True, array_like=True):
    format: int
    records: int
    within: int
    index: bytes
    """Digest of the records that were read."""
    consumed: tuple[int, int]
    analysis: bytes


class _Record(NamedTuple):
    raw: bytes
    arrival: Arrival


class StoredLog:
    """Reads one rank's log once, and feeds it. It holds no file open: backups and removals replace them."""

    def __init__(self, root: Path, key: RankKey, rules: Rules, usual: frozenset[str] = frozenset()) -> None:
        """`usual`: fingerprints of what runs of this program say that go well."""
        self.why_replayed = ""
        """`rewritten`: its end was stored anew. `stale`: what was kept of it did not fit to it any more."""
        self._root, self._key, self._rules, self._usual = root, key, rules, usual
        self._begin()

    def _begin(self) -> None:
        self.analysis = Analysis(self._rules, usual=self._usual)
        self.consumed = (0, 0)
        """Bytes of stdout and stderr."""
        self._records = 0
        """Of the index, read to their ends."""
        self._within = 0
        """Bytes of the next one that were read."""
        self._last = b""
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    @property
    def read_bytes(self) -> int:
        """That were read."""
        return sum(self.consumed)

    # ---- between two processes

    def save(self) -> bytes:
        """For `restore`."""
        kept = _Kept(_FORMAT, self._records, self._within, self._digest.digest(), self.consumed, self.analysis.save())
        return msgspec.msgpack.encode(kept)

    def restore(self, data: bytes) -> None:
        """Go on where `save` was called. CoordError when the log has become another since, or `data` is none of ours or
        was made with other rules: nothing changed then. Reads the index up to there."""
        try:
            kept = msgspec.msgpack.decode(data, type=_Kept)
        except msgspec.DecodeError as error:
            raise CoordError(Code.BAD_REQUEST, f"this is no state of a log: {error}", "begin anew") from error
        if kept.format != _FORMAT:
            raise CoordError(Code.BAD_REQUEST, f"a state of format {kept.format} was kept", "begin anew")
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        last, left, offset = b"", kept.records * RECORD_BYTES, 0
        while left and (piece := self._pread(INDEX, min(left, READ_BYTES), offset)):
            digest.update(piece)
            last = piece[-RECORD_BYTES:]
            left, offset = left - len(piece), offset + len(piece)
        if left or digest.digest() != kept.index:
            raise CoordError(Code.BAD_REQUEST, "the log was made anew since", "begin anew")
        self.analysis = Analysis.restore(self._rules, kept.analysis)
        self.consumed, self._records, self._within = kept.consumed, kept.records, kept.within
        self._last, self._digest = last, digest

    # ---- reading

    def advance(self, limit: int = READ_BYTES) -> int:
        """Feed at most `limit` new bytes. -> how many; 0: no more have come. Raises Gone, OSError."""
        self._check_last()
        batch = self._next_records()
        fed = first = 0
        while first < len(batch) and fed < limit:
            run = _same_stream(batch, first)
            arrival = batch[first].arrival
            length = sum(record.arrival.length for record in run) - self._within
            size = min(length, limit - fed)
            data = self._pread(SUFFIXES[arrival.stream], size, arrival.offset + self._within)
            self._feed(run, arrival.stream, data)
            fed += len(data)
            if len(data) < size:
                self._check_there(SUFFIXES[arrival.stream])
                break  # a full disk took the end back; it comes again
            first += len(run)
        return fed

    def _feed(self, run: Sequence[_Record], stream: int, data: bytes) -> None:
        if data:
            self.analysis.feed(data, stream)
        out, err = self.consumed
        self.consumed = (out + len(data), err) if stream == 0 else (out, err + len(data))
        left = len(data)
        for record in run:
            missing = record.arrival.length - self._within
            if left < missing:
                self._within += left
                return
            left -= missing
            self._within = 0
            self._records += 1
            self._last = record.raw
            self._digest.update(record.raw)

    def has(self, lengths: tuple[int, int]) -> bool:
        """Whether both streams were read so far."""
        return self.consumed[0] >= lengths[0] and self.consumed[1] >= lengths[1]

    def read_beyond_index(self, lengths: tuple[int, int]) -> bool:
        """Read what the index does not tell of, where the streams are known to end and do: it lost its end with the
        machine's power, and the store adds it, stdout first, when somebody opens the log. False: that is not so, or it
        is too much. Nothing is kept of this log afterwards."""
        sizes = [self._size(suffix) for suffix in SUFFIXES]
        left = sum(lengths) - sum(self.consumed)
        if sizes[0] < lengths[0] or sizes[1] < lengths[1] or left > BEYOND_BYTES_MAX:
            return False
        out, err = self.consumed
        for stream, begin in ((0, out), (1, err)):
            self.analysis.feed(self._pread(SUFFIXES[stream], lengths[stream] - begin, begin), stream)
        self.consumed = lengths
        return True

    def behind(self) -> int:
        """Bytes that are stored and were not read yet."""
        sizes = [self._size(suffix) for suffix in SUFFIXES]
        return max(0, sizes[0] - self.consumed[0]) + max(0, sizes[1] - self.consumed[1])

    def end(self, stream: int, size: int) -> tuple[bytes, int]:
        """The last lines of a stream, about `size` bytes, and where they begin. Nothing of it counts as read."""
        length = self._size(SUFFIXES[stream])
        begin = max(0, length - size)
        data = self._pread(SUFFIXES[stream], length - begin, begin)
        cut = data.find(b"\n") + 1 if begin else 0
        return data[cut:], begin + cut

    def _check_last(self) -> None:
        """Begin anew where the end of the index that was read is not there any more."""
        if not self._records:
            return
        if self._pread(INDEX, RECORD_BYTES, (self._records - 1) * RECORD_BYTES) == self._last:
            return
        self._check_there(INDEX)
        self._begin()
        self.why_replayed = "rewritten"

    def _check_there(self, suffix: str) -> None:
        if not log_path(self._root, self._key, suffix).exists():
            raise Gone

    def _next_records(self) -> list[_Record]:
        begin = self._records * RECORD_BYTES
        index = self._pread(INDEX, RECORDS * RECORD_BYTES, begin)
        found: list[_Record] = []
        for place in range(0, len(index) - len(index) % RECORD_BYTES, RECORD_BYTES):
            raw = index[place : place + RECORD_BYTES]
            arrival = decoded(raw) or self._mended(begin + place)
            if arrival is None:
                break
            found.append(_Record(raw, arrival))
        return found

    def _mended(self, place: int) -> Arrival | None:
        """A damaged record as the store will mend it, by what follows. None where nothing sound does: it is being
        written."""
        index = self._pread(INDEX, self._size(INDEX), 0)
        index = index[: len(index) - len(index) % RECORD_BYTES]
        behind = range(place + RECORD_BYTES, len(index), RECORD_BYTES)
        if not any(decoded(index[at : at + RECORD_BYTES]) for at in behind):
            return None
        return decoded(mended(index)[place : place + RECORD_BYTES])

    def _size(self, suffix: str) -> int:
        try:
            return log_path(self._root, self._key, suffix).stat().st_size
        except FileNotFoundError:
            return 0

    def _pread(self, suffix: str, size: int, offset: int) -> bytes:
        """Up to `size` bytes; none where there is no file."""
        if size <= 0:
            return b""
        try:
            fd = os.open(log_path(self._root, self._key, suffix), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return read_at(fd, size, offset)
        finally:
            os.close(fd)


def _same_stream(batch: Sequence[_Record], first: int) -> Sequence[_Record]:
    """The arrivals from there on that adjoin in one stream."""
    stream = batch[first].arrival.stream
    end = next((at for at in range(first, len(batch)) if batch[at].arrival.stream != stream), len(batch))
    return batch[first:end]
