"""Uploads over real sockets: verified before they count, resumed where they broke off, refused when they lie."""

from __future__ import annotations

import asyncio
import io

import pytest
from msgspec.structs import replace

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, UploadId
from coordinator.service.data.settings import DataSettings
from tests.unit.api.raw import Content, Raw, altered, content, offset_of, opened, part, raw, stored
from tests.unit.api.rig import ADMIN, TENANT, Got, Rig, served
from tests.unit.api.worked import eventually

MB = 1_000_000
PIECE = 1024 * 1024


async def put(rig: Rig, url: str, data: bytes, headers: dict[str, str] | None = None) -> Got:
    """Send it in one request."""
    return await rig.ask("PUT", url, None, data=io.BytesIO(data), headers=headers)


async def until(rig: Rig, url: str, offset: int) -> None:
    """Return when so much of an upload is there."""
    while offset_of(await rig.ask("HEAD", url, None)) != offset:  # noqa: ASYNC110 - it is asked over HTTP
        await asyncio.sleep(0.005)


async def arrived(rig: Rig, size: int) -> None:
    """So many bytes were read from sockets since the start."""
    await eventually(lambda: rig.deps.data.meters.ingress_total >= size, "the bytes arrive")


async def bytes_of(rig: Rig, digest: str, tenant: str = "physics") -> bytes:
    return await rig.store.blob_files.read(TenantName(tenant), digest, 1 << 30)


