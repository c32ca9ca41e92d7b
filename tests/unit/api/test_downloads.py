"""Downloads over real sockets: the right bytes, ranges, keep-alive, readers that are slow or gone, TLS, metering."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from coordinator.core.ids import TenantName
from coordinator.core.rows import Role
from coordinator.service.data.settings import DataSettings
from tests.unit.api.raw import altered, content, raw, stored
from tests.unit.api.rig import ADMIN, TENANT, Rig, served
from tests.unit.api.test_client import certificate
from tests.unit.api.worked import eventually

MB = 1_000_000
PHYSICS = TenantName("physics")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def uv(request: pytest.FixtureRequest) -> bool:
    """On both loops: each has sockets of its own."""
    return bool(request.param)


def url_of(rig: Rig, digest: str, size: int, tenant: TenantName = PHYSICS) -> str:
    return rig.deps.data.blob_url(tenant, digest, size)


def test_the_whole_and_every_range_are_the_blobs_bytes(uv: bool) -> None:
    """206 with Content-Range; a suffix, an open end and one beyond the end; 416 for what lies behind it; else 200."""

    async def test(rig: Rig) -> None:
        what = content(3 * MB + 7)
        size, data = len(what), what.data
        url = url_of(rig, await stored(rig, what), size)
        got = await rig.get(url, None)
        assert (200, data, f'"{what.digest}"', "bytes") == (
            got.status,
            got.body,
            got.headers["ETag"],
            got.headers["Accept-Ranges"],
        )
        for said, first, end in (
            ("bytes=0-0", 0, 1),
            ("bytes=5-1000004", 5, 1_000_005),
            ("bytes=2999999-", 2_999_999, size),
            ("bytes=-9", size - 9, size),
            (f"bytes={size - 1}-{size + 99}", size - 1, size),
            (f"bytes=-{size + 99}", 0, size),
        ):
            got = await rig.get(url, None, headers={"Range": said})
            assert (206, f"bytes {first}-{end - 1}/{size}") == (got.status, got.headers["Content-Range"]), said
            assert data[first:end] == got.body, said
        for said in (f"bytes={size}-", "bytes=-0"):
            got = await rig.get(url, None, headers={"Range": said})
            assert (416, f"bytes */{size}", b"") == (got.status, got.headers["Content-Range"], got.body)
        for said in ("bytes=0-1,5-6", "bytes=9-5", "lines=1-2", "bytes=-", "bytes=0x1-2"):
            assert 200 == (await rig.get(url, None, headers={"Range": said})).status, said
        assert 1 == len(rig.connections()), "every answer left its connection fit for the next one"

    served(test, uv=uv)


def test_tags_say_whether_it_is_still_the_same(uv: bool) -> None:
    """If-Range with another tag is the whole; If-None-Match with this one is 304; HEAD has the head alone."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        url, tag = url_of(rig, await stored(rig, what), 1_000), f'"{what.digest}"'
        some = {"Range": "bytes=1-2"}
        assert 206 == (await rig.get(url, None, headers={**some, "If-Range": tag})).status
        assert 200 == (await rig.get(url, None, headers={**some, "If-Range": '"another"'})).status
        assert 200 == (await rig.get(url, None, headers={**some, "If-Range": "W/" + tag})).status
        for said in (tag, f'"x", W/{tag}', "*"):
            got = await rig.get(url, None, headers={"If-None-Match": said})
            assert (304, b"") == (got.status, got.body)
        for path, token in ((url, None), (f"/v1/artifacts/{what.digest}/content", TENANT)):
            got = await rig.ask("GET" if token else "HEAD", path, token)
            assert (200, "1000", tag) == (got.status, got.headers["Content-Length"], got.headers["ETag"])
        assert b"" == (await rig.ask("HEAD", url, None)).body

    served(test, uv=uv)


