"""The throttle of a real coordinator, over HTTP: shares of the link, the spill area, the breaker, the quota."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from blake3 import blake3

from tests.acceptance.cli_runs import Coord
from tests.acceptance.processes import GUARD_S, Head, wait_for

MB = 1_000_000
RATE = 16 * MB
"""Of the link, in each direction."""
SPILL = 24 * MB
DEMAND = {"greedy": 10, "modest": 1}
"""How many transfers of each tenant are under way at a time."""
THROTTLE = {
    "ingress_bytes_per_s": RATE,
    "egress_bytes_per_s": RATE,
    "spill_bytes_max": SPILL,
    "saturated_s": "500ms",
    "pause_s": "1s",
}
INGRESS = 10 * MB
"""What the tenant `metered` may bring in a month."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Tenant:
    """Talks to the coordinator with one tenant's token."""

    def __init__(self, head: Head, token: str) -> None:
        self._host = head.url.removeprefix("http://")
        self._token = token

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(self._host, timeout=GUARD_S)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"} | (headers or {}))
            got = connection.getresponse()
            return Answer(got.status, {name.title(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def reads(self, path: str) -> Iterator[int]:
        """Fetch what is there: the sizes of its pieces, as they come."""
        connection = http.client.HTTPConnection(self._host, timeout=GUARD_S)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            got = connection.getresponse()
            assert 200 == got.status, got.read()
            while piece := got.read(65_536):
                yield len(piece)
        finally:
            connection.close()

    def open(self, data: bytes) -> Answer:
        wanted = json.dumps({"digest": blake3(data).hexdigest(), "size": len(data)}).encode()
        return self.ask("POST", "/v1/uploads", wanted, {"Content-Type": "application/json"})

    def put(self, url: str, data: bytes, first: int = 0) -> Answer:
        said = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
        return self.ask("PUT", url, data[first:], said)

    def store(self, data: bytes) -> Answer:
        return self.put(self.open(data).json()["url"], data)


class Place(NamedTuple):
    head: Head
    admin: Tenant
    tenants: dict[str, Tenant]

    def transfers(self) -> Any:
        return self.admin.ask("GET", "/v1/transfers").json()

    def alerts(self) -> list[str]:
        """Kinds of those that stand."""
        return [one["kind"] for one in self.admin.ask("GET", "/v1/alerts").json()["entries"] if not one["resolved_at"]]

    def shares(self, seconds: float, move: Callable[[Tenant, threading.Event, list[int]], None]) -> dict[str, int]:
        """Bytes that each tenant moved while as many as its DEMAND moved some for so long, all at once."""
        over = threading.Event()
        moved: dict[str, list[int]] = {name: [] for name in DEMAND}
        failed: list[str] = []

        def run(name: str) -> None:
            try:
                move(self.tenants[name], over, moved[name])
            except Exception as error:
                failed.append(f"{name}: {error!r}")

        threads = [threading.Thread(target=run, args=(name,)) for name, count in DEMAND.items() for _ in range(count)]
        for thread in threads:
            thread.start()
        over.wait(0.5)  # the first burst, and all of them being on their way
        before = {name: sum(sizes) for name, sizes in moved.items()}
        began_s = time.monotonic()
        over.wait(seconds)
        within = {name: sum(sizes) - before[name] for name, sizes in moved.items()}
        took_s = time.monotonic() - began_s
        over.set()
        for thread in threads:
            thread.join()
        assert not failed, failed
        print(f"{within} bytes in {took_s:.2f} s: {sum(within.values()) / took_s / RATE:.0%} of the link")
        assert sum(within.values()) >= 0.7 * RATE * took_s
        assert sum(within.values()) <= 1.2 * RATE * took_s + MB
        return within


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("throttle")
    settings = [part for name, value in THROTTLE.items() for part in ("--set", f"throttle.{name}={value}")]
    with Head(directory, *settings) as head, head.start() as client:
        for name in (*DEMAND, "metered"):
            client.tenants.create(name, quota={"ingress": INGRESS} if name == "metered" else None)
        tenants = {
            name: Tenant(head, client.create_token(role="tenant", tenant=name).token) for name in (*DEMAND, "metered")
        }
        yield Place(head, Tenant(head, head.token("admin")), tenants)


def fair(moved: dict[str, int]) -> bool:
    """Each within a tenth of its half."""
    half = sum(moved.values()) / 2
    return all(abs(size - half) <= 0.1 * half for size in moved.values())


def test_ten_downloads_and_one_share_the_link_evenly(place: Place) -> None:
    """Two tenants of one weight: ten times the demand gets no more, and the link is used."""
    data = os.urandom(4 * MB)
    digest = blake3(data).hexdigest()
    for name in DEMAND:
        assert 201 == place.tenants[name].store(data).status

    def fetch(tenant: Tenant, over: threading.Event, moved: list[int]) -> None:
        while not over.is_set():
            moved.extend(tenant.reads(f"/v1/artifacts/{digest}/content"))

    assert fair(place.shares(3.0, fetch))


def test_ten_uploads_and_one_share_the_link_evenly(place: Place) -> None:
    """What counts is what was published: bytes are paid for before that."""

    def send(tenant: Tenant, over: threading.Event, moved: list[int]) -> None:
        while not over.is_set():
            data = os.urandom(MB)
            answer = tenant.store(data)
            assert 201 == answer.status, answer
            moved.append(len(data))

    assert fair(place.shares(3.0, send))


def test_beyond_the_rate_it_spills_then_refuses_then_opens_and_closes_the_breaker(place: Place, tmp_path: Path) -> None:
    """A burst is taken and drains. Two tenants that go on in spite of 429 open the breaker: an alert stands, nobody is
    let in, `coord transfers` says so. After the pause one transfer shows that it is over."""
    flood = {name: os.urandom(64 * MB) for name in DEMAND}
    urls = {name: place.tenants[name].open(data).json()["url"] for name, data in flood.items()}
    probe, last = place.tenants["metered"], b"to see" * 1_000
    url = probe.open(last).json()["url"]
    at = dict.fromkeys(DEMAND, 0)
    refused: set[str] = set()

    def push(name: str) -> int:
        """One megabyte more. -> the status"""
        first, size = at[name], len(flood[name])
        piece = flood[name][first : first + MB]
        said = {"Content-Range": f"bytes {first}-{first + len(piece) - 1}/{size}"}
        answer = place.tenants[name].ask("PUT", urls[name], piece, said)
        at[name] = int(answer.headers["Upload-Offset"])
        if answer.status == 429:
            assert int(answer.headers["Retry-After"]) >= 1
            refused.add(answer.json()["code"])
        return answer.status

    while push("greedy") == 202:
        pass
    assert at["greedy"] >= SPILL // 2, "the burst and its half of the spill area"
    assert place.transfers()["spilled_bytes"] > 0
    assert place.transfers()["state"] == "closed", "one tenant does not shut others out"

    def opened() -> bool:
        return {push(name) for name in DEMAND} == {429} and place.transfers()["state"] == "open"

    wait_for(opened, "the breaker being open")
    assert refused == {"too_fast"}
    shut = probe.put(url, last)
    assert (429, "too_fast") == (shut.status, shut.json()["code"])
    assert int(shut.headers["Retry-After"]) >= 1
    assert "staging_saturated" in wait_for(place.alerts, "the alert")
    shown = Coord(place.head.data)("transfers")
    assert (shown.code, "bytes wait in the spill area" in shown.out + shown.err) == (0, True), shown
    wait_for(lambda: probe.put(url, last).status == 201, "one that is let in to see")
    wait_for(lambda: place.transfers()["state"] == "closed", "the breaker being closed")
    wait_for(lambda: "staging_saturated" not in place.alerts(), "the end of the alert")
    wait_for(lambda: place.transfers()["spilled_bytes"] == 0, "the spill area being empty")
    assert place.transfers()["opened"] >= 1
    for name in DEMAND:
        assert push(name) == 202, "what arrived was kept, and goes on"


def test_no_tenant_passes_its_quota_however_fast_the_link_is(place: Place) -> None:
    """At nine tenths of what it may bring in a month an upload is refused, with the dimension."""
    metered = place.tenants["metered"]
    statuses: list[int] = []
    for _ in range(4):
        opened = metered.open(data := os.urandom(3 * MB))
        statuses.append(opened.status if opened.status != 201 else metered.put(opened.json()["url"], data).status)
    assert [201, 201, 403, 403] == statuses
    refusals = opened.json()["refusals"]
    assert ["ingress"] == [one["dimension"] for one in refusals]
