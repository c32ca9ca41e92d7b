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
from typing import NamedTuple

from coordinator.agent import starting, syscalls
from coordinator.agent.clock import boot_s
from coordinator.agent.group import UNIFIED
from coordinator.agent.memory import collect_seldom
from coordinator.agent.spawn import EVERY_SIGNAL, NOT_STARTED, CannotStart, find_program, why
from coordinator.agent.starting import Ended, Order, Recall, Refused, Report, Returned, Setup, Started, Turn

END_FD = 3
ENTRANCES_MAX = 256
"""Files of groups that stay open, of each kind."""
TOLD_AT_ONCE = 6
"""Reports that are told though there may be more in a moment."""
GATHER_MS = 1
"""What happens within so long is told together: of a short program its beginning and its end. A wake-up of the keeper
costs as much as five reports."""
QUIET_S = 0.003
"""After so long without a report the next one is told at once."""
AHEAD_S = 0.01
"""The same while orders wait here for room: nobody else waits for what is told, as no room is left empty by it."""
FEW = 4
"""Orders that wait here, and are so few that more are to come soon."""
IN_A_ROW = 4
"""Messages that are obeyed before it is seen who has ended, if they are there already: the way out of the last group of
one is the way into the first of the next."""
FOUND_S = 1.0
"""How long a program is believed to be where it was found: a search is nine questions to the file system."""
FOUND_MAX = 256


class _Began(NamedTuple):
    """A program that was started here."""

    at_s: float
    kind: int
    events: str
    """The file that tells whether anybody is in its group."""


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
        self._ahead: dict[int, tuple[Order, tuple[int, int, int]]] = {}
        """By number, in their order: those that wait for room."""
        self._events: OrderedDict[str, int] = OrderedDict()
        self._groups: tuple[int, ...] | None = None
        self._ignored = [number for number in EVERY_SIGNAL if signal.getsignal(number) is signal.SIG_IGN]
        self._found: dict[tuple[str, str], tuple[str, float]] = {}
        """By name and search path: where a program is, and until when that is believed."""
        self._began: dict[int, _Began] = {}
        """By process."""
        self._peak = own_peak()
        """What this process had at most, when that was looked at last."""
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
            ready = [fd for fd, _ in news.poll(self._patience_ms())]
            if ended in ready:
                self._signalled = True
            if ready and ready != [ended]:
                for _ in range(IN_A_ROW):
                    words, fds = starting.hear_words(self._end)
                    if not words:
                        return
                    for word in words:
                        self._take(word, fds)
                    self._work()
                    if not more.poll(0):
                        break
                self._leave()
            self._reap(ended)
            if self._todo:  # in the room of those that have ended
                self._work()
                self._leave()
            if self._reports and self._is_time(bool(ready)):
                self._tell()

    def _patience_ms(self) -> float | None:
        """How long more news are waited for before what there is to tell is told."""
        if not self._reports:
            return None
        return max(0.0, self._told_s + AHEAD_S - time.monotonic()) * 1000 if self._is_ahead() else GATHER_MS

    def _is_ahead(self) -> bool:
        return len(self._ahead) > FEW

    def _is_time(self, busy: bool) -> bool:
        quiet_s = time.monotonic() - self._told_s
        return quiet_s >= AHEAD_S if self._is_ahead() else not busy or quiet_s >= QUIET_S

    def _take(self, word: starting.Word, fds: list[int]) -> None:
        match word:
            case Order():
                mine = word, starting.order_fds(word, fds)
                if word.waits:
                    self._ahead[word.number] = mine
                else:
                    self._todo.append(mine)
            case Turn():
                self._give_back_late()
                if word.number in self._ahead:
                    self._todo.append(self._ahead.pop(word.number))
            case Recall():
                if word.number in self._ahead:
                    self._give_back(word.number)
                    self._told_s = 0.0  # who calls back waits for the answer

    def _on_child_ended(self, _signum: int, _frame: object) -> None:
        self._signalled = True

    def _work(self) -> None:
        """Do what was ordered. This process may be inside of the last one's group then."""
        while self._todo:
            order, fds = self._todo.popleft()
            self._start(order, fds)
            if order.apart:
                self._leave()
            if order.apart or (len(self._reports) >= TOLD_AT_ONCE and not self._is_ahead()):
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
            began = _Began(boot_s(), order.kind, f"{order.entrances[UNIFIED].removesuffix('procs')}events")
            pid = self._execute(order, fds)
            self._began[pid] = began
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
        return _kept_open(self._entrances, path, os.O_WRONLY)

    # ---- those that wait for room

    def _successor(self, ended: _Began) -> int:
        """Who takes the room of a program that was reaped: its number, to be begun now; 0: nobody does."""
        self._give_back_late()
        kind = ended.kind
        number = next((number for number, (order, _) in self._ahead.items() if order.kind == kind), 0) if kind else 0
        if not number or not self._is_empty(ended.events):
            return 0
        self._todo.append(self._ahead.pop(number))
        return number

    def _is_empty(self, events: str) -> bool:
        """Whether nobody is left in a group that this process is not in."""
        try:
            return b"populated 0" in os.pread(_kept_open(self._events, events, os.O_RDONLY), 256, 0)
        except OSError:
            return False

    def _give_back_late(self) -> None:
        now_s = boot_s()
        for number in [number for number, (order, _) in self._ahead.items() if order.until_s <= now_s]:
            self._give_back(number)

    def _give_back(self, number: int) -> None:
        _, fds = self._ahead.pop(number)
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self._reports.append(Returned(number))

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
            # a process counts what it was copied from as its own: no more than we had means that it is not known
            memory = usage.ru_maxrss * 1024
            if memory > self._peak:
                self._peak = own_peak()
            self._on_ended(pid, status, usage.ru_utime + usage.ru_stime, memory if memory > self._peak else 0)

    def _on_ended(self, pid: int, status: int, cpu_s: float, memory: int) -> None:
        began = self._began.pop(pid, None)
        if began is None:  # one that a program made our child was not started here
            self._reports.append(Ended(pid, status, cpu_s, memory, 0.0))
            return
        ran_s = boot_s() - began.at_s
        successor = self._successor(began) if self._ahead else 0
        self._reports.append(Ended(pid, status, cpu_s, memory, ran_s, successor))


def _kept_open(files: OrderedDict[str, int], path: str, flags: int) -> int:
    """One of these, opened when it was not."""
    fd = files.get(path)
    if fd is None:
        fd = files[path] = os.open(path, flags | os.O_CLOEXEC)
        if len(files) > ENTRANCES_MAX:
            os.close(files.popitem(last=False)[1])
    return fd


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