def test_a_url_opens_one_blob_of_one_tenant_until_it_expires(uv: bool) -> None:
    """Altered, of another tenant or digest, for an upload, or after its time: 403, whoever asks; gone: 404."""

    async def test(rig: Rig) -> None:
        what, other = content(1_000), content(1_000, seed=2)
        url = url_of(rig, await stored(rig, what), 1_000)
        await stored(rig, other)
        query = url.split("?")[1]
        for bad in (
            url.split("?")[0],
            altered(url, "n", "999"),
            altered(url, "x", "99999999999"),
            f"/v1/blobs/physics/{other.digest}?{query}",
            f"/v1/blobs/chemistry/{what.digest}?{query}",
        ):
            for token in (None, TENANT, ADMIN):
                got = await rig.get(bad, token)
                assert (403, "bad_signature") == (got.status, got.code), bad
        assert 403 == (await rig.ask("PUT", f"/v1/uploads/{'0' * 32}?{query}", None, data=b"")).status
        assert 404 == (await rig.get(url_of(rig, what.digest, 999), None)).status, "it has another size"
        await rig.store.blob_files.remove([(PHYSICS, what.digest)])
        assert 404 == (await rig.get(url, None)).status
        assert 200 == (await rig.get(url_of(rig, other.digest, 1_000), None)).status
        rig.clock.ahead_ms = 901_000
        assert 403 == (await rig.get(url, None)).status

    served(test, uv=uv)


def test_a_reader_that_takes_nothing_is_cut_and_holds_up_nobody(uv: bool) -> None:
    """However many do so: others are served at once, by fewer threads than there are of them."""

    async def test(rig: Rig) -> None:
        what = content(8 * MB)
        url = url_of(rig, await stored(rig, what), len(what))
        async with raw(rig, receive_bytes=4_096) as a, raw(rig, receive_bytes=4_096) as b, raw(rig) as c:
            for slow in (a, b):
                await slow.ask("GET", url)
                slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await eventually(lambda: len(rig.deps.data.transfers) == 2, "both begin")
            await c.ask("GET", url)
            assert what.data == (await c.answer()).body
            assert rig.deps.data.sender.cut_slow == 0
            await eventually(lambda: rig.deps.data.sender.cut_slow == 2, "both are cut")
            await eventually(lambda: len(rig.deps.data.transfers) == 0, "nothing is left of them")
        assert 200 == (await rig.get("/healthz", None)).status

    served(test, uv=uv, data_settings=DataSettings(send_threads=1, stall_s=2.0))


def test_a_reader_that_goes_away_ends_its_transfer_at_once_and_pays_for_what_it_took(uv: bool) -> None:
    """Its descriptors are closed, and what left here is metered, the rest is not."""

    async def test(rig: Rig) -> None:
        what = content(30 * MB)
        url = url_of(rig, await stored(rig, what), len(what))
        before = open_files()
        for how in ("reset", "closed"):
            async with raw(rig, receive_bytes=65_536) as connection:
                await connection.ask("GET", url)
                await connection.reader.readexactly(500_000)
                if how == "reset":
                    connection.reset()
            await eventually(lambda: len(rig.deps.data.transfers) == 0, "it ends")
        took = rig.deps.data.meters.egress_total
        assert 2 * 499_000 < took < 2 * 20 * MB
        await eventually(lambda: open_files() <= before, "every descriptor is closed")

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    served(test, uv=uv)


def test_bytes_that_moved_are_charged_to_their_tenant(uv: bool) -> None:
    """Both directions, exactly, also of ranges and of other tenants' transfers apart."""

    async def test(rig: Rig) -> None:
        what = content(MB)
        chemist = await rig.tenant_token("chemistry")
        url = url_of(rig, await stored(rig, what), MB)
        await stored(rig, what, chemist)
        await rig.get(url, None)
        await rig.get(url, None, headers={"Range": "bytes=0-9999"})
        await eventually(lambda: rig.deps.data.meters.egress_total == MB + 10_000, "it is counted")
        rig.deps.data.meters.charge()

        async def used(tenant: str) -> dict[str, int]:
            entry = (await rig.get(f"/v1/usage?tenant={tenant}")).json["entries"][0]
            return {one["name"]: one["used"] for one in entry["dimensions"]}

        physics, chemistry = await used("physics"), await used("chemistry")
        assert (MB, MB + 10_000, MB) == (physics["ingress"], physics["egress"], physics["storage"])
        assert (MB, 0, MB) == (chemistry["ingress"], chemistry["egress"], chemistry["storage"])

    served(test, uv=uv)


def test_what_would_pass_the_quota_of_egress_is_refused_before_a_byte(uv: bool) -> None:
    """403 that names the dimension; what was not charged yet counts too."""

    async def test(rig: Rig) -> None:
        what = content(MB)
        token = await rig.tenant_token("small")
        assert 200 == (await rig.ask("PATCH", "/v1/tenants/small", json={"quota": {"egress": 3 * MB}})).status
        url = url_of(rig, await stored(rig, what, token), MB, TenantName("small"))
        assert [200, 200, 403] == [(await rig.get(url, None)).status for _ in range(3)]
        got = await rig.get(f"/v1/artifacts/{what.digest}/content", token)
        assert "quota" == got.code and "egress" == got.json["refusals"][0]["dimension"]
        assert got.json["detail"].startswith("tenant small may not fetch so much this month: egress: ")

    served(test, uv=uv)