def test_a_whole_body_is_verified_and_becomes_a_blob_once() -> None:
    """201 with its digest; asking again says that it is there; the URL is burnt: a replay is 410."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB)
        answer = await opened(rig, what)
        assert (False, 0, 3 * MB) == (answer["present"], answer["offset"], answer["size"])
        got = await put(rig, answer["url"], what.data)
        assert (201, what.digest, 3 * MB) == (got.status, got.json["digest"], got.json["size"])
        assert what.data == await bytes_of(rig, what.digest)
        again = await opened(rig, what)
        assert again["present"] and again["url"] is None
        for data in (what.data, b""):
            assert (410, "upload_gone") == ((got := await put(rig, answer["url"], data)).status, got.code)
        assert 410 == (await rig.ask("HEAD", answer["url"], None)).status
        usage = (await rig.get("/v1/usage?tenant=physics")).json["entries"][0]
        assert 3 * MB == next(one for one in usage["dimensions"] if one["name"] == "storage")["used"]

    served(test)


def test_nothing_at_all_is_a_blob_too() -> None:
    """Zero bytes have a digest like any others."""

    async def test(rig: Rig) -> None:
        what = Content(b"")
        answer = await opened(rig, what)
        assert 201 == (await put(rig, answer["url"], b"")).status
        assert b"" == await bytes_of(rig, what.digest)

    served(test)


def test_sha256_alone_or_beside_blake3_is_verified_kept_and_shown() -> None:
    """By whatever it was announced, it is found; one that does not fit is refused whole."""

    async def test(rig: Rig) -> None:
        what = content(100_000)
        got = await rig.post("/v1/uploads", {"sha256": what.sha256, "size": len(what)}, TENANT)
        assert got.json["digest"] is None
        done = await put(rig, got.json["url"], what.data)
        assert (what.digest, what.sha256) == (done.json["digest"], done.json["sha256"])
        shown = (await rig.get(f"/v1/artifacts/sha256:{what.sha256}", TENANT)).json
        assert (what.digest, what.sha256, None) == (shown["digest"], shown["sha256"], shown["artifact"])
        assert (await rig.post("/v1/uploads", {"sha256": what.sha256, "size": len(what)}, TENANT)).json["present"]
        other = content(100_000, seed=2)
        both = await opened(rig, other, sha256=what.sha256)
        assert 422 == (await put(rig, both["url"], other.data)).status
        assert not (await opened(rig, other))["present"]

    served(test)


def test_a_digest_that_is_known_under_another_sha256_is_no_blob_that_is_there() -> None:
    """One that the row contradicts is refused; one that the row does not know is verified by sending the bytes, which
    count once, and is kept. A wrong one leaves what is there as it was."""

    async def test(rig: Rig) -> None:
        what, other = content(100_000), content(100_000, seed=2)
        await stored(rig, what)
        asked = {"digest": what.digest, "size": len(what)}
        for said, status in ((other, 422), (what, 201)):
            answer = (await rig.post("/v1/uploads", {**asked, "sha256": said.sha256}, TENANT)).json
            assert not answer["present"]
            assert status == (await put(rig, answer["url"], what.data)).status
            assert (await opened(rig, what))["present"]
        got = await rig.post("/v1/uploads", {**asked, "sha256": what.sha256}, TENANT)
        assert got.json["present"] and what.sha256 == got.json["sha256"]
        got = await rig.post("/v1/uploads", {**asked, "sha256": other.sha256}, TENANT)
        assert (422, "bad_digest") == (got.status, got.code)
        assert f"sha256:{what.sha256}" in got.json["detail"]
        usage = (await rig.get("/v1/usage?tenant=physics")).json["entries"][0]
        assert len(what) == next(one for one in usage["dimensions"] if one["name"] == "storage")["used"]

    served(test)


def test_parts_follow_each_other_and_each_answer_tells_how_far_it_is() -> None:
    """202 with Upload-Offset until the last one; a part elsewhere is 409 with the offset; HEAD tells the same."""

    async def test(rig: Rig) -> None:
        what = content(5 * MB)
        url = (await opened(rig, what))["url"]
        for first, end in ((0, MB), (MB, 3 * MB)):
            got = await put(rig, url, what.data[first:end], headers=part(first, end, len(what)))
            assert (202, end) == (got.status, offset_of(got))
        for first in (0, MB, 4 * MB):
            got = await put(rig, url, b"x", headers=part(first, first + 1, len(what)))
            assert (409, "bad_offset", 3 * MB) == (got.status, got.code, offset_of(got))
        got = await rig.ask("HEAD", url, None)
        assert (200, 3 * MB, str(5 * MB)) == (got.status, offset_of(got), got.headers["Upload-Length"])
        again = await opened(rig, what)
        assert (3 * MB, url.split("?")[0]) == (again["offset"], again["url"].split("?")[0])
        got = await put(rig, url, what.data[3 * MB :], headers=part(3 * MB, 5 * MB, len(what)))
        assert 201 == got.status
        assert what.data == await bytes_of(rig, what.digest)

    served(test)


@pytest.mark.parametrize("how", ["reset", "half-closed"])
def test_a_cut_connection_goes_on_behind_what_arrived(how: str) -> None:
    """Bytes that are sent twice are less than one in a hundred, over ten cuts; the blob is what was announced."""

    async def test(rig: Rig) -> None:
        what = content(20 * MB)
        url, sent, offset = (await opened(rig, what))["url"], 0, 0
        for cut in range(10):
            end = min(len(what), 2 * MB * (cut + 1) - 12_345)
            async with raw(rig) as connection:
                await connection.ask(
                    "PUT", url, part(offset, len(what), len(what)), what.data[offset:end], length=len(what) - offset
                )
                sent += end - offset
                await arrived(rig, sent)  # what a reset finds on its way is lost
                if how == "reset":
                    connection.reset()
                else:
                    connection.writer.write_eof()
            async with asyncio.timeout(60):
                await until(rig, url, end)
            offset = offset_of(await rig.ask("HEAD", url, None))
        got = await put(rig, url, what.data[offset:], headers=part(offset, len(what), len(what)))
        sent += len(what) - offset
        assert 201 == got.status
        assert what.data == await bytes_of(rig, what.digest)
        assert sent <= 1.01 * len(what)

    served(test)


# ---- what is refused


def test_other_bytes_than_were_announced_are_refused_and_nothing_of_them_is_kept() -> None:
    """One bit is enough: 422, the upload is gone, what it reserved is free, and the right bytes may come anew."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        answer = await opened(rig, what)
        got = await put(rig, answer["url"], what.data[:-1] + bytes([what.data[-1] ^ 1]))
        assert (422, "bad_digest") == (got.status, got.code)
        assert 410 == (await put(rig, answer["url"], what.data)).status
        assert {} == rig.engine.state.data.uploads
        assert not (await opened(rig, what))["present"]

    served(test)


