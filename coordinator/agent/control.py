"""The control socket in the state directory: people on this machine ask the agent how it is, or to go.

One JSON line asks, one JSON line answers. Who may open the socket is the directory's mode (0700) and its own (0600).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.standing import AgentStatus, Wish
from coordinator.core.errors import Code, CoordError

LINE_BYTES_MAX = 16 * 1024
PATIENCE_S = 5.0
SOCKET_NAME = "control"


class AskStatus(Struct, frozen=True, kw_only=True, tag_field="ask", tag="status"):
    """How is it?"""


class AskAway(Struct, frozen=True, kw_only=True, tag_field="ask", tag="away"):
    """Be away until then, and come back by yourself. Asked again, the new moment counts."""

    until_ms: int


class AskBack(Struct, frozen=True, kw_only=True, tag_field="ask", tag="back"):
    """Come back now."""


class AskBye(Struct, frozen=True, kw_only=True, tag_field="ask", tag="bye"):
    """Say good-bye and end."""


Question = AskStatus | AskAway | AskBack | AskBye


class Answer(Struct, frozen=True, kw_only=True):
    """`status` after the question was taken; else `error`."""

    status: AgentStatus | None = None
    error: str = ""


_QUESTION: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_ANSWER = msgspec.json.Decoder(Answer)


@contextlib.contextmanager
def _short_path(state_dir: Path) -> Iterator[str]:
    """A name of the socket that fits a socket address (107 bytes), however long the directory's is."""
    fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


def _bind(state_dir: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(state_dir) as path:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            old_mask = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(old_mask)
    except OSError as error:
        sock.close()
        raise AgentStop(Exit.DISK, f"no control socket in {state_dir}: {error.strerror}") from None
    return sock


@contextlib.asynccontextmanager
async def serve(
    state_dir: Path, ask: Callable[[Wish | None], None], status: Callable[[], AgentStatus]
) -> AsyncIterator[None]:
    """Answer while the block runs. Only the holder of the directory's lock may call this: an old socket is replaced."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                reply = _take(await reader.readline())
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            return  # who does not ask in time, or too much, is not answered
        finally:
            writer.close()

    def _take(line: bytes) -> Answer:
        try:
            question = _QUESTION.decode(line)
        except msgspec.DecodeError as error:
            return Answer(error=f"not a question that this agent knows: {error}")
        match question:
            case AskAway(until_ms=until_ms):
                ask(Wish(until_ms=until_ms))
            case AskBye():
                ask(Wish())
            case AskBack():
                ask(None)
            case AskStatus():
                pass
        return Answer(status=status())

    server = await asyncio.start_unix_server(answer, sock=_bind(state_dir), limit=LINE_BYTES_MAX, backlog=16)
    async with server:
        yield


class AgentControl:
    """The asking side, for commands on the same machine. Blocking. Raises CoordError(UNREACHABLE) without an agent."""

    def __init__(self, state_dir: Path, timeout_s: float = PATIENCE_S) -> None:
        self._state_dir = state_dir
        self._timeout_s = timeout_s

    def status(self) -> AgentStatus:
        """How the agent is now."""
        return self._ask(AskStatus())

    def away(self, until_ms: int) -> AgentStatus:
        """Have it say that it will be away until `until_ms` (Unix milliseconds), go, and come back then."""
        return self._ask(AskAway(until_ms=until_ms))

    def back(self) -> AgentStatus:
        """Have it come back before the time it named."""
        return self._ask(AskBack())

    def bye(self) -> AgentStatus:
        """Have it say good-bye and end. Returns when it was asked, not when it has ended."""
        return self._ask(AskBye())

    def _ask(self, question: Question) -> AgentStatus:
        try:
            with _short_path(self._state_dir) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(self._timeout_s)
                sock.connect(path)
                sock.sendall(msgspec.json.encode(question) + b"\n")
                line = b""
                while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX and (part := sock.recv(LINE_BYTES_MAX)):
                    line += part
        except TimeoutError:
            raise CoordError(
                Code.TIMEOUT, f"the agent of {self._state_dir} does not answer", "its daemon may be stopped; try again"
            ) from None
        except OSError as error:
            raise CoordError(
                Code.UNREACHABLE,
                f"no agent answers in {self._state_dir}: {error.strerror}",
                "start one with: coord agent --state DIR",
            ) from None
        try:
            answer = _ANSWER.decode(line)
        except msgspec.DecodeError:
            raise CoordError(Code.UNREACHABLE, f"the agent of {self._state_dir} hung up", "try again") from None
        if answer.status is None:
            raise CoordError(Code.BAD_REQUEST, answer.error, "use the same version of coord as the agent")
        return answer.status