def test_many_downloads_at_once_do_not_pass_the_quota_of_egress_together(uv: bool) -> None:
    """What is on its way counts as gone."""

    async def test(rig: Rig) -> None:
        what = content(MB)
        token = await rig.tenant_token("small")
        assert 200 == (await rig.ask("PATCH", "/v1/tenants/small", json={"quota": {"egress": 3 * MB}})).status
        url = url_of(rig, await stored(rig, what, token), MB, TenantName("small"))
        got = await asyncio.gather(*(rig.get(url, None) for _ in range(6)))
        assert [200, 200, 403, 403, 403, 403] == sorted(one.status for one in got)

    served(test, uv=uv)


def test_content_by_token_ends_with_the_token(uv: bool) -> None:
    """A download under way is cut when its token is revoked: nobody takes the part for the whole."""

    async def test(rig: Rig) -> None:
        what = content(30 * MB)
        await stored(rig, what)
        reader = await rig.tenant_token("physics", Role.READ_ONLY)
        made = (await rig.get("/v1/tokens?tenant=physics&role=read-only")).json["entries"]
        async with raw(rig, receive_bytes=65_536) as connection:
            path = f"/v1/artifacts/blake3:{what.digest}/content"
            await connection.ask("GET", path, {"Authorization": f"Bearer {reader}"})
            head = await connection.head()
            assert (200, str(len(what))) == (head.status, head.headers["Content-Length"])
            assert 204 == (await rig.ask("DELETE", f"/v1/tokens/{made[0]['token_id']}", ADMIN)).status
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await connection.reader.readexactly(len(what))

    served(test, uv=uv)


def test_requests_that_follow_each_other_on_one_connection_get_their_answers_in_order(uv: bool) -> None:
    """Pipelined: no byte of a file overtakes a head, or stands where another answer should."""

    async def test(rig: Rig) -> None:
        whats = [content(700_000, seed) for seed in range(4)]
        urls = [url_of(rig, await stored(rig, one), len(one)) for one in whats]
        async with raw(rig) as connection:
            for url in (*urls, "/healthz", *reversed(urls)):
                await connection.ask("GET", url)
            for what in whats:
                assert what.data == (await connection.answer()).body
            assert 200 == (await connection.answer()).status
            for what in reversed(whats):
                assert what.data == (await connection.answer()).body

    served(test, uv=uv)


def test_through_tls_the_same_bytes_come(tmp_path: Path, uv: bool) -> None:
    """Whole and in ranges, over one connection; a reader that stops is cut there as well."""

    async def test(rig: Rig) -> None:
        pem, key, _ = certificate(tmp_path, "ours")
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=pem)
        server.load_cert_chain(pem, key)
        await web.TCPSite(rig.runner, "127.0.0.1", 0, ssl_context=server).start()
        port = rig.runner.addresses[-1][1]
        what = content(12 * MB)  # more than kernels take for a reader that does not read
        url = url_of(rig, await stored(rig, what), len(what))
        async with raw(rig, client, port=port) as connection:
            await connection.ask("GET", url)
            assert what.data == (await connection.answer()).body
            await connection.ask("GET", url, {"Range": "bytes=1000000-"})
            assert what.data[MB:] == (await connection.answer()).body
        async with raw(rig, client, receive_bytes=4_096, port=port) as slow:
            await slow.ask("GET", url)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await eventually(lambda: rig.deps.data.sender.cut_slow == 1, "it is cut")

    served(test, uv=uv, data_settings=DataSettings(stall_s=1.0))


@pytest.mark.parametrize(
    ("name", "said"),
    [("nope", "shows those there are"), ("blake3:12ab", "64 hex digits"), ("blake3:" + "a" * 64, "no bytes with")],
)
def test_what_is_not_there_says_whether_a_name_or_a_digest_is_wrong(name: str, said: str, uv: bool) -> None:
    """A table shows the first digits of a digest: they alone name nothing."""

    async def test(rig: Rig) -> None:
        got = await rig.get(f"/v1/artifacts/{name}", TENANT)
        assert "not_found" == got.code and said in f"{got.json['detail']} {got.json.get('hint')}"

    served(test, uv=uv)