def test_more_than_was_announced_is_refused_and_what_fitted_stays() -> None:
    """By Content-Length before a byte is read; without one, at the first byte too many."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB)
        url = (await opened(rig, what))["url"]
        got = await put(rig, url, what.data + b"x")
        assert (413, "too_large", 0) == (got.status, got.code, offset_of(got))
        got = await put(rig, url, b"xx", {"Content-Range": f"bytes {len(what) - 1}-{len(what)}/{len(what)}"})
        assert 413 == got.status
        async with raw(rig) as connection:
            await connection.ask("PUT", url, {"Transfer-Encoding": "chunked"})
            await connection.send(b"%x\r\n%b\r\n" % (2 * MB, what.data[: 2 * MB]))
            await connection.send(b"%x\r\n%b\r\n" % (MB + 1, what.data[2 * MB :] + b"x"))
            got = await connection.answer()
            assert (413, True) == (got.status, 2 * MB <= offset_of(got) <= 3 * MB)
        begin = offset_of(got)
        assert 201 == (await put(rig, url, what.data[begin:], part(begin, len(what), len(what)))).status

    served(test)


@pytest.mark.parametrize(
    ("said", "length", "status"),
    [
        ("bytes 0-9/10", 10, 400),  # of another size
        ("bytes 5-3/2000000", 1, 400),
        ("bytes 0-9/2000000", 9, 400),  # Content-Length says another one
        ("bytes 0-/2000000", 9, 400),
        ("bytes=0-9", 10, 400),
        ("items 0-9/2000000", 10, 400),
        ("bytes 1999999-2000000/2000000", 2, 413),
        ("bytes " + "9" * 30 + "-1/2000000", 1, 400),
    ],
)
def test_a_range_that_cannot_be_is_refused(said: str, length: int, status: int) -> None:
    """Before a byte of the body is read; the upload stays as it was."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        url = (await opened(rig, what))["url"]
        got = await put(rig, url, b"x" * length, {"Content-Range": said})
        assert (status, 0) == (got.status, offset_of(got))
        assert 201 == (await put(rig, url, what.data)).status

    served(test)


def test_a_body_that_trickles_or_stops_is_cut_and_what_arrived_stays() -> None:
    """One byte now and then keeps no transfer alive: 504, and the next one goes on behind it."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        url = (await opened(rig, what))["url"]
        async with raw(rig) as silent, raw(rig) as trickling:
            await silent.ask("PUT", url, body=what.data[:100_000], length=len(what))
            got = await silent.answer()
            assert (504, "timeout", 100_000) == (got.status, got.code, offset_of(got))
            await trickling.ask("PUT", url, part(100_000, len(what), len(what)), length=len(what) - 100_000)
            sending = asyncio.ensure_future(trickle(trickling, what.data[100_000:]))
            got = await trickling.answer()
            sending.cancel()
            await asyncio.wait((sending,))
            assert 504 == got.status and 100_000 < offset_of(got) < 101_000
        assert 2 == rig.deps.data.receiver.cut_slow
        begin = offset_of(got)
        assert 201 == (await put(rig, url, what.data[begin:], part(begin, len(what), len(what)))).status

    async def trickle(connection: Raw, data: bytes) -> None:
        for at in range(len(data)):
            await connection.send(data[at : at + 1])
            await asyncio.sleep(0.02)

    served(test, data_settings=DataSettings(stall_s=0.4, rate_min_bytes_per_s=1_000))


def test_a_url_opens_one_upload_in_one_direction_until_it_expires() -> None:
    """Altered in any part, for another object, as a GET or after its time: 403, and its words are in no answer."""

    async def test(rig: Rig) -> None:
        what, other = content(100), content(100, seed=2)
        url, another = (await opened(rig, what))["url"], (await opened(rig, other))["url"]
        path, query = url.split("?")
        signature = query.rpartition("s=")[2]
        bad = [
            path,
            altered(url, "x", "99999999999"),
            altered(url, "n", "1000000"),
            altered(url, "k", "00000000"),
            altered(url, "s", signature[:-1] + ("A" if signature[-1] != "A" else "B")),
            altered(url, "s", ""),
            altered(url, "s", "%C3%A9" * 20),
            another.split("?")[0] + "?" + query,
            f"/v1/blobs/physics/{what.digest}?{query}",
        ]
        for one in bad:
            got = await put(rig, one, what.data) if one.startswith("/v1/uploads") else await rig.get(one, None)
            assert (403, "bad_signature") == (got.status, got.code), one
            assert signature.encode() not in got.body
        for wrong in ("GET", "POST", "PATCH"):
            assert 405 == (await rig.ask(wrong, url, ADMIN)).status
        rig.clock.ahead_ms = 901_000
        got = await put(rig, url, what.data)
        assert (403, "bad_signature") == (got.status, got.code)
        fresh = (await opened(rig, what))["url"]
        assert path == fresh.split("?")[0], "the same upload, with a URL that is good again"
        assert 201 == (await put(rig, fresh, what.data)).status

    served(test)


def test_a_transfer_that_has_begun_goes_on_when_its_url_expires() -> None:
    """Expiry is looked at when a request begins."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        url = (await opened(rig, what))["url"]
        async with raw(rig) as connection:
            await connection.ask("PUT", url, body=what.data[:MB], length=len(what))
            await eventually(lambda: len(rig.deps.data.transfers) >= 1, "they begin")
            rig.clock.ahead_ms = 901_000
            await connection.send(what.data[MB:])
            assert 201 == (await connection.answer()).status

    served(test)


