"""What the kernel is asked for beside Python's own calls."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from coordinator.agent import syscalls


def test_a_copy_begins_though_another_thread_asks_for_the_interpreter() -> None:
    """Property: a copy of this process runs on, whatever its other threads wanted in the moment that it was made."""
    over = threading.Event()

    def want_it() -> None:
        while not over.is_set():
            pass

    interval = sys.getswitchinterval()
    wanting = threading.Thread(target=want_it, name="wanting")
    sys.setswitchinterval(1e-6)
    wanting.start()
    try:
        assert [_copied() for _ in range(150)] == [7] * 150
    finally:
        over.set()
        sys.setswitchinterval(interval)
        wanting.join()


def _copied() -> int:
    """The exit status of a copy that does nothing but end; one that hangs is killed."""
    pid = syscalls.fork_into(0)
    if pid == 0:
        os._exit(7)
    until_s = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL
        time.sleep(0.0005)
