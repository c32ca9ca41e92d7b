"""How `coord serve` ends: by a signal, or by something that failed, with the exit status that says which."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from cli import exits, terminal
from coordinator.core.errors import Code, CoordError
from coordinator.service.engine import Engine

log = logging.getLogger("coord.serve")


def stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; SIGHUP counts as one.

    The second ends the process at once."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set():
            log.warning("%s again: ending at once", number.name)
            os._exit(128 + number)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    return asked


def record_on_signal(engine: Engine) -> None:
    """On SIGUSR2 the recent events are written into the data directory, to be replayed: coord simulate --replay."""

    def on_signal() -> None:
        path = engine.dump_recording("asked for by SIGUSR2")
        log.info("recorded: %s", path if path is not None else "nothing has happened yet")

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, on_signal)


def reason(group: BaseExceptionGroup[BaseException]) -> int:
    """Say why serving ended, and return the exit status: a broken store before everything else."""
    causes = list(_leaves(group))
    refusals = [cause for cause in causes if isinstance(cause, CoordError)]
    for refused in sorted(refusals, key=lambda one: one.code is not Code.STORE_BROKEN):
        terminal.complain(refused.message, refused.hint)
        return exits.of(refused.code)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        terminal.complain("the coordinator did not stop in time", "what was acknowledged is safe; see the log")
        return exits.of(Code.TIMEOUT)
    for cause in causes:
        log.error("the coordinator failed", exc_info=cause)
    return exits.of(Code.INTERNAL)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def is_final(group: BaseExceptionGroup[BaseException]) -> bool:
    """Whether the disk must not be touched, or waited for, any more."""
    return any(
        isinstance(cause, TimeoutError) or (isinstance(cause, CoordError) and cause.code is Code.STORE_BROKEN)
        for cause in _leaves(group)
    )


def is_fault(group: BaseExceptionGroup[BaseException]) -> bool:
    """Whether something broke that nobody foresaw: no refusal is among the causes."""
    return not any(isinstance(cause, CoordError) for cause in _leaves(group))


def at_once(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Say why and end, without closing anything: threads that hang on a dead disk would keep us for ever."""
    code = reason(group)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
