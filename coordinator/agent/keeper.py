"""The keeper: the agent's first process, which owns processes and deadlines and never touches the network.

It starts the daemon, watches that its loop turns, and starts the next one when it dies; to the coordinator that is
the same agent process, because `process_id` and the last resume key are the keeper's. Attempts are in `Custody`.
Descendants that lose their parent become its children (subreaper) and are reaped. Everything is decided in one thread,
on CLOCK_BOOTTIME, and nothing in it waits for the network or for a program; a second one stands in for it at deadlines
while a disk holds it up (`Guard`).
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import random
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from coordinator import wire
from coordinator.agent import channel, cleanup, log
from coordinator.agent.cgroup import CgroupHome
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig, Patience, check_config
from coordinator.agent.custody import Custody
from coordinator.agent.exits import FINAL, AgentStop, Exit
from coordinator.agent.guard import Guard
from coordinator.agent.journal import Journal
from coordinator.agent.launching import Launcher
from coordinator.agent.log import logger
from coordinator.agent.memory import collect_seldom
from coordinator.agent.offer import offered
from coordinator.agent.places import Places, work_of
from coordinator.agent.probing import caps_cpu, isolation_of
from coordinator.agent.state_dir import StateDir

TURN_S = 1.0
"""The longest the keeper sleeps. A turn that took longer was a stall of its own, and is nobody's silence."""
HEARD_A_TURN = 32
"""Messages of the daemon that are taken before everything else has its turn: each may start a program."""
FILES = 8 * wire.ATTEMPTS_MAX
OUR_FDS_FROM = 10
"""Above every number that a daemon is given."""
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


DAEMON = (sys.executable, "-P", "-m", "coordinator.agent.daemon")


def run(config: AgentConfig, patience: Patience | None = None, daemon: tuple[str, ...] = DAEMON) -> int:
    """Be the agent until it is told to stop or cannot go on; returns the exit status (`exits.Exit`).

    SIGTERM, SIGINT or SIGHUP: attempts are ended and an orderly good-bye is said, bounded; a second one: at once, and
    128 + its number is returned. Must be called in the main thread; its signal handlers are put back at the end.
    `daemon` is the command of the other process; tests put one of their own in its place.
    """
    log.start(config.log_level)
    try:
        check_config(config)
        state = StateDir(Path(config.state_dir))
        try:
            state.lock()
            return _Keeper(config, patience or Patience(), daemon).run()
        finally:
            state.close()
    except AgentStop as stop:
        logger.error("%s", stop)
        return stop.exit_code


class _Daemon:
    """One daemon that runs."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self.end = end
        self.began_s = boot_s()
        self.silent_s = 0.0
        self.pulsed = False
        self.sending = False
        self.mask = select.EPOLLIN


class _Watched:
    """The descriptors that a turn waits for, and what each of them calls."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, mask: int, call: Callable[[], None]) -> None:
        """Call `call` whenever one of `mask` is so; 0: no more."""
        if not mask:
            self._calls.pop(fd, None)
            with contextlib.suppress(OSError):  # closed before: then it is forgotten already
                self._poll.unregister(fd)
            return
        self._calls[fd] = call
        try:
            self._poll.register(fd, mask)
        except FileExistsError:
            self._poll.modify(fd, mask)

    def turn(self, wait_s: float) -> None:
        """Wait so long at most, then call what is ready."""
        for fd, _ in self._poll.poll(max(0.0, wait_s)):
            call = self._calls.get(fd)
            if call is not None:
                call()

    def close(self) -> None:
        self._poll.close()


