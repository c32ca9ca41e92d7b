"""Sweeps: what nobody holds goes after its grace time; nobody who has just been told that it is there is deceived."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.data import blobs
from coordinator.core.data import events as data
from coordinator.core.data.answers import Swept, UploadOpened
from coordinator.core.errors import Code
from coordinator.core.ids import Ms, TenantName
from coordinator.core.image import image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.tenants.months import begins_ms, month_of
from tests.builders import START_MS, refusal
from tests.depot import Depot, digest_of, outcome

DAY_S = 24 * 3_600


def gone(depot: Depot, *rows: Any) -> int:
    found = outcome(depot.sweep_end(rows))
    assert isinstance(found, Swept)
    return len(found.gone)


def test_what_is_found_during_a_sweep_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when so much was written since that nobody remembers its row."""
    monkeypatch.setattr(blobs, "RECENT_MAX", 1)
    depot = Depot()
    row = depot.store("x")
    depot.at(DAY_S + 1)
    depot.sweep_begin()
    candidates = depot.unheld()
    assert candidates == (row,)
    assert outcome(depot.open("x")) == UploadOpened(present=replace(row, touched_ms=depot.now_ms))
    depot.store("y")
    assert gone(depot, *candidates) == 0


def test_grace_counts_from_when_it_was_last_found() -> None:
    """And is asked for here too, whatever the store said."""
    depot = Depot()
    row = depot.store("x")
    depot.at(DAY_S - 60)
    outcome(depot.touch(row))
    depot.at(DAY_S + 60)
    depot.sweep_begin()
    assert depot.unheld() == () and gone(depot, row) == 0
    depot.at(2 * DAY_S)
    assert depot.sweep() == [digest_of("x")]


def test_who_was_told_before_two_sweeps_refers_to_nothing_that_is_gone() -> None:
    """A row from an older look is no proof; the bytes have to come again, and count again."""
    depot = Depot()
    old = depot.store("x")
    depot.at(2 * DAY_S)
    assert depot.sweep() == [old.digest]
    assert depot.sweep() == []
    assert refusal(depot.touch(old)).code is Code.INCOMPLETE
    found = outcome(depot.open("x", known=old))
    assert isinstance(found, UploadOpened) and found.upload is not None
    outcome(depot.done(found.upload, "x", known=old))
    assert depot.account().storage == 100
    outcome(depot.touch(old))


def test_a_sweep_takes_no_more_than_it_may_and_the_next_one_goes_on() -> None:
    depot = Depot(policy=Policy(sweep_max=2))
    for text in "abc":
        depot.store(text)
    depot.at(2 * DAY_S)
    assert [len(depot.sweep()) for _ in range(3)] == [2, 1, 0]
    assert depot.account().storage == 0


def test_a_sweep_that_was_not_begun_or_is_over_takes_nothing() -> None:
    depot = Depot()
    row = depot.store("x")
    depot.at(2 * DAY_S)
    assert refusal(depot.sweep_end((row,))).code is Code.CONFLICT
    depot.sweep_begin()
    depot.restart(2 * DAY_S + 1)
    assert refusal(depot.sweep_end((row,))).code is Code.CONFLICT
    assert depot.sweep() == [row.digest]
    assert refusal(depot.sweep_end((row,))).code is Code.CONFLICT


def test_a_sweep_that_a_full_disk_undid_has_removed_nothing() -> None:
    """What it took is there, and is known to be."""
    depot = Depot()
    row = depot.store("x")
    depot.at(2 * DAY_S)
    depot.durable, mark = False, len(depot.decisions)
    depot.sweep_begin()
    assert gone(depot, row) == 1
    depot.durable = True
    depot.write(depot.disk_was_full(*depot.decisions[mark:]))
    assert outcome(depot.open("x")) == UploadOpened(present=replace(row, touched_ms=depot.now_ms))
    assert depot.account().storage == 100


def test_one_that_saw_too_much_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is bounded: the next sweep does it."""
    monkeypatch.setattr(blobs, "REFERRED_MAX", 1)
    depot = Depot()
    rows = [depot.store(text) for text in "abc"]
    depot.at(2 * DAY_S)
    depot.sweep_begin()
    outcome(depot.touch(*rows[:2]))
    assert gone(depot, *rows) == 0
    assert depot.sweep() == [rows[2].digest]


def test_what_a_deleted_tenant_left_is_counted_until_it_is_gone() -> None:
    """Its account stays, over the turn of a month too."""
    depot = Depot()
    name = TenantName("gone")
    make = events.TenantSet(at_ms=depot.now_ms, request_id=depot.request(), name=name, create=True)
    outcome(depot.decide(make))
    depot.store("x", tenant=name)
    delete = events.TenantDelete(at_ms=depot.now_ms, request_id=depot.request(), name=name)
    outcome(depot.decide(delete))
    turn_ms: Ms = begins_ms(month_of(START_MS) + 1)
    depot.now_ms = turn_ms + 1_000
    depot.tick()
    assert depot.account(name).storage == 100
    assert depot.sweep() == [digest_of("x")]
    depot.now_ms = begins_ms(month_of(START_MS) + 2) + 1_000
    depot.tick()
    assert ("account", name) not in depot.rows


def test_an_image_sweeps_on() -> None:
    depot = Depot()
    row = depot.store("x")
    depot.store("y")
    depot.at(2 * DAY_S)
    assert depot.sweep()
    depot.store("z")
    depot.sweep_begin()
    depot.open("z")
    assert image_of(state_of(image_of(depot.state))) == image_of(depot.state)
    depot.state = state_of(image_of(depot.state))
    assert gone(depot, row) == 0, "it was removed by the sweep before"
    told = data.BlobsTouch(at_ms=depot.now_ms, request_id=depot.request(), known=(row,))
    assert refusal(depot.decide(told)).code is Code.INCOMPLETE
