"""The daemon's end of the channel: nothing that it says to the keeper is lost while the keeper is busy or stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from coordinator.agent import channel

HEARD_AT_ONCE = 256
"""Messages taken in one turn of the loop: a thousand attempts that all speak leave room for a heartbeat."""


class KeeperLine:
    """Messages to the keeper, in their order; those that do not fit wait here.

    What waits is bounded by the number of attempts: a later truth of the same kind replaces the one before.
    """

    def __init__(self, end: socket.socket, hear: Callable[[channel.ToDaemon], None], gone: Callable[[], None]) -> None:
        self._end = end
        self._hear = hear
        self._gone = gone
        self._waiting: dict[object, channel.ToKeeper] = {}
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Hear from now on."""
        self._loop.add_reader(self._end, self._on_readable)

    def close(self) -> None:
        self._loop.remove_reader(self._end)
        self._loop.remove_writer(self._end)

    def send(self, message: channel.ToKeeper) -> None:
        """Say it, now or as soon as there is room."""
        if not self._waiting:
            if channel.say(self._end, message):
                return
            self._loop.add_writer(self._end, self._on_writable)
        self._waiting[_subject(message)] = message

    def _on_writable(self) -> None:
        while self._waiting:
            subject = next(iter(self._waiting))
            if not channel.say(self._end, self._waiting[subject]):
                return
            del self._waiting[subject]
        self._loop.remove_writer(self._end)

    def _on_readable(self) -> None:
        try:
            heard = 0
            while heard < HEARD_AT_ONCE:
                messages = channel.hear_keeper(self._end)
                if messages is None:
                    self._gone()
                    return
                heard += len(messages)
                for message in messages:
                    self._hear(message)
        except BlockingIOError:
            return


def _subject(message: channel.ToKeeper) -> object:
    """Two messages of one subject: the later one is enough."""
    match message:
        case channel.Pulse():
            return "pulse"
        case channel.Deadline():
            return "deadline", message.attempt
        case channel.LogStored():
            return "log_stored", message.attempt, message.rank
        case _:
            return object()
