"""Bytes of blobs: they count when they were verified, are whole or not there, and belong to one tenant."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.ports.blobs import BlobStore
from tests.conformance.homes import DiskHome, Home

A = TenantName("a:x@y+z_")
"""As odd as a tenant's name may be."""
B = TenantName("b")
FUTURE_MS = 1 << 50


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()


def an_id(number: int) -> str:
    return f"{number:032x}"


async def put(blobs: BlobStore, data: bytes, tenant: TenantName = A, number: int = 1) -> str:
    """Upload and publish it."""
    await blobs.begin(an_id(number), len(data))
    await blobs.write(an_id(number), 0, [data])
    digest, sha256, size = await blobs.finish(an_id(number), tenant, digest_of(data), "")
    assert (digest_of(data), "", len(data)) == (digest, sha256, size)
    return digest


async def refused(asked: Awaitable[object]) -> Code:
    with pytest.raises(CoordError) as refusal:
        await asked
    return refusal.value.code


def on(home: Home, story: Callable[[BlobStore], Awaitable[None]]) -> None:
    async def told(store: Any) -> None:
        await story(store.blob_files)

    home.run(told)


def test_what_was_published_is_read_as_it_was_sent(home: Home) -> None:
    """In pieces of any size, empty ones and none too; by descriptor and as a whole; after a restart."""
    dice = Random(1)
    contents = [b"", b"x", dice.randbytes(3_000_000)]

    async def write(blobs: BlobStore) -> None:
        for number, data in enumerate(contents):
            assert 0 == await blobs.begin(an_id(number), len(data))
            place = 0
            while place < len(data):
                pieces = [
                    data[place + n : place + n + 70_000] for n in range(0, dice.choice((70_000, 700_000)), 70_000)
                ]
                place = await blobs.write(an_id(number), place, [b"", *(memoryview(piece) for piece in pieces)])
            sha256 = hashlib.sha256(data).hexdigest()
            expected = (digest_of(data), sha256, len(data))
            assert expected == await blobs.finish(an_id(number), A, "" if number else expected[0], sha256)

    async def read(blobs: BlobStore) -> None:
        for data in contents:
            fd, size = await blobs.open_blob(A, digest_of(data))
            try:
                assert (len(data), data) == (size, os.pread(fd, len(data) + 1, 0))
            finally:
                os.close(fd)
            assert data == await blobs.read(A, digest_of(data), len(data))
            assert None is blobs.get_url(A, digest_of(data), len(data))
        assert Code.TOO_LARGE is await refused(blobs.read(A, digest_of(contents[2]), len(contents[2]) - 1))

    on(home, write)
    on(home, read)


def test_nothing_is_there_for_another_tenant_or_before_it_was_finished(home: Home) -> None:
    """The same digest is another blob elsewhere, and an upload is none."""

    async def story(blobs: BlobStore) -> None:
        data = b"mine"
        await blobs.begin(an_id(1), 4)
        await blobs.write(an_id(1), 0, [data])
        assert Code.NOT_FOUND is await refused(blobs.open_blob(A, digest_of(data)))
        await blobs.finish(an_id(1), A, digest_of(data), "")
        assert Code.NOT_FOUND is await refused(blobs.open_blob(B, digest_of(data)))
        assert Code.NOT_FOUND is await refused(blobs.read(B, digest_of(data), 9))
        assert 0 == await blobs.remove([(B, digest_of(data))])
        assert data == await blobs.read(A, digest_of(data), 9)

    on(home, story)


def test_who_publishes_second_changes_nothing_unless_it_mends(home: Home) -> None:
    """What is whole stays what it is; what is damaged or cut short is made whole by whoever comes next."""
    data = b"0123456789"

    async def published_again(blobs: BlobStore, number: int, mends: bool) -> int:
        """The inode of what lies there then, or of nothing that lasts."""
        await blobs.begin(an_id(number), len(data))
        await blobs.write(an_id(number), 0, [data])
        assert len(data) == (await blobs.finish(an_id(number), A, digest_of(data), "", mends=mends))[2]
        assert Code.UPLOAD_GONE is await refused(blobs.write(an_id(number), 0, [data]))
        fd, _ = await blobs.open_blob(A, digest_of(data))
        try:
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    async def story(blobs: BlobStore) -> None:
        assert None is blobs.put_url(an_id(1), len(data)), "both take uploads themselves"
        first = await published_again(blobs, 1, False)
        again = await published_again(blobs, 2, False)
        mended = await published_again(blobs, 3, True)
        if isinstance(home, DiskHome):
            assert first == again != mended
        for bad, mends in ((b"01234", False), (b"012345678x", False), (b"012345678x", True)):
            home.damage_blob(A, digest_of(data), bad)
            assert not await blobs.is_whole(A, digest_of(data))
            await published_again(blobs, 4, mends)
            assert await blobs.is_whole(A, digest_of(data))
        assert [(A, digest_of(data))] == await blobs.stored(FUTURE_MS, 9)

    on(home, story)


