"""The outputs of an attempt: which files its step declared, found when its program has ended.

A pattern is looked for beneath COORD_OUTPUT_DIR and beneath the working directory; what lies in both is taken from the
first. Links are not followed and are no outputs; neither is anything else that is no plain file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from coordinator import globs
from coordinator.agent import beneath
from coordinator.agent.grounds import Ground
from coordinator.agent.hashing import digesting
from coordinator.core.errors import CoordError

LOOKED_AT_MAX = 200_000
"""Files beneath one directory that are held against a pattern."""
FILE_BYTES_MAX = 1 << 42
"""No coordinator takes more as one blob. A file may say of itself that it has 8 EB, and hold nothing."""


class NoOutput(Exception):
    """What was declared is not there, or cannot be taken; the text says what and why."""


class Collected(NamedTuple):
    """One file of the result. `open` gives what was hashed, unless somebody changed it since."""

    path: str
    digest: str
    size: int
    executable: bool
    ground: Ground
    user: int

    def open(self) -> int:
        return self.ground.open_file(self.path, self.user)


def collecting(
    grounds: Sequence[Ground], patterns: Iterable[str], user: int, most: int
) -> Generator[None, None, list[Collected]]:
    """The files of a result, by path, hashed. Blocks from one yield to the next: for `heavy.by_turns`. NoOutput when a
    pattern matches none, when there are more than `most`, or when one cannot be read. `user`: who has to be able to
    read them; 0: whoever we are."""
    found: dict[str, Ground] = {}
    for pattern in patterns:
        names = 0
        for ground in grounds:
            for path in _named(ground, pattern, user):
                names += 1
                yield
                found.setdefault(path, ground)
                if len(found) > most:
                    raise NoOutput(f"the outputs are more than {most} files: pack them, or declare fewer")
        if not names:
            raise NoOutput(f"the output {pattern!a} matches no file")
    files: list[Collected] = []
    for path, ground in sorted(found.items()):
        files.append((yield from _take(path, ground, user)))
    return files


def _named(ground: Ground, pattern: str, user: int) -> Iterator[str]:
    """The plain files that `pattern` means beneath one directory; a literal one that is no plain file is NoOutput."""
    try:
        directory = ground.open()
    except FileNotFoundError:
        return
    except (OSError, beneath.Unsafe) as error:
        raise NoOutput(f"the outputs cannot be looked for: {_words(error)}") from None
    try:
        wanted = globs.compiled(pattern)
        if globs.is_literal(pattern):
            path = pattern.removeprefix("./")
            try:
                os.close(beneath.open_file(directory, path, user))
            except FileNotFoundError:
                return
            yield path
            return
        above = _literal_part(pattern)
        inner = beneath.open_directory(directory, above)
        prefix = f"{above}/" if above else ""
        try:
            for entry in beneath.walk(inner, LOOKED_AT_MAX):
                if entry.is_file and wanted.matches(prefix + entry.path):
                    yield prefix + entry.path
        finally:
            os.close(inner)
    except FileNotFoundError:
        return
    except (OSError, beneath.Unsafe, CoordError) as error:
        raise NoOutput(f"the output {pattern!a} cannot be taken: {_words(error)}") from None
    finally:
        os.close(directory)


def _literal_part(pattern: str) -> str:
    """The directory that everything which `pattern` means lies in."""
    parts: list[str] = []
    for one in pattern.removeprefix("./").split("/")[:-1]:
        if not globs.is_literal(one):
            break
        parts.append(one)
    return "/".join(parts)


def _take(path: str, ground: Ground, user: int) -> Generator[None, None, Collected]:
    try:
        directory = ground.open()
        try:
            fd = beneath.open_file(directory, path, user)
        finally:
            os.close(directory)
        try:
            size = os.fstat(fd).st_size
            if size > FILE_BYTES_MAX:
                raise NoOutput(f"the output {path!a} has {size} bytes, no more than {FILE_BYTES_MAX} are taken")
            digest, size = yield from _digesting(fd, path, size)
            executable = bool(os.fstat(fd).st_mode & stat.S_IXUSR)
        finally:
            os.close(fd)
    except (OSError, beneath.Unsafe) as error:
        raise NoOutput(f"the output {path!a} cannot be read: {_words(error)}") from None
    return Collected(path, digest, size, executable, ground, user)


def _digesting(fd: int, path: str, size: int) -> Generator[None, None, tuple[str, int]]:
    steps = digesting(fd)
    while True:
        try:
            at = next(steps)
        except StopIteration as ended:
            found: tuple[str, int] = ended.value
            return found
        if at > size:
            raise NoOutput(f"the output {path!a} grows while it is read")
        yield


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message if isinstance(error, CoordError) else str(error)