class _Keeper:
    def __init__(self, config: AgentConfig, patience: Patience, daemon: tuple[str, ...]) -> None:
        self._command = daemon
        self._config = config
        self._patience = patience
        self._process_id = os.urandom(16).hex()
        self._resume_key = ""
        self._daemon: _Daemon | None = None
        self._daemons = 0
        self._failures = 0
        self._false_starts = 0
        self._start_at_s = 0.0
        self._kill_at_s: float | None = None
        self._end_at_s = math.inf
        """What is left to the daemon to be saved is ended then, saved or not."""
        self._send_until_s = math.inf
        """Results and last checkpoints that are on their way are waited for until then."""
        self._stop_signals: list[int] = []
        self._signals_obeyed = 0
        self._last_status: int | None = None
        """What to exit with as soon as no attempt is left: no daemon is started any more."""
        self._exit: int | None = None
        self._watched = _Watched()
        state_dir = Path(config.state_dir)
        state_dir = state_dir.resolve()
        journal = Journal(state_dir)
        work = work_of(config)
        self._places = Places(state_dir / "attempts", work, [held.place for held in journal.held.values()])
        cleanup.clear(state_dir, journal, self._places)
        self._home = CgroupHome.find(state_dir, cpu=config.cpu_limit)
        if self._home is not None and self._home.cap is not None and not caps_cpu(self._home):
            self._home.cap = None
        level = isolation_of(config, work)
        self._launcher = Launcher(config, level, self._home, work, _raise_limits())
        self._journal = journal
        self._guard = Guard()
        self._custody = Custody(
            self._launcher,
            journal,
            self._places,
            self._guard,
            self._watched.watch,
            offered(config, ()),  # who asks for GPUs never waits in line
            patience.kept_frozen_s,
        )
        self._endpoint = channel.endpoint_socket()

    def run(self) -> int:
        channel.adopt_orphans()
        collect_seldom()
        awake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = {
            signum: signal.signal(signum, self._on_stop_signal)
            for signum in _STOPPING
            if signal.getsignal(signum) is not signal.SIG_IGN  # nohup, or a shell's background job
        }
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_waker = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._watched.watch(awake, select.EPOLLIN, lambda: _empty(awake))
        try:
            while self._exit is None:
                self._turn()
            return self._exit
        finally:
            if self._daemon is not None:
                self._kill(self._daemon)
                os.waitpid(self._daemon.pid, 0)
                self._daemon.end.close()
            self._custody.close()
            if self._custody.alive():
                cleanup.kill_attempts(Path(self._config.state_dir))
            signal.set_wakeup_fd(old_waker)
            for signum, handler in before.items():
                signal.signal(signum, handler)
            self._guard.close()
            self._watched.close()
            self._endpoint.close()
            self._journal.close()
            self._places.close()
            if self._home is not None:
                self._home.close()
            os.close(awake)
            os.close(waker)

    def _on_stop_signal(self, signum: int, _frame: object) -> None:
        self._stop_signals.append(signum)

    def _turn(self) -> None:
        """Wait for something to happen, then look at everything once."""
        began_s = boot_s()
        self._watched.turn(self._sleep_s(began_s))
        self._custody.run_due()
        self._reap()
        self._custody.look(boot_s())
        self._custody.run_due()  # in the room of those that have ended
        self._obey_signals()
        self._watch(boot_s() - began_s)
        self._start_if_due()
        self._speak()
        self._places.sweep()
        if self._last_status is not None and self._exit is None and not self._custody.alive():
            self._exit = self._last_status

    def _sleep_s(self, now_s: float) -> float:
        ahead = [now_s + TURN_S, self._custody.due_s()]
        if self._kill_at_s is not None:
            ahead.append(self._kill_at_s)
        if self._daemon is None:
            ahead.append(self._start_at_s if self._last_status is None else now_s + TURN_S)
        return max(0.0, min(ahead) - now_s)

    # ---- the daemon

    def _start_if_due(self) -> None:
        if (
            self._daemon is not None
            or self._exit is not None
            or self._last_status is not None
            or boot_s() < self._start_at_s
        ):
            return
        ours, theirs = channel.socket_pair()
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OUR_FDS_FROM) for fd in (theirs, self._endpoint)]
        try:
            pid = os.posix_spawn(
                self._command[0],
                self._command,
                # what configures us is in the channel; secrets in our environment end here
                {k: v for k, v in os.environ.items() if not k.startswith("COORD_")},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, given[0], channel.DAEMON_FD),
                    (os.POSIX_SPAWN_DUP2, given[1], channel.ENDPOINT_FD),
                ],
                setpgroup=0,  # a terminal's Ctrl-C is the keeper's to pass on
                setsigmask=(),
                setsigdef=_STOPPING,
            )
        finally:
            theirs.close()
            for fd in given:
                os.close(fd)
        self._daemons += 1
        daemon = self._daemon = _Daemon(pid, ours)
        self._watched.watch(ours.fileno(), select.EPOLLIN, lambda: self._attend(daemon))
        channel.say(
            ours,
            channel.Start(
                config=self._config,
                patience=self._patience,
                process_id=self._process_id,
                daemon=self._daemons,
                resume_key=self._resume_key,
                promises=self._launcher.promises,
            ),
        )
        self._custody.meet()
        logger.debug("daemon %d started as process %d", self._daemons, pid)

    def _attend(self, daemon: _Daemon) -> None:
        """It has said something, or is gone, or has room again for what we say."""
        if daemon is self._daemon and not self._hear(daemon, HEARD_A_TURN):
            self._watched.watch(daemon.end.fileno(), 0, lambda: None)
            self._kill(daemon)

    def _hear(self, daemon: _Daemon, most: int) -> bool:
        """Take what the daemon said. False when it will say no more, or nothing that makes sense."""
        try:
            heard = 0
            while heard < most:
                messages = channel.hear_daemon(daemon.end)
                if messages is None:
                    return False
                heard += len(messages)
                for message in messages:
                    if isinstance(message, channel.Pulse):
                        daemon.silent_s = 0.0
                        daemon.pulsed = True
                        daemon.sending = message.sending
                        self._resume_key = message.resume_key
                    else:
                        self._custody.hear(message)
        except BlockingIOError:
            return True
        except msgspec.DecodeError:
            logger.error("the daemon says what the keeper does not understand")
            return False
        return True

    def _speak(self) -> None:
        """Make durable what was decided; tell the daemon, as far as it takes it now."""
        daemon = self._daemon
        if daemon is None:
            self._custody.flush(lambda _messages: 0, boot_s())
            return
        waits = self._custody.flush(lambda messages: channel.say_many(daemon.end, messages), boot_s())
        mask = select.EPOLLIN | select.EPOLLOUT if waits else select.EPOLLIN
        if mask != daemon.mask:
            daemon.mask = mask
            self._watched.watch(daemon.end.fileno(), mask, lambda: self._attend(daemon))

    def _reap(self) -> None:
        """Collect every child that ended: the daemon, programs of attempts, and adopted orphans alike."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._daemon is not None and pid == self._daemon.pid:
                self._on_daemon_end(self._daemon, os.waitstatus_to_exitcode(status))
            else:
                self._custody.on_child(pid, status, usage)
                self._places.on_child(pid)

    def _on_daemon_end(self, daemon: _Daemon, code: int) -> None:
        self._hear(daemon, sys.maxsize)
        self._watched.watch(daemon.end.fileno(), 0, lambda: None)
        daemon.end.close()
        self._daemon = None
        if self._stop_signals:
            self._end_now()
            self._last_status = Exit.STOPPED
        elif code in FINAL:
            self._last_status = code
            self._custody.end_all("the agent ends", self._patience.end_s, refuse=True)
        else:
            self._plan_restart(daemon, code)

    def _plan_restart(self, daemon: _Daemon, code: int) -> None:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._false_starts = 0 if daemon.pulsed else self._false_starts + 1
        if self._false_starts >= self._patience.start_failures_max:
            logger.error("the daemon ended %d times before it was up (%s); giving up", self._false_starts, how)
            self._last_status = Exit.FAULT
            self._custody.end_all("the agent cannot start its daemon", self._patience.end_s, refuse=True)
            return
        if boot_s() - daemon.began_s >= self._patience.restart_steady_s:
            self._failures = 0
        ceilings = self._patience.restart_ceilings_s
        wait_s = ceilings[min(self._failures, len(ceilings) - 1)] * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        self._failures += 1
        self._start_at_s = boot_s() + wait_s
        logger.warning("the daemon ended (%s); the next one starts in %.1f s", how, wait_s)

    def _watch(self, turn_s: float) -> None:
        """Replace a daemon whose loop does not turn, counting only time in which the keeper itself ran."""
        daemon = self._daemon
        if daemon is None:
            return
        if self._stop_signals:
            if boot_s() >= self._end_at_s:
                self._end_now()
            if self._custody.alive():
                return
            if self._kill_at_s is None:
                self._send_until_s = boot_s() + self._patience.send_s
            if self._kill_at_s is None or (daemon.sending and boot_s() < self._send_until_s):
                self._kill_at_s = boot_s() + self._patience.report_s + self._patience.leave_s
            if boot_s() >= self._kill_at_s:
                logger.warning("no good-bye within %.0f s; the daemon is killed", self._patience.leave_s)
                self._kill_at_s = math.inf
                self._kill(daemon)
            return
        daemon.silent_s += min(turn_s, 2 * TURN_S)
        if daemon.silent_s >= (self._patience.stuck_s if daemon.pulsed else self._patience.start_s):
            logger.warning("the daemon gave no sign of life for %.0f s; it is replaced", daemon.silent_s)
            daemon.silent_s = 0.0
            self._kill(daemon)

    @staticmethod
    def _kill(daemon: _Daemon) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, signal.SIGKILL)

    # ---- being told to stop

    def _obey_signals(self) -> None:
        fresh = len(self._stop_signals) - self._signals_obeyed
        if not fresh or self._exit is not None:
            return
        self._signals_obeyed = len(self._stop_signals)
        if self._signals_obeyed > 1:
            self._exit = 128 + self._stop_signals[1]
            return
        logger.info("%s: saying good-bye", signal.Signals(self._stop_signals[0]).name)
        saving_s = self._end_now(saved_first=self._daemon is not None)
        if self._daemon is None:
            self._last_status = Exit.STOPPED
        else:
            if saving_s:
                self._end_at_s = boot_s() + saving_s
            self._custody.leave()

    def _end_now(self, saved_first: bool = False) -> float:
        self._end_at_s = math.inf
        why = "the agent was told to stop"
        return self._custody.end_all(why, self._patience.end_s, refuse=True, saved_first=saved_first)


def _raise_limits() -> tuple[int, int]:
    """Four descriptors an attempt are more than a shell gives. Returns what programs are given: what we had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return soft, hard


def _empty(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(pipe, 512):
            pass