def test_an_upload_is_its_tenants_and_of_the_token_that_opened_it() -> None:
    """Another tenant can drop it as little as one that never was; revoking the token cuts it under way and for good."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        chemist = await rig.tenant_token("chemistry")
        answer = await opened(rig, what)
        for upload in (answer["id"], "0" * 32):
            got = await rig.ask("DELETE", f"/v1/uploads/{upload}", chemist)
            assert (404, "not_found") == (got.status, got.code)
        async with raw(rig) as connection:
            await connection.ask("PUT", answer["url"], body=what.data[:MB], length=len(what))
            await arrived(rig, MB)
            assert 204 == (await rig.ask("DELETE", "/v1/tokens/t-tenant", ADMIN)).status
            got = await connection.answer()
            assert (401, "unauthenticated") == (got.status, got.code)
        assert 410 == (await put(rig, answer["url"], what.data)).status
        assert 204 == (await rig.ask("DELETE", f"/v1/uploads/{answer['id']}", ADMIN)).status
        assert {} == rig.engine.state.data.uploads

    served(test)


def test_dropping_an_upload_cuts_what_is_under_way_and_frees_its_bytes() -> None:
    """204; the transfer is told that it is gone; nothing of it is left."""

    async def test(rig: Rig) -> None:
        what = content(4 * MB)
        answer = await opened(rig, what)
        async with raw(rig) as connection:
            await connection.ask("PUT", answer["url"], body=what.data[: 3 * MB], length=len(what))
            await arrived(rig, 3 * MB)
            assert 204 == (await rig.ask("DELETE", f"/v1/uploads/{answer['id']}", TENANT)).status
            got = await connection.answer()
            assert (410, "upload_gone") == (got.status, got.code)
        assert 404 == (await rig.ask("DELETE", f"/v1/uploads/{answer['id']}", TENANT)).status
        fresh = await opened(rig, what)
        assert (0, True) == (fresh["offset"], fresh["id"] != answer["id"])

    served(test)


def test_a_second_request_for_an_upload_takes_it_over() -> None:
    """The first is cut, what it brought stays, and the second goes on behind that: nobody waits for a dead peer."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB)
        url = (await opened(rig, what))["url"]
        async with raw(rig) as first:
            await first.ask("PUT", url, body=what.data[:MB], length=len(what))
            await arrived(rig, MB)
            got = await put(rig, url, what.data[MB:], part(MB, len(what), len(what)))
            assert 201 == got.status
            assert (409, "conflict") == ((cut := await first.answer()).status, cut.code)
        assert what.data == await bytes_of(rig, what.digest)

    served(test)


def test_packed_bodies_and_uploads_without_a_digest_are_refused() -> None:
    """Bytes are taken as they are: nothing is unpacked, nothing is guessed."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        url = (await opened(rig, what))["url"]
        assert 400 == (await put(rig, url, what.data, {"Content-Encoding": "gzip"})).status
        for body in ({"size": 5}, {"size": -1, "digest": "0" * 64}, {"size": 5, "digest": "xyz"}, {"digest": "0" * 64}):
            assert 400 == (await rig.post("/v1/uploads", body, TENANT)).status, body
        assert 413 == (await rig.post("/v1/uploads", {"size": 2**50, "digest": "0" * 64}, TENANT)).status
        refused = await rig.post("/v1/uploads", {"size": 1, "digest": "0" * 64, "tenant": "chemistry"}, TENANT)
        assert 403 == refused.status

    served(test)


def test_too_many_transfers_are_refused_and_those_under_way_go_on() -> None:
    """Of one tenant, and in all; a transfer that ends makes room."""

    async def test(rig: Rig) -> None:
        whats = [content(2_000, seed) for seed in range(3)]
        urls = [(await opened(rig, one))["url"] for one in whats]
        async with raw(rig) as first, raw(rig) as second:
            for connection, url, what in zip((first, second), urls, whats, strict=False):
                await connection.ask("PUT", url, body=what.data[:1_000], length=2_000)
            await eventually(lambda: len(rig.deps.data.transfers) >= 2, "they begin")
            got = await put(rig, urls[2], whats[2].data)
            assert (429, "too_many", "2") == (got.status, got.code, got.headers["Retry-After"])
            await first.send(whats[0].data[1_000:])
            assert 201 == (await first.answer()).status
            assert 201 == (await put(rig, urls[2], whats[2].data)).status
            await second.send(whats[1].data[1_000:])
            assert 201 == (await second.answer()).status

    served(test, data_settings=DataSettings(transfers_per_tenant_max=2))


def test_a_full_disk_is_507_and_the_upload_goes_on_when_there_is_room() -> None:
    """Nothing is lost of what was written before; the offset tells where to go on."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB)
        url = (await opened(rig, what))["url"]
        assert 202 == (await put(rig, url, what.data[:MB], part(0, MB, len(what)))).status
        rig.store.blob_files.fault = CoordError(Code.STORE_FULL, "no room", "make some")
        got = await put(rig, url, what.data[MB:], part(MB, len(what), len(what)))
        assert (507, "store_full") == (got.status, got.code)
        rig.store.blob_files.fault = None
        assert MB == offset_of(await rig.ask("HEAD", url, None))
        assert 201 == (await put(rig, url, what.data[MB:], part(MB, len(what), len(what)))).status

    served(test)


