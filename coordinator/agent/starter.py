"""A starter: a small process of the keeper's that starts programs and reaps them, and does nothing else.

A start waits until the program is executed: half a millisecond, or as long as a disk hangs. Here that holds up neither
the keeper nor its deadlines. Nothing of a program that begins is known here but its number; what is known is told at
once. It ends when the keeper is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from pathlib import Path

from coordinator.agent import starting, syscalls
from coordinator.agent.clock import boot_s
from coordinator.agent.memory import collect_seldom
from coordinator.agent.spawn import EVERY_SIGNAL, NOT_STARTED, CannotStart, find_program, why
from coordinator.agent.starting import Ended, Order, Refused, Report, Setup, Started

END_FD = 3
ENTRANCES_MAX = 256
"""Files of groups that stay open."""
TOLD_AT_ONCE = 6
"""Reports that are told though there may be more in a moment."""
GATHER_MS = 1
"""What happens within so long is told together: of a short program its beginning and its end. A wake-up of the keeper
costs as much as five reports."""
QUIET_S = 0.003
"""After so long without a report the next one is told at once."""
IN_A_ROW = 4
"""Messages that are obeyed before it is seen who has ended, if they are there already: the way out of the last group of
one is the way into the first of the next."""
FOUND_S = 1.0
"""How long a program is believed to be where it was found: a search is nine questions to the file system."""
FOUND_MAX = 256
PEAK_AGAIN = 512
"""Ends after which this process looks again how large it is."""


class Starter:
    def __init__(self, end: socket.socket, setup: Setup) -> None:
        self._end = end
        self._setup = setup
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._entrances: OrderedDict[str, int] = OrderedDict()
        self._backs = {name: os.open(path, os.O_WRONLY | os.O_CLOEXEC) for name, path in setup.backs.items()}
        self._away: set[str] = set()
        self._held_back: list[Report] = []
        """Of the program in whose group this process is: what is not told before it has left."""
        self._reports: list[Report] = []
        self._todo: deque[tuple[Order, tuple[int, int, int]]] = deque()
        self._groups: tuple[int, ...] | None = None
        self._ignored = [number for number in EVERY_SIGNAL if signal.getsignal(number) is signal.SIG_IGN]
        self._found: dict[tuple[str, str], tuple[str, float]] = {}
        """By name and search path: where a program is, and until when that is believed."""
        self._began_s: dict[int, float] = {}
        """By process: when it was started."""
        self._peak = own_peak()
        self._ends = 0
        self._signalled = False
        """The pipe has something."""
        self._told_s = 0.0

    def run(self, ended: int) -> None:
        """Serve until the keeper is gone. `ended`: a pipe that says that a child may have ended."""
        signal.signal(signal.SIGCHLD, self._on_child_ended)
        more = select.poll()
        more.register(self._end, select.POLLIN)
        news = select.poll()
        news.register(self._end, select.POLLIN)
        news.register(ended, select.POLLIN)
        while True:
            ready = [fd for fd, _ in news.poll(GATHER_MS if self._reports else None)]
            if ended in ready:
                self._signalled = True
            if ready and ready != [ended]:
                for _ in range(IN_A_ROW):
                    orders, fds = starting.hear_orders(self._end)
                    if not orders:
                        return
                    self._todo.extend([(order, starting.order_fds(order, fds)) for order in orders])
                    self._work()
                    if not more.poll(0):
                        break
                self._leave()
            self._reap(ended)
            if self._reports and (not ready or time.monotonic() >= self._told_s + QUIET_S):
                self._tell()

    def _on_child_ended(self, _signum: int, _frame: object) -> None:
        self._signalled = True

    def _work(self) -> None:
        """Do what was ordered. This process may be inside of the last one's group then."""
        while self._todo:
            order, fds = self._todo.popleft()
            self._start(order, fds)
            if order.apart:
                self._leave()
            if order.apart or len(self._reports) >= TOLD_AT_ONCE:
                self._tell()

    def _tell(self) -> None:
        starting.send_reports(self._end, self._reports)
        self._reports = []
        self._told_s = time.monotonic()

    # ---- starting

    def _start(self, order: Order, fds: tuple[int, int, int]) -> None:
        try:
            self._enter(order)
            pid = self._spawn(order, fds)
        except CannotStart as refused:
            self._reports.append(Refused(order.number, refused.code, refused.text))
        except OSError as error:
            text = f"{error.filename or 'no process could be made'}: {error.strerror}"
            self._reports.append(Refused(order.number, NOT_STARTED, text))
        else:
            self._held_back.append(Started(order.number, pid))
        finally:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)

    def _spawn(self, order: Order, fds: tuple[int, int, int]) -> int:
        if self._setup.processes and order.groups != self._groups:
            os.setgroups(order.groups)
            self._groups = order.groups
        if order.user:
            # the child becomes who we really are (RESETIDS), and with the program nothing is left of who we were
            os.setresgid(order.user, 0, 0)
            os.setresuid(order.user, 0, 0)
        try:
            try:
                os.chdir(order.directory)
                if order.user and not os.access(".", os.X_OK):  # asks for who we really are
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                raise CannotStart(NOT_STARTED, f"directory {order.directory}: {error.strerror}") from None
            began_s = boot_s()
            pid = self._execute(order, fds)
            self._began_s[pid] = began_s
        finally:
            if order.user:
                os.setresuid(0, 0, 0)
                os.setresgid(0, 0, 0)
        for kind, soft, hard in order.limits:
            with contextlib.suppress(OSError):  # it has ended already
                resource.prlimit(pid, kind, (soft, hard))
        return pid

    def _execute(self, order: Order, fds: tuple[int, int, int]) -> int:
        search = order.env.get("PATH", "")
        key = order.argv[0], search
        program, until_s = self._found.get(key, ("", 0.0))
        if until_s < time.monotonic():
            program = self._find(order, key)
        try:
            return self._posix_spawn(program, order, fds)
        except OSError:
            self._found.pop(key, None)
        program = self._find(order, key)  # it may have gone from there, or be another user's
        try:
            return self._posix_spawn(program, order, fds)
        except OSError as error:
            raise why(error, program) from None

    def _find(self, order: Order, key: tuple[str, str]) -> str:
        program = find_program(order.argv[0], key[1], order.directory)
        if "/" not in key[0] and all(part.startswith("/") for part in key[1].split(":")):
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            self._found[key] = program, time.monotonic() + FOUND_S
        return program

    def _posix_spawn(self, program: str, order: Order, fds: tuple[int, int, int]) -> int:
        try:
            return os.posix_spawn(
                program,
                order.argv,
                order.env,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, fds[0] if order.stdin else self._nothing, 0),
                    (os.POSIX_SPAWN_DUP2, fds[1], 1),
                    (os.POSIX_SPAWN_DUP2, fds[2], 2),
                ],
                resetids=order.user != 0,
                setsid=True,
                setsigmask=(),
                setsigdef=self._ignored,  # exec itself puts back what has a handler
            )
        except ValueError as error:  # a NUL in an argument
            raise CannotStart(NOT_STARTED, str(error)) from None

    # ---- being in a group for a moment

    def _enter(self, order: Order) -> None:
        for name in self._away.difference(order.entrances):
            os.write(self._backs[name], b"0")
            self._away.discard(name)
        for name, path in order.entrances.items():
            self._away.add(name)
            os.write(self._entrance(path), b"0")
        self._left()

    def _leave(self) -> None:
        for name in self._away:
            os.write(self._backs[name], b"0")
        self._away.clear()
        self._left()

    def _left(self) -> None:
        self._reports += self._held_back
        self._held_back.clear()

    def _entrance(self, path: str) -> int:
        fd = self._entrances.get(path)
        if fd is None:
            fd = self._entrances[path] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            if len(self._entrances) > ENTRANCES_MAX:
                os.close(self._entrances.popitem(last=False)[1])
        return fd

    # ---- reaping

    def _reap(self, pipe: int) -> None:
        """Outside of every group: so what has ended may be told. `pipe`: as in `run`."""
        if self._signalled:  # what is found now is not told of again
            self._signalled = False
            with contextlib.suppress(BlockingIOError):  # two signals, and both bytes were read at the first
                os.read(pipe, 512)
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ends += 1
            if self._ends % PEAK_AGAIN == 0:
                self._peak = own_peak()
            # a process counts what it was copied from as its own: no more than we had means that it is not known
            memory = usage.ru_maxrss * 1024
            now_s = boot_s()
            ran_s = now_s - self._began_s.pop(pid, now_s)  # one that a program made our child was not started here
            ended = Ended(pid, status, usage.ru_utime + usage.ru_stime, memory if memory > self._peak else 0, ran_s)
            self._reports.append(ended)


def own_peak() -> int:
    """The most that this process itself had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Be the starter of the keeper at the other end of the inherited channel."""
    try:
        end = socket.socket(fileno=END_FD)
        os.set_inheritable(END_FD, False)
        end.setblocking(True)
        setup = starting.hear_setup(end)
    except OSError:
        sys.exit("a starter is started by the keeper: coord agent")
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, setup.files)
    if setup.processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (setup.processes, setup.processes))
        os.umask(0o022)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    ended, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only what has a handler is written into the pipe
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    collect_seldom()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Starter(end, setup).run(ended)
    os._exit(0)


if __name__ == "__main__":
    main()
