"""What a file's bytes are called: BLAKE3, which is imported when the first file is hashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from blake3 import blake3

PIECE = 1024 * 1024
Moved = Callable[[int], None]
"""Called with how many bytes came to those before; less than 0 when some have to be moved again."""


def hasher() -> blake3:
    """One that has seen nothing yet."""
    from blake3 import blake3

    return blake3()


def digest_of(path: Path, moved: Moved | None = None) -> tuple[str, int]:
    """BLAKE3 and size of what is read of a file. One that grows meanwhile is taken as far as it was read."""
    found = hasher()
    size = 0
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                found.update(view[:n])
                size += n
                if moved is not None:
                    moved(n)
    except OSError as wrong:
        raise unreadable(path, wrong) from wrong
    return found.hexdigest(), size


def changed(path: Path) -> CoordError:
    return CoordError(
        Code.CONFLICT, f"{path} was changed while it was uploaded", "try again when whoever writes it has finished"
    )


def unreadable(path: Path, wrong: OSError) -> CoordError:
    hint = "name a file that is there"
    if isinstance(wrong, IsADirectoryError):
        hint = "name a file of it, or pack it first; jobs take whole directories: coord submit --input DIR"
    return CoordError(Code.NOT_FOUND, f"{path} cannot be read: {wrong.strerror}", hint)
