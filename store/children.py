"""Short-lived child processes of the store: what would hold the loop's GIL or fill its memory runs in one."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from coordinator.core.errors import Code, CoordError

EXIT_FULL = 3
"""A child's exit status when the disk is full."""
NICENESS = 10
_PR_SET_PDEATHSIG = 1


async def run_child(module: str, arguments: Sequence[str], given: bytes, seconds_max: float) -> bytes:
    """Run `python -m module` with `given` on its standard input and return what it wrote to standard output.

    Raises CoordError: STORE_FULL when it says that the disk is, TIMEOUT, INTERNAL with its last words.
    A caller that is cancelled takes the child with it.
    """
    # -P: the working directory is nobody's import path.
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        *arguments,
        # A child that ended before our loop had its turn has a closed one, which is no news where nothing is given.
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds_max):
            out, err = await child.communicate(given or None)
    except TimeoutError:
        raise CoordError(
            Code.TIMEOUT, f"{module} took longer than {seconds_max:.0f} s", "ask for less, or look at the disk's load"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return out
    words = err.decode(errors="replace").strip().splitlines()
    said = words[-1][:500] if words else "it said nothing"
    if child.returncode == EXIT_FULL:
        raise CoordError(Code.STORE_FULL, f"no room for {module}: {said}", "free some space on the data disk")
    raise CoordError(
        Code.INTERNAL, f"{module} ended with {child.returncode}: {said}", "run coord db check to see what is damaged"
    )


def become_child() -> None:
    """Called first in a child: be nice to others, and do not outlive the parent."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    os.nice(NICENESS)