def test_an_upload_goes_on_where_it_ended(home: Home) -> None:
    """After a restart too; anywhere else is refused and changes nothing; its digest is that of all of it."""
    data = Random(2).randbytes(900_000)

    async def first(blobs: BlobStore) -> None:
        assert 0 == await blobs.begin(an_id(1), len(data))
        assert 400_000 == await blobs.write(an_id(1), 0, [data[:400_000]])
        assert 400_000 == await blobs.begin(an_id(1), len(data))

    async def second(blobs: BlobStore) -> None:
        assert 400_000 == await blobs.begin(an_id(1), len(data))
        for offset in (0, 399_999, 400_001, len(data)):
            assert Code.BAD_OFFSET is await refused(blobs.write(an_id(1), offset, [b"x"]))
        assert Code.BAD_OFFSET is await refused(blobs.finish(an_id(1), A, digest_of(data), ""))
        assert 700_000 == await blobs.write(an_id(1), 400_000, [data[400_000:700_000]])
        assert len(data) == await blobs.write(an_id(1), 700_000, [data[700_000:]])
        await blobs.finish(an_id(1), A, digest_of(data), "")
        assert data == await blobs.read(A, digest_of(data), len(data))

    on(home, first)
    on(home, second)


def test_more_bytes_than_were_announced_are_refused(home: Home) -> None:
    """Whole: nothing of such a write stays."""

    async def story(blobs: BlobStore) -> None:
        await blobs.begin(an_id(1), 5)
        await blobs.write(an_id(1), 0, [b"abc"])
        assert Code.TOO_LARGE is await refused(blobs.write(an_id(1), 3, [b"de", b"f"]))
        assert 3 == await blobs.begin(an_id(1), 5)
        assert 5 == await blobs.write(an_id(1), 3, [b"de"])
        await blobs.finish(an_id(1), A, digest_of(b"abcde"), "")

    on(home, story)


@pytest.mark.parametrize("wrong", ["blake3", "sha256", "both", "sha256 alone"])
def test_bytes_that_are_not_what_was_announced_are_thrown_away(home: Home, wrong: str) -> None:
    """Either digest is enough to refuse; the upload is gone with them, and begins anew if it is begun again."""
    data, other = b"what came", b"what was meant"

    async def story(blobs: BlobStore) -> None:
        await blobs.begin(an_id(1), len(data))
        await blobs.write(an_id(1), 0, [data])
        digest = "" if "alone" in wrong else digest_of(other if wrong in ("blake3", "both") else data)
        sha256 = hashlib.sha256(data if wrong == "blake3" else other).hexdigest()
        assert Code.BAD_DIGEST is await refused(blobs.finish(an_id(1), A, digest, sha256))
        for text in (data, other):
            assert Code.NOT_FOUND is await refused(blobs.open_blob(A, digest_of(text)))
        assert Code.UPLOAD_GONE is await refused(blobs.write(an_id(1), len(data), [b""]))
        assert Code.UPLOAD_GONE is await refused(blobs.finish(an_id(1), A, "", ""))
        assert 0 == await blobs.begin(an_id(1), len(data))

    on(home, story)


def test_an_upload_that_ended_takes_no_more(home: Home) -> None:
    """Published or dropped; one that was never begun neither. Dropping twice is no error."""

    async def story(blobs: BlobStore) -> None:
        digest = await put(blobs, b"x")
        await blobs.begin(an_id(2), 3)
        await blobs.write(an_id(2), 0, [b"abc"])
        await blobs.drop(an_id(2))
        await blobs.drop(an_id(2))
        for number in (1, 2, 3):
            assert Code.UPLOAD_GONE is await refused(blobs.write(an_id(number), 0, [b"x"]))
            assert Code.UPLOAD_GONE is await refused(blobs.finish(an_id(number), A, digest, ""))
        assert 0 == await blobs.begin(an_id(2), 3), "an id that is used again has nothing of before"
        assert b"x" == await blobs.read(A, digest, 9)

    on(home, story)


def test_the_same_bytes_twice_are_one_blob(home: Home) -> None:
    """Also when both uploads are under way at once, and with a reader in between: it reads on."""
    data = Random(3).randbytes(300_000)

    async def story(blobs: BlobStore) -> None:
        digest = await put(blobs, data)
        fd, _ = await blobs.open_blob(A, digest)
        try:
            await asyncio.gather(put(blobs, data, number=2), put(blobs, data, number=3), put(blobs, data, B, number=4))
            assert data == os.pread(fd, len(data), 0)
        finally:
            os.close(fd)
        assert sorted([(A, digest), (B, digest)]) == await blobs.stored(FUTURE_MS, 9)
        assert len(data) == await blobs.remove([(A, digest)])
        assert data == await blobs.read(B, digest, len(data))

    on(home, story)


