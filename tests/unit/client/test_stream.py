"""Event streams as the client reads them: broken off, taken up again, refused, and anything at all."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api_types.happenings import LogEvent
from coordinator.client import Client, stream
from coordinator.client.jobs import bytes_of
from coordinator.client.stream import ServerEvent, events_of
from coordinator.core.errors import Code, CoordError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
BUSY = (
    b"HTTP/1.1 503 X\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
    b'{"type":"x","title":"x","status":503,"detail":"stopping","code":"shutting_down"}'
)
REVOKED = BUSY.replace(b"503", b"401").replace(b"shutting_down", b"unauthenticated")


def piece(number: int, text: str) -> bytes:
    event = LogEvent(attempt="1.0.0.1", rank=0, stream="stdout", offset=0, at="x", data=text)
    return b"id: i%d\ndata: %b\n\n" % (number, msgspec.json.encode(event))


@contextmanager
def a_server(*answers: bytes) -> Iterator[tuple[str, list[str | None]]]:
    """One that gives these answers, one a connection, and tells the Last-Event-ID of each request."""
    asked: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                peer, _ = server.accept()
                with peer, peer.makefile("rb") as reader:
                    found = None
                    while (line := reader.readline().strip()) != b"":
                        name, _, value = line.partition(b": ")
                        if name == b"Last-Event-ID":
                            found = value.decode()
                    asked.append(found)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join(5.0)


def test_a_broken_stream_goes_on_behind_its_last_whole_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut between events, in an event, before the first one, refused for a while: each event once, then the end."""
    monkeypatch.setattr(stream, "PAUSES_S", (0.0,))
    answers = (
        HEAD + piece(1, "a") + b": here\n\n" + piece(2, "b") + piece(3, "never")[:-2],
        HEAD,
        BUSY,
        HEAD + piece(3, "c") + b"id: i3\nevent: end\ndata: {}\n\n" + piece(4, "behind the end"),
    )
    with a_server(*answers) as (url, asked), Client(url, "t") as client:
        assert ["a", "b", "c"] == [event.data for event in client.jobs.follow(1)]
    assert [None, "i2", "i2", "i2"] == asked


def test_a_refusal_that_does_not_pass_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked token is told at once; a coordinator that stays away is told after a while."""
    monkeypatch.setattr(stream, "PAUSES_S", (0.0,))
    with a_server(HEAD + piece(1, "a"), REVOKED) as (url, _), Client(url, "t") as client:
        events = client.jobs.follow(1)
        assert "a" == next(events).data
        with pytest.raises(CoordError) as caught:
            next(events)
        assert Code.UNAUTHENTICATED is caught.value.code
    monkeypatch.setattr(stream, "PATIENCE_S", 0.05)
    with Client(url, "t") as client, pytest.raises(CoordError) as caught:
        list(client.jobs.follow(1))
    assert Code.UNREACHABLE is caught.value.code


def test_waiting_outlives_a_coordinator_that_is_away_and_tells_what_stays() -> None:
    """Asked again after it stopped; another refusal is passed on."""
    job = (
        b'{"job_id":1,"tenant":"x","name":"x","state":"%b","reason":"","submitted_at":"x","started_at":null,'
        b'"ended_at":null,"submitted_by":"x","cancelling":"","retries":0,"counts":{"tasks":1,"waiting":0,"running":1,'
        b'"completed":0,"failed":0,"cancelled":0}}'
    )
    ok = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    with a_server(ok + job % b"running", BUSY, ok + job % b"failed") as (url, _), Client(url, "t") as client:
        assert "failed" == client.jobs.wait(1).state
    with a_server(REVOKED) as (url, _), Client(url, "t") as client, pytest.raises(CoordError) as caught:
        client.jobs.wait(1)
    assert Code.UNAUTHENTICATED is caught.value.code


def test_bytes_that_are_no_text_arrive_as_they_were() -> None:
    """By their encoding."""
    event = LogEvent(attempt="1.0.0.1", rank=0, stream="stdout", offset=0, at="x", data="//4=", encoding="base64")
    assert b"\xff\xfe" == bytes_of(event)


@given(st.lists(st.tuples(st.text(min_size=1).filter(lambda x: x.splitlines() == [x]), st.integers(0, 99))), st.data())
def test_events_are_read_whole_wherever_the_stream_is_cut(parts: list[tuple[str, int]], data: st.DataObject) -> None:
    """A prefix of the bytes is a prefix of the events."""
    raw = b"".join(b"id: %d\ndata: %b\n\n" % (number, text.encode()) for text, number in parts)
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    found = list(events_of(io.BytesIO(raw)))
    assert [ServerEvent("", text, str(number)) for text, number in parts][: len(found)] == found
    assert len(found) == raw.count(b"\n\n")


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_for_a_reader_of_events(raw: bytes) -> None:
    """Events or none, and nothing else."""
    assert all(isinstance(event, ServerEvent) for event in events_of(io.BytesIO(raw)))
