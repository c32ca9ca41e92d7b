"""Uploads and blobs: opened once, counted once, burnt by publication."""

from __future__ import annotations

from coordinator.core.data.answers import UploadGone, UploadOpened
from coordinator.core.data.rows import UploadRow
from coordinator.core.errors import Code
from coordinator.core.events import TenantSet
from coordinator.core.ids import Digest
from tests.builders import refusal
from tests.depot import Depot, digest_of, outcome
from tests.site import TENANT


def test_what_is_uploaded_is_counted_once_whoever_uploads_it() -> None:
    """Two uploads of the same bytes make one blob; storage is the sum of the blobs."""
    depot = Depot()
    one, two = depot.opened("x", 100), depot.opened("x", 100, by="token:other")
    assert one.upload_id != two.upload_id
    assert depot.state.work.accounts.of(one.tenant).uploads == 200
    outcome(depot.done(one, "x"))
    outcome(depot.done(two, "x"))
    assert depot.account().storage == 100
    assert depot.state.work.accounts.of(one.tenant).uploads == 0


def test_the_same_upload_is_opened_once() -> None:
    """Whoever asks again for what he has open goes on with it."""
    depot = Depot()
    one = depot.opened("x")
    assert depot.opened("x") == one
    assert depot.opened("x", 101) != one


def test_an_upload_whose_time_is_over_is_not_opened_again() -> None:
    """Though the tick that ends it is yet to come: whoever asks gets a new one, and what it reserved is free."""
    depot = Depot()
    one = depot.opened("x")
    depot.now_ms = one.expires_at_ms - 1
    assert depot.opened("x") == one
    depot.now_ms = one.expires_at_ms
    again = depot.open("x")
    assert [(note.upload_id, note.why) for note in again.notes if isinstance(note, UploadGone)] == [
        (one.upload_id, "it has expired")
    ]
    found = outcome(again)
    assert isinstance(found, UploadOpened) and found.upload is not None
    assert found.upload.expires_at_ms == one.expires_at_ms + depot.policy.upload_ms
    assert depot.all(UploadRow) == [found.upload]
    assert depot.state.work.accounts.of(TENANT).uploads == 100
    assert refusal(depot.done(one, "x")).code is Code.UPLOAD_GONE


def test_what_is_there_is_not_uploaded_again() -> None:
    depot = Depot()
    row = depot.store("x")
    found = outcome(depot.open("x"))
    assert found == UploadOpened(present=row)
    assert refusal(depot.open("x", 101)).code is Code.BAD_DIGEST


def test_a_publication_burns_the_upload() -> None:
    """The nonce opens nothing a second time."""
    depot = Depot()
    upload = depot.opened("x")
    decision = depot.done(upload, "x")
    assert [note.why for note in decision.notes if isinstance(note, UploadGone)] == ["published"]
    assert refusal(depot.done(upload, "x")).code is Code.UPLOAD_GONE
    assert refusal(depot.drop(upload.upload_id)).code is Code.UPLOAD_GONE


def test_bytes_that_were_not_announced_do_not_count() -> None:
    depot = Depot()
    upload = depot.opened("x")
    assert refusal(depot.done(upload, "y")).code is Code.BAD_DIGEST
    assert refusal(depot.done(upload, "x", 99)).code is Code.BAD_DIGEST
    assert depot.blob("x") is None and digest_of("x") != digest_of("y")


def test_what_is_damaged_is_uploaded_in_spite_of_its_row_and_counted_once() -> None:
    """The tenant's storage counts it already: nothing more is set aside, and nothing more is kept."""
    depot = Depot()
    quota = (("storage", 1_000),)
    outcome(depot.decide(TenantSet(at_ms=depot.now_ms, request_id=depot.request(), name=TENANT, quota=quota)))
    depot.store("x", 850)
    upload = depot.opened("x", 850, unsound=True)
    assert (upload.mends, upload.digest) == (True, digest_of("x"))
    assert refusal(depot.open("x", 851, unsound=True)).code is Code.BAD_DIGEST
    assert depot.opened("x", 850, unsound=True) == upload
    assert depot.state.work.accounts.of(TENANT).uploads == 0
    outcome(depot.done(upload, "x", 850))
    assert depot.account().storage == 850
    assert outcome(depot.open("x", 850)) == UploadOpened(present=depot.blob("x"))


def test_what_is_damaged_is_found_by_its_sha256_too() -> None:
    depot = Depot()
    row = depot.store("x")
    found = outcome(depot.open("x", known=row, digest=Digest(""), sha256="5" * 64, unsound=True))
    assert isinstance(found, UploadOpened) and found.upload is not None
    assert (found.upload.mends, found.upload.digest, found.upload.sha256) == (True, row.digest, "5" * 64)