def test_removed_bytes_are_gone_but_for_who_has_them_open(home: Home) -> None:
    """What was freed is told; what was not there frees nothing; a publication brings it back."""

    async def story(blobs: BlobStore) -> None:
        one, two = await put(blobs, b"one", number=1), await put(blobs, b"twenty", number=2)
        fd, _ = await blobs.open_blob(A, one)
        try:
            assert 3 == await blobs.remove([(A, one), (A, one), (TenantName("nobody"), two)])
            assert b"one" == os.pread(fd, 9, 0)
        finally:
            os.close(fd)
        assert Code.NOT_FOUND is await refused(blobs.open_blob(A, one))
        assert [(A, two)] == await blobs.stored(FUTURE_MS, 9)
        await put(blobs, b"one", number=3)
        assert b"one" == await blobs.read(A, one, 3)

    on(home, story)


def test_what_lies_there_is_told_page_by_page(home: Home) -> None:
    """By tenant and digest, without a gap or a double; nothing that was published since."""

    async def story(blobs: BlobStore) -> None:
        places = []
        for number in range(30):
            tenant = (A, B, TenantName("B"), TenantName("b.c"))[number % 4]
            places.append((tenant, await put(blobs, f"{number}".encode(), tenant, number)))
        await blobs.begin(an_id(99), 1)
        paged = page = await blobs.stored(FUTURE_MS, 7)
        while page:
            page = await blobs.stored(FUTURE_MS, 7, page[-1])
            paged = paged + page
        assert sorted(places) == paged
        assert [] == await blobs.stored(0, 9)

    on(home, story)


def test_what_belongs_to_no_upload_is_tidied_away(home: Home) -> None:
    """At a start: uploads that nobody knows go, known ones go on, blobs stay."""

    async def before(blobs: BlobStore) -> None:
        await put(blobs, b"stays")
        for number in (2, 3):
            await blobs.begin(an_id(number), 9)
            await blobs.write(an_id(number), 0, [b"abc"])

    async def after(blobs: BlobStore) -> None:
        await blobs.tidy([an_id(3), an_id(4)])
        assert [0, 3] == [await blobs.begin(an_id(number), 9) for number in (2, 3)]
        assert b"stays" == await blobs.read(A, digest_of(b"stays"), 9)

    on(home, before)
    on(home, after)


NO_TENANTS = ("", ".", "..", ".uploads", "a/b", "/etc", "a\x00b", "a/../b", "x" * 200, "é")
NO_DIGESTS = ("", "..", "0" * 63, "0" * 65, "A" * 64, "/" * 64, "../" + "0" * 61, "0" * 63 + "\n", "\uff10" * 64)


@pytest.mark.parametrize("tenant", NO_TENANTS)
def test_a_tenant_that_is_no_name_reaches_no_path(home: Home, tenant: str) -> None:
    """Refused before anything is opened, whoever asks."""

    async def story(blobs: BlobStore) -> None:
        digest = await put(blobs, b"x")
        whose = TenantName(tenant)
        for asked in (blobs.open_blob(whose, digest), blobs.read(whose, digest, 9)):
            assert Code.BAD_REQUEST is await refused(asked)
        await blobs.begin(an_id(2), 1)
        await blobs.write(an_id(2), 0, [b"x"])
        assert Code.BAD_REQUEST is await refused(blobs.finish(an_id(2), whose, digest, ""))
        assert Code.BAD_REQUEST is await refused(blobs.remove([(whose, digest)]))

    on(home, story)


@pytest.mark.parametrize("digest", NO_DIGESTS)
def test_a_digest_that_is_none_reaches_no_path(home: Home, digest: str) -> None:
    """Likewise; so do ids of uploads."""

    async def story(blobs: BlobStore) -> None:
        await put(blobs, b"x")
        for asked in (blobs.open_blob(A, digest), blobs.read(A, digest, 9), blobs.remove([(A, digest)])):
            assert Code.BAD_REQUEST is await refused(asked)
        upload_id = digest[:32] if len(digest) != 63 and digest[:32] != "0" * 32 else digest
        for doing in (blobs.begin(upload_id, 1), blobs.drop(upload_id)):
            assert Code.BAD_REQUEST is await refused(doing)

    on(home, story)


def test_bytes_that_lie_there_are_measured_and_read(home: Home) -> None:
    """By digest, of one tenant; what is not there has no size and is not whole."""

    async def story(blobs: BlobStore) -> None:
        digest = await put(blobs, b"weights")
        assert [7, None] == await blobs.sizes(A, [digest, digest_of(b"other")])
        assert [None] == await blobs.sizes(B, [digest])
        assert (True, False) == (await blobs.is_whole(A, digest), await blobs.is_whole(B, digest))

    on(home, story)
