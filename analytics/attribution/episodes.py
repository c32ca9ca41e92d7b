"""Things that take several lines to tell: tracebacks, what chains them, and the summaries of launchers.

Lines of several writers may be mixed: each has an episode of its own, by what their prefixes say of them. Frames and
the source that they quote are not the program's words: they are never classified. The line that ends a traceback is.
"""

from __future__ import annotations

import re
from enum import IntEnum

from msgspec import Struct

from analytics.attribution.case import Place
from analytics.attribution.prefixes import Stripped

HEADER = b"Traceback (most recent call last)"
GATE = (
    r"Traceback \(most recent call last\)",
    r"\bFile \"[^\"\n]{1,300}\", line \d",
    r"Exception ignored ",
    r"During handling of the above exception",
    r"the direct cause of the following exception",
    r"ChildFailedError",
    r"Failures:",
)
"""Patterns of lines that begin something: part of the gate."""
WRITERS_MAX = 64
QUIET_LINES_MAX = 300
"""A traceback is forgotten when its writer is silent for so long."""
STRAYS_MAX = 20
"""Lines of no traceback within one: what else is written at the same time."""
SUMMARY_LINES_MAX = 300
IGNORED_LINES_MAX = 200
OPEN_MAX = 8
FRAMES_KEPT = 6
FRAME_BYTES = 96
ESCAPED_LINES_MAX = 300
# A dump of a living program's stacks writes ` in` without the comma: it ends in no exception.
_FRAME = re.compile(rb'[ \t|+]{0,12}File "([^"]{1,400})", line \d+(?!\d| in )(?:, in (\S{1,80}))?')
_BOXED_FRAME = re.compile(rb"\xe2\x94\x82 {1,4}(\S{1,300}):\d+ in (\S{1,80})")
_BOX = (b"\xe2\x94\x82", b"\xe2\x95\xad", b"\xe2\x95\xb0", b"\xe2\x94\x8c", b"\xe2\x94\x94")
_EXCEPTION = re.compile(rb"([A-Za-z_]\w{0,80}(?:\.[A-Za-z_<]\w{0,80}>?){0,12})(?:\([\w.]{1,80}\))?(?:$|:(?=\s|$))")
_GROUPS = ("ExceptionGroup", "BaseExceptionGroup")
"""What they hold follows, and counts."""
_SUMMARY_RANK = re.compile(rb"\s{0,8}rank\s{1,12}: (\d{1,5})\b")


class Saying(IntEnum):
    """What a line is to an episode."""

    PLAIN = 0
    """A line for itself."""
    FRAME = 1
    """Part of a traceback: means nothing."""
    END = 2
    """Ends a traceback: the exception."""
    IGNORED = 3
    """Ends a traceback of which the interpreter said that it does not matter."""


class Heard(Struct, frozen=True, gc=False):
    """`text` is what there is to classify."""

    saying: Saying
    text: bytes
    exception: str = ""
    frames: bytes = b""
    episode: int = 0
    summary: bool = False
    rank: int | None = None


class Writer(Struct, gc=False, array_like=True):
    """One that may be within a traceback."""

    open: int = 0
    base: int = 0
    """Columns that its header is indented by: the exception stands no deeper."""
    frames: list[bytes] = []
    episode: int = 0
    chained: bool = False
    """What comes next belongs to the same episode."""
    ignored: int = 0
    ignored_at: int = 0
    strays: int = 0
    heard_at: int = 0
    ended_at: int = -2
    header: Place | None = None
    """Where what is open began."""
    rank: int | None = None


