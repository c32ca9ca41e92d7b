"""The keeper: the agent's first process, which owns processes and deadlines and never touches the network.

It starts the daemon, watches that its loop turns, and starts the next one when it dies; to the coordinator that is
the same agent process, because `process_id` and the last resume key are the keeper's. Descendants that lose their
parent become its children (subreaper) and are reaped. Everything is decided in one thread, on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import signal
import socket
import sys
from pathlib import Path

import msgspec

from coordinator.agent import channel, log
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig, Patience, check_config
from coordinator.agent.exits import FINAL, AgentStop, Exit
from coordinator.agent.log import logger
from coordinator.agent.state_dir import StateDir

TURN_S = 1.0
"""The longest the keeper sleeps. A turn that took longer was a stall of its own, and is nobody's silence."""
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(config: AgentConfig, patience: Patience | None = None) -> int:
    """Be the agent until it is told to stop or cannot go on; returns the exit status (`exits.Exit`).

    SIGTERM, SIGINT or SIGHUP: an orderly good-bye, bounded; a second one: at once, and 128 + its number is returned.
    Must be called in the main thread; its signal handlers are put back at the end.
    """
    log.start(config.log_level)
    try:
        check_config(config)
        state = StateDir(Path(config.state_dir))
        try:
            state.lock()
            return _Keeper(config, patience or Patience()).run()
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


class _Keeper:
    def __init__(self, config: AgentConfig, patience: Patience) -> None:
        self._config = config
        self._patience = patience
        self._process_id = os.urandom(16).hex()
        self._resume_key = ""
        self._endpoint = channel.endpoint_socket()
        self._daemon: _Daemon | None = None
        self._daemons = 0
        self._failures = 0
        self._false_starts = 0
        self._start_at_s = 0.0
        self._kill_at_s: float | None = None
        self._stop_signals: list[int] = []
        self._exit: int | None = None

    def run(self) -> int:
        channel.adopt_orphans()
        awake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = {
            signum: signal.signal(signum, self._on_stop_signal)
            for signum in _STOPPING
            if signal.getsignal(signum) is not signal.SIG_IGN  # nohup, or a shell's background job
        }
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_waker = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        try:
            while self._exit is None:
                self._turn(awake)
            return self._exit
        finally:
            if self._daemon is not None:
                self._kill(self._daemon)
                os.waitpid(self._daemon.pid, 0)
                self._daemon.end.close()
            signal.set_wakeup_fd(old_waker)
            for signum, handler in before.items():
                signal.signal(signum, handler)
            os.close(awake)
            os.close(waker)

    def _on_stop_signal(self, signum: int, _frame: object) -> None:
        self._stop_signals.append(signum)

    def _turn(self, awake: int) -> None:
        """Wait for something to happen, then look at everything once."""
        poller = select.poll()
        poller.register(awake, select.POLLIN)
        if self._daemon is not None:
            poller.register(self._daemon.end, select.POLLIN)
        began_s = boot_s()
        poller.poll(self._sleep_s(began_s) * 1000)
        with contextlib.suppress(BlockingIOError):
            while os.read(awake, 512):
                pass
        self._reap()
        if self._daemon is not None and not self._hear(self._daemon):
            self._kill(self._daemon)
        self._obey_signals()
        self._watch(boot_s() - began_s)
        self._start_if_due()

    def _sleep_s(self, now_s: float) -> float:
        ahead = [now_s + TURN_S]
        if self._kill_at_s is not None:
            ahead.append(self._kill_at_s)
        if self._daemon is None:
            ahead.append(self._start_at_s)
        return max(0.0, min(ahead) - now_s)

    # ---- the daemon

    def _start_if_due(self) -> None:
        if self._daemon is not None or self._exit is not None or boot_s() < self._start_at_s:
            return
        ours, theirs = channel.socket_pair()
        with theirs:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "coordinator.agent.daemon"],
                # what configures us is in the channel; secrets in our environment end here
                {k: v for k, v in os.environ.items() if not k.startswith("COORD_")},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), channel.DAEMON_FD),
                    (os.POSIX_SPAWN_DUP2, self._endpoint.fileno(), channel.ENDPOINT_FD),
                ],
                setpgroup=0,  # a terminal's Ctrl-C is the keeper's to pass on
                setsigmask=(),
                setsigdef=_STOPPING,
            )
        self._daemons += 1
        self._daemon = _Daemon(pid, ours)
        channel.say(
            ours,
            channel.Start(
                config=self._config,
                patience=self._patience,
                process_id=self._process_id,
                daemon=self._daemons,
                resume_key=self._resume_key,
            ),
        )
        channel.say(ours, channel.Told())
        logger.debug("daemon %d started as process %d", self._daemons, pid)

    def _hear(self, daemon: _Daemon) -> bool:
        """Take what the daemon said. False when it will say no more, or nothing that makes sense."""
        try:
            while (message := channel.hear_daemon(daemon.end)) is not None:
                daemon.silent_s = 0.0
                daemon.pulsed = True
                if isinstance(message, channel.Pulse):
                    self._resume_key = message.resume_key
        except BlockingIOError:
            return True
        except msgspec.DecodeError:
            logger.error("the daemon says what the keeper does not understand")
        return False

    def _reap(self) -> None:
        """Collect every child that ended, the daemon and adopted orphans alike."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._daemon is not None and pid == self._daemon.pid:
                self._on_daemon_end(self._daemon, os.waitstatus_to_exitcode(status))

    def _on_daemon_end(self, daemon: _Daemon, code: int) -> None:
        self._hear(daemon)
        daemon.end.close()
        self._daemon = None
        if self._stop_signals:
            self._exit = Exit.STOPPED
        elif code in FINAL:
            self._exit = code
        else:
            self._plan_restart(daemon, code)

    def _plan_restart(self, daemon: _Daemon, code: int) -> None:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._false_starts = 0 if daemon.pulsed else self._false_starts + 1
        if self._false_starts >= self._patience.start_failures_max:
            logger.error("the daemon ended %d times before it was up (%s); giving up", self._false_starts, how)
            self._exit = Exit.FAULT
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
        if self._kill_at_s is not None:
            if boot_s() >= self._kill_at_s:
                logger.warning("no good-bye within %.0f s; the daemon is killed", self._patience.leave_s)
                self._kill_at_s = math.inf
                self._kill(daemon)
            return
        daemon.silent_s += min(turn_s, 2 * TURN_S)
        if daemon.silent_s >= self._patience.stuck_s:
            logger.warning("the daemon gave no sign of life for %.0f s; it is replaced", daemon.silent_s)
            daemon.silent_s = 0.0
            self._kill(daemon)

    @staticmethod
    def _kill(daemon: _Daemon) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, signal.SIGKILL)

    # ---- being told to stop

    def _obey_signals(self) -> None:
        if not self._stop_signals or self._exit is not None:
            return
        if len(self._stop_signals) > 1:
            self._exit = 128 + self._stop_signals[1]
        elif self._daemon is None:
            self._exit = Exit.STOPPED
        elif self._kill_at_s is None:
            logger.info("%s: saying good-bye", signal.Signals(self._stop_signals[0]).name)
            self._kill_at_s = boot_s() + self._patience.leave_s
            channel.say(self._daemon.end, channel.Leave())
