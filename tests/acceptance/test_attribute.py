"""`coord attribute` as a process: a pipe that grows, and Ctrl-C in the middle of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from cli import exits
from tests.acceptance.processes import GUARD_S, clean_environment


def piped(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (sys.executable, "-m", "cli", "attribute", "-", *argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        start_new_session=True,
    )


def test_a_pipe_is_judged_when_it_ends() -> None:
    """In pieces, without a file's name, and without a word on stderr."""
    with piped("-o", "json") as coord:
        assert coord.stdin is not None
        for piece in (
            b"step 1\nstep 2\ntorch.OutOfMemory",
            b"Error: CUDA out of mem",
            b"ory. Tried to allocate 2 GiB\n",
        ):
            coord.stdin.write(piece)
            coord.stdin.flush()
        out, err = coord.communicate(timeout=GUARD_S)
    assert (exits.OK, b"") == (coord.returncode, err)
    assert "gpu_oom" == json.loads(out)["cause"]


def test_ctrl_c_ends_it_as_a_shell_expects() -> None:
    """While it waits for more: 130, and nothing was said."""
    with piped("-o", "json") as coord:
        assert coord.stdin is not None
        coord.stdin.write(b"x\n" * 200_000)  # more than a pipe holds: it reads by now
        coord.stdin.flush()
        coord.send_signal(signal.SIGINT)
        out, err = coord.communicate(timeout=GUARD_S)
    assert (exits.INTERRUPTED, b"", b"") == (coord.returncode, out, err.strip())
