"""Server-sent events, read as they come: a connection that breaks is made again where it broke off.

Nothing is told twice and nothing is missed: each event's id says from where the coordinator goes on.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import IO, NamedTuple

from coordinator.client.requests import Query, Requests, with_query
from coordinator.core.errors import Code, CoordError

MEDIA = "text/event-stream"
SILENCE_S = 45.0
"""The coordinator says something at least every 15 s: after this long nobody is there any more."""
PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Before each further try in a row; then the last one again and again."""
PATIENCE_S = 120.0
"""How long a coordinator may be away before that is an error."""
_AGAIN = frozenset({Code.UNREACHABLE, Code.TIMEOUT, Code.SHUTTING_DOWN, Code.STORE_FULL, Code.TOO_MANY})
"""Refusals that pass."""


class ServerEvent(NamedTuple):
    """One event. `name` is empty for the ordinary ones."""

    name: str
    data: str
    id: str


def follow(requests: Requests, path: str, query: Query, last_id: str | None = None) -> Iterator[ServerEvent]:
    """Every event of this stream up to its `end`; never, where it has none. `last_id`: only what follows that one.

    CoordError: what the coordinator refuses, and UNREACHABLE when it is away for longer than PATIENCE_S.
    """
    target = with_query(path, query)
    failed = 0
    since_s = time.monotonic()
    while True:
        extra = {"Last-Event-ID": last_id} if last_id is not None else {}
        try:
            with requests.transport.reading(target, MEDIA, SILENCE_S, extra) as response:
                for event in events_of(response):
                    failed, since_s = 0, time.monotonic()
                    last_id = event.id or last_id
                    if event.name == "end":
                        return
                    if event.name != "here":
                        yield event
            lost: Exception | None = None
        except (OSError, http.client.HTTPException) as error:
            lost = error
        except CoordError as error:
            if error.code not in _AGAIN:
                raise
            lost = error
        away_s = time.monotonic() - since_s
        if away_s > PATIENCE_S:
            raise CoordError(
                Code.UNREACHABLE,
                f"the stream from {requests.transport.url} broke off {away_s:.0f} s ago: {lost}",
                "the coordinator is away, or the network to it",
            ) from lost
        time.sleep(PAUSES_S[min(failed, len(PAUSES_S) - 1)])
        failed += 1


def events_of(response: IO[bytes] | http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """The whole events of an answer; one that was cut off in the middle is none."""
    name, last_id = "", ""
    data: list[str] = []
    while line := response.readline():
        if not line.endswith(b"\n"):
            return
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield ServerEvent(name, "\n".join(data), last_id)
            name, data = "", []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