def test_bytes_whose_row_is_missing_are_published_without_being_sent_again() -> None:
    """As after a kill between both, or a disk that took the bytes and not the row: what lies there was verified."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        answer = await opened(rig, what)
        files, upload = rig.store.blob_files, answer["id"]
        await files.begin(upload, len(what))
        await files.write(upload, 0, [what.data])
        await files.finish(upload, TenantName("physics"), what.digest, "")
        got = await rig.ask("HEAD", answer["url"], None)
        assert (200, 2 * MB) == (got.status, offset_of(got))
        got = await put(rig, answer["url"], what.data)
        assert (409, 2 * MB) == (got.status, offset_of(got))
        got = await put(rig, answer["url"], b"", {"Content-Range": f"bytes */{len(what)}"})
        assert 201 == got.status
        assert (await opened(rig, what))["present"]

    served(test)


def test_bytes_that_are_all_there_are_published_by_asking() -> None:
    """The connection broke behind the last byte: an empty body with `bytes */SIZE` is the last word."""

    async def test(rig: Rig) -> None:
        what = content(2 * MB)
        answer = await opened(rig, what)
        files = rig.store.blob_files
        await files.begin(answer["id"], len(what))
        await files.write(answer["id"], 0, [what.data])
        got = await put(rig, answer["url"], b"", {"Content-Range": f"bytes */{len(what)}"})
        assert 201 == got.status

    served(test)


def test_what_an_upload_may_not_be_published_for_leaves_no_bytes_behind() -> None:
    """It was dropped while its bytes were verified: 410, and no file without a row remains."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        answer = await opened(rig, what)
        data, files = rig.deps.data, rig.store.blob_files
        row = replace(data.upload(answer["id"]), upload_id=UploadId("f" * 32))
        await files.begin(row.upload_id, row.size)
        await files.write(row.upload_id, 0, [what.data])
        with pytest.raises(CoordError, match="published, dropped or"):
            await data.publisher.publish(row)
        assert [] == await files.stored(1 << 60, 10)
        assert 201 == (await put(rig, answer["url"], what.data)).status

    served(test)


def test_what_came_in_just_now_counts_for_the_quota_of_ingress() -> None:
    """Bytes are charged every few seconds; a tenant with a limit is not let past it in between."""

    async def test(rig: Rig) -> None:
        token = await rig.tenant_token("small")
        assert 200 == (await rig.ask("PATCH", "/v1/tenants/small", json={"quota": {"ingress": 3 * MB}})).status
        for seed in (1, 2):
            await stored(rig, content(MB, seed), token)
        got = await rig.ask("POST", "/v1/uploads", token, json={"digest": "ab" * 32, "size": MB})
        assert (403, "quota") == (got.status, got.code)
        (refusal,) = got.json["refusals"]
        assert ("ingress", 2 * MB, 0) == (refusal["dimension"], refusal["used"], refusal["reserved"])

    served(test)


def test_an_upload_that_gets_on_stays_open() -> None:
    """Its time counts from its last byte, not from its opening; what is asked for again says until when."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB)
        answer = await opened(rig, what)
        open_ms = rig.engine.policy.upload_ms
        until_ms = rig.clock.now_ms() + open_ms * 3 // 4
        while rig.clock.now_ms() < until_ms:  # what it is put ahead by may count twice
            rig.clock.ahead_ms += open_ms // 32
        answer = await opened(rig, what)  # its first URL is over
        got = await put(rig, answer["url"], what.data[:MB], headers=part(0, MB, len(what)))
        assert 202 == got.status
        rig.deps.data.meters.charge()
        rows = rig.engine.state.data.uploads
        until_ms = rig.clock.now_ms() + open_ms * 15 // 16
        await eventually(lambda: rows[UploadId(answer["id"])].expires_at_ms > until_ms, "it is open for longer")
        assert (await opened(rig, what))["closes"] > answer["closes"]

    served(test)
