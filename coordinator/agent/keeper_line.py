"""The daemon's end of the channel: nothing that it says to the keeper is lost while the keeper is busy or stopped."""

from __future__ import annotations

import asyncio
import itertools
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
        self._say_waiting()

    def send(self, message: channel.ToKeeper) -> None:
        """Say it at the end of this turn of the loop, with all else of that turn, or as soon as there is room."""
        if not self._waiting:
            self._loop.call_soon(self._speak)
        self._waiting[_subject(message)] = message

    def _speak(self) -> None:
        if not self._say_waiting():
            self._loop.add_writer(self._end, self._on_writable)

    def _on_writable(self) -> None:
        if self._say_waiting():
            self._loop.remove_writer(self._end)

    def _say_waiting(self) -> bool:
        """Whether all of it was said."""
        said = channel.say_many(self._end, list(self._waiting.values()))
        for subject in list(itertools.islice(self._waiting, said)):
            del self._waiting[subject]
        return not self._waiting

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
