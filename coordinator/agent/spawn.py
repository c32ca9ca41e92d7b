"""Starting a program beside the agent, with its rights: argument list as given, an environment of its own, no shell."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

PROCESSES_MAX = 8_192
"""Of one attempt, threads included: a fork bomb ends there. Four times what a large MPI rank was seen to have."""
NOT_FOUND = 127
NOT_STARTED = 126
"""What shells say of a program that is there and cannot be run."""
SEARCH_SHOWN = 200
"""Characters of a PATH in which nothing was found."""
EVERY_SIGNAL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotStart(Exception):
    """`code` is the exit status that a shell would give."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def why(error: OSError, what: str) -> CannotStart:
    missing = error.errno == errno.ENOENT
    return CannotStart(NOT_FOUND if missing else NOT_STARTED, f"{what}: {error.strerror}")


def find_program(name: str, search: str, directory: str) -> str:
    """The path to execute, as execvp(3) finds it: CannotStart(127) or (126) when there is none."""
    if not name or "\0" in name:
        raise CannotStart(NOT_FOUND, "the command is empty")
    if "/" in name:
        return name if name.startswith("/") else str(Path(directory) / name)
    refused = False
    for place in search.split(":"):
        # strings: a Path for each would cost what the whole search does
        candidate = f"{place if place.startswith('/') else str(Path(directory, place))}/{name}"
        try:
            mode = os.stat(candidate).st_mode  # noqa: PTH116  # as above
        except OSError:
            continue
        if stat.S_ISREG(mode):
            if os.access(candidate, os.X_OK):
                return candidate
            refused = True
    if refused:
        raise CannotStart(NOT_STARTED, f"{name}: not executable")
    shown = search if len(search) <= SEARCH_SHOWN else f"{search[: SEARCH_SHOWN - 3]}..."
    raise CannotStart(NOT_FOUND, f"{name}: no such program, not in PATH ({shown or 'it is empty'})")


def stdin_of(text: str) -> int:
    """A descriptor from which a program reads `text`: a file in memory that is nobody else's."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        left = memoryview(text.encode())
        while left:
            left = left[os.write(fd, left) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def start_beside(
    argv: tuple[str, ...], env: Mapping[str, str], directory: str, stdin: int, outputs: Iterable[int]
) -> int:
    """The new process's id, in a session of its own in `directory`. Raises CannotStart.

    posix_spawn, which does not copy this process: measured at 0.3 of the CPU of a fork. It cannot change the directory,
    so this process does, and goes back.
    """
    out, err = outputs
    program = find_program(argv[0], env.get("PATH", ""), directory)
    back = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.chdir(directory)
        except OSError as error:
            raise CannotStart(NOT_STARTED, f"directory {directory}: {error.strerror}") from None
        try:
            return os.posix_spawn(
                program,
                argv,
                env,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, stdin, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=EVERY_SIGNAL,
            )
        except OSError as error:
            raise why(error, program) from None
        except ValueError as error:  # a NUL in an argument
            raise CannotStart(NOT_STARTED, str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(back)
        os.close(back)