class Episodes(Struct, array_like=True):
    """Of all writers. Orders are numbers of lines."""

    writers: dict[bytes, Writer] = {}
    count: int = 0
    until: int = 0
    """Every line before this one matters to some traceback."""
    summary_until: int = 0
    broken: Place | None = None
    """Where a traceback began that never came to its end; the latest."""
    broken_rank: int | None = None
    root_told: bool = False
    summary_rank: int | None = None

    def watching(self, order: int) -> bool:
        """Whether the line may belong to something, whatever it says."""
        return order < self.until or order < self.summary_until

    def unfinished(self) -> list[tuple[Place, int | None]]:
        """Where tracebacks began of which no end was told, in their order, and the ranks that wrote them."""
        found = [(self.broken, self.broken_rank)] if self.broken is not None else []
        for writer in self.writers.values():
            if writer.open and not writer.ignored and writer.header is not None:
                found.append((writer.header, writer.rank))
        return sorted(found, key=lambda one: one[0].order)

    def hear(self, told: Stripped, place: Place) -> Heard:
        """Take the next line that may matter."""
        text, order = told.text, place.order
        in_summary = self._in_summary(text, order)
        key = b"%d" % place.stream + told.who
        writer = self.writers.get(key)
        was_open = writer is not None and writer.open > 0
        if writer is not None and was_open and order - writer.heard_at > QUIET_LINES_MAX:
            self._break(writer)
            was_open = False
        heard = self._hear(key, writer, text, order)
        writer = self.writers.get(key)
        if writer is not None and writer.open and not was_open:
            writer.header, writer.rank = place, told.rank
        if in_summary:
            heard = Heard(
                heard.saying, heard.text, heard.exception, heard.frames, heard.episode, True, self.summary_rank
            )
        return heard

    def _hear(self, key: bytes, writer: Writer | None, text: bytes, order: int) -> Heard:
        at = text.find(HEADER)
        if at >= 0:
            return self._header(key, text, at, order)
        frame = _FRAME.match(text)
        if writer is None or not (writer.open or writer.ignored or writer.ended_at >= 0):
            if frame is None and not _begins(text):
                return Heard(Saying.PLAIN, text)
            writer = self._writer(key)
        if frame is not None or text.startswith(_BOX):
            return self._frame(writer, text, frame, order)
        if text.startswith((b"During handling of the above", b"The above exception was the direct cause")):
            writer.chained = True
            return Heard(Saying.FRAME, b"")
        if text.startswith(b"Exception ignored "):
            writer.ignored, writer.ignored_at = min(writer.ignored + 1, OPEN_MAX), order
        elif writer.open:
            return self._within(writer, text, order)
        return Heard(Saying.PLAIN, text)

    def _header(self, key: bytes, text: bytes, at: int, order: int) -> Heard:
        rest = text[at + len(HEADER) :].lstrip(b":")
        if b"\\n" in rest:
            return self._escaped(rest)
        if rest.strip() and not text.startswith(_BOX):
            return Heard(Saying.PLAIN, text)
        writer = self._writer(key)
        again = writer.chained or text.startswith(b"Original ") or writer.ended_at == order - 1
        self._begin(writer, again)
        writer.base = _indent(text)
        self._keep_open(writer, order)
        return Heard(Saying.FRAME, b"")

    def _frame(self, writer: Writer, text: bytes, frame: re.Match[bytes] | None, order: int) -> Heard:
        if frame is None and not writer.open:
            return Heard(Saying.PLAIN, text)
        if not writer.open:
            self._begin(writer, again=writer.chained or writer.ended_at == order - 1)
            writer.base = max(_indent(text) - 2, 0)
        found = frame or _BOXED_FRAME.match(text)
        if found is not None:
            writer.frames = _with_frame(writer.frames, found)
        self._keep_open(writer, order)
        return Heard(Saying.FRAME, b"")

    def _within(self, writer: Writer, text: bytes, order: int) -> Heard:
        if not text.strip() or _indent(text) > writer.base:
            self._keep_open(writer, order)
            return Heard(Saying.FRAME, b"")
        bare = text.lstrip(b" \t|+-")
        found = _exception(bare)
        if found is None:
            writer.strays += 1
            if writer.strays > STRAYS_MAX:
                self._break(writer)
            self._keep_open(writer, order)
            return Heard(Saying.PLAIN, text)
        frames, writer.frames = b"\n".join(writer.frames), []
        writer.open -= 1
        writer.ended_at = order
        self._keep_open(writer, order)
        if found in _GROUPS:
            writer.chained = True
            return Heard(Saying.FRAME, b"")
        if writer.ignored:
            writer.ignored -= 1
            if order - writer.ignored_at <= IGNORED_LINES_MAX:
                return Heard(Saying.IGNORED, bare, found)
        return Heard(Saying.END, bare, found, frames, writer.episode)

    def _escaped(self, rest: bytes) -> Heard:
        """A traceback within one line, its line ends written as \\n."""
        frames: list[bytes] = []
        last, exception = b"", ""
        for part in rest.split(b"\\n")[:ESCAPED_LINES_MAX]:
            text = part.replace(b'\\"', b'"').strip(b" \t\"',")
            frame = _FRAME.match(text)
            if frame is not None:
                frames = _with_frame(frames, frame)
            elif part[:1] not in (b" ", b"\t") and (found := _exception(text)) is not None:
                last, exception = text, found
        if not last:
            return Heard(Saying.PLAIN, rest)
        self.count += 1
        return Heard(Saying.END, last, exception, b"\n".join(frames), self.count)

    def _begin(self, writer: Writer, again: bool) -> None:
        if not again:
            self.count += 1
        writer.episode = writer.episode if again and writer.episode else self.count
        writer.open = min(writer.open + 1, OPEN_MAX)
        writer.chained = False
        writer.strays = 0

    def _break(self, writer: Writer) -> None:
        writer.open = 0
        if not writer.ignored:
            self.broken, self.broken_rank = writer.header, writer.rank

    def _keep_open(self, writer: Writer, order: int) -> None:
        writer.heard_at = order
        if writer.open:
            self.until = order + QUIET_LINES_MAX
        elif not any(other.open for other in self.writers.values()):
            self.until = 0

    def _writer(self, key: bytes) -> Writer:
        """The one that was heard last is kept longest."""
        writer = self.writers.pop(key, None) or Writer()
        if len(self.writers) >= WRITERS_MAX:
            del self.writers[next(iter(self.writers))]
        self.writers[key] = writer
        return writer

    def _in_summary(self, text: bytes, order: int) -> bool:
        if order < self.summary_until:
            if (rank := _SUMMARY_RANK.match(text)) is not None:
                self.summary_rank = int(rank[1])
            self.root_told |= text.startswith(b"Root Cause")
            if text.startswith(b"====") and self.root_told:
                self.summary_until = 0
            return True
        if b"ChildFailedError" in text or text.startswith(b"Failures:"):
            self.summary_until, self.root_told, self.summary_rank = order + SUMMARY_LINES_MAX, False, None
            return True
        return False


def _begins(text: bytes) -> bool:
    return text.startswith(
        (b"Exception ignored ", b"During handling of the above", b"The above exception was the direct")
    )


def _exception(text: bytes) -> str | None:
    """The class that the line names. It has dots, or capitals and small letters."""
    found = _EXCEPTION.match(text)
    if found is None:
        return None
    name = found[1].decode(errors="replace")
    last = name.rpartition(".")[2]
    return last if "." in name or (last[:1].isupper() and not last.isupper()) else None


def _with_frame(frames: list[bytes], found: re.Match[bytes]) -> list[bytes]:
    """The outermost one stays, since it tells what kind of program or thread it is, and the innermost ones."""
    return [*frames[:1], *frames[1:][2 - FRAMES_KEPT :], _place(found)]


def _place(frame: re.Match[bytes]) -> bytes:
    """`file:function`, of a long path its end."""
    path, function = frame[1], frame[2] or b""
    return (path + b":" + function)[-FRAME_BYTES:]


def _indent(text: bytes) -> int:
    return len(text) - len(text.lstrip(b" \t"))
