"""Providers, tokens and pools over HTTP: listed, changed, refused."""

from __future__ import annotations

import base64

import pytest

from coordinator import wire
from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import ProviderId
from coordinator.core.rows import Role
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, JOIN, Got, Rig, served


async def ids(rig: Rig, path: str) -> list[str]:
    """The ids on all pages of a list of providers."""
    found: list[str] = []
    page = ""
    while True:
        answer = (await rig.get(f"{path}{'&' if '?' in path else '?'}limit=2{page}")).json
        assert len(answer["entries"]) <= 2
        found += [entry["provider_id"] for entry in answer["entries"]]
        if answer["next_page"] is None:
            return found
        page = f"&page={answer['next_page']}"


def test_providers_are_listed_in_order_of_id_a_page_at_a_time() -> None:
    """Each provider once over all pages, also when one is forgotten and another comes between two pages."""

    async def test(rig: Rig) -> None:
        await rig.make_pool("gpu")
        for name in ("delta", "alpha", "charlie", "bravo", "echo"):
            await rig.enrol(name, pool="gpu" if name in ("alpha", "echo") else None)
        assert ["alpha", "bravo", "charlie", "delta", "echo"] == await ids(rig, "/v1/providers")
        assert ["alpha", "echo"] == await ids(rig, "/v1/providers?pool=gpu")
        assert [] == await ids(rig, "/v1/providers?pool=none")
        assert 5 == len(await ids(rig, "/v1/providers?liveness=never_seen,online"))
        assert [] == await ids(rig, "/v1/providers?liveness=online")
        first = (await rig.get("/v1/providers?limit=2")).json
        assert 204 == (await rig.ask("DELETE", "/v1/providers/bravo")).status
        await rig.enrol("bravo2")
        rest = (await rig.get(f"/v1/providers?limit=10&page={first['next_page']}")).json
        assert ["bravo2", "charlie", "delta", "echo"] == [entry["provider_id"] for entry in rest["entries"]]

    served(test)


def test_a_filtered_page_looks_at_a_bounded_number_of_providers() -> None:
    """However many do not match: a page ends early and says where to go on."""

    async def test(rig: Rig) -> None:
        await rig.make_pool("gpu")
        for i in range(9):
            await rig.enrol(f"p{i}", pool="gpu" if i == 8 else None)
        first = (await rig.get("/v1/providers?pool=gpu")).json
        assert [] == first["entries"] and first["next_page"] is not None
        assert ["p8"] == await ids(rig, "/v1/providers?pool=gpu")

    served(test, ApiSettings(examined_max=3))


def test_an_entry_tells_score_forecast_and_the_newest_heartbeat() -> None:
    """Figures that analytics published, and what the last heartbeat said, stand beside the provider."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        rig.engine.post(
            FiguresPublished(
                at_ms=rig.clock.now_ms(),
                computed_at_ms=rig.clock.now_ms(),
                horizons_ms=(3_600_000,),
                delays_ms=(),
                providers=(ProviderFigures(provider_id=ProviderId("a"), score=0.75),),
                fleet_stays=Curve(),
                fleet_returns=Curve(),
            )
        )
        view = rig.views.providers[ProviderId("a")]
        track = rig.writer.track(view.provider_id, view.key, "p1")
        received_ms = rig.clock.now_ms()
        rig.writer.offer(track, [wire.Heartbeat(seq=1, cpu_usage=0.5, clock_offset_ms=2.5)], received_ms)
        entry = (await rig.get("/v1/providers/a")).json
        assert 0.75 == entry["score"] and entry["forecast_8h"] is None
        assert 0.5 == entry["heartbeat"]["cpu_usage"] and 2.5 == entry["clock_offset_ms"]
        assert entry["heartbeat"]["observed_at"] == entry["last_heartbeat_at"]

    served(test)


def test_drain_and_resume_and_forget() -> None:
    """Each takes effect before its answer, is idempotent where it says so, and knows whom it does not know."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        until = "2099-01-01T00:00:00Z"
        drained = await rig.post("/v1/providers/a/drain", {"note": "disk swap", "away_until": until})
        assert (True, "disk swap", "2099-01-01T00:00:00.000Z") == tuple(
            drained.json[name] for name in ("drained", "drain_note", "away_until")
        )
        assert (await rig.get("/v1/providers/a")).json["drained"] is True
        assert 200 == (await rig.post("/v1/providers/a/drain")).status
        assert (await rig.post("/v1/providers/a/resume")).json["drained"] is False
        assert "bad_request" == (await rig.post("/v1/providers/a/drain", {"away_until": "2001-01-01T00:00:00Z"})).code
        assert "bad_request" == (await rig.post("/v1/providers/a/drain", {"note": "x\x1b[31m"})).code
        assert 204 == (await rig.ask("DELETE", "/v1/providers/a")).status
        for got in (
            await rig.ask("DELETE", "/v1/providers/a"),
            await rig.get("/v1/providers/a"),
            await rig.post("/v1/providers/a/drain"),
            await rig.post("/v1/providers/a/resume"),
        ):
            assert "not_found" == got.code

    served(test)


def enrolment(name: str = "a", machine: str = "m1", pool: str | None = None) -> dict[str, str]:
    body = {"provider_id": name, "machine_id": machine}
    return body if pool is None else {**body, "pool": pool}


def test_enrolment_gives_a_credential_that_speaks_for_that_provider_alone() -> None:
    """201 with a fresh credential; it renews its own enrolment, from its machine, and nobody else's."""

    async def test(rig: Rig) -> None:
        made = await rig.post("/v1/providers/enrol", enrolment(), JOIN)
        assert 201 == made.status and "default" == made.json["pool"]
        credential = made.json["credential"]
        assert Role.AGENT is rig.views.authenticate(credential, rig.clock.now_ms()).role  # type: ignore[union-attr]
        assert "conflict" == (await rig.post("/v1/providers/enrol", enrolment(), JOIN)).code
        assert "forbidden" == (await rig.post("/v1/providers/enrol", enrolment("b"), credential)).code
        assert "machine_mismatch" == (await rig.post("/v1/providers/enrol", enrolment("a", "m2"), credential)).code
        again = await rig.post("/v1/providers/enrol", enrolment(), credential)
        assert 201 == again.status
        assert 401 == (await rig.post("/v1/providers/enrol", enrolment(), credential)).status
        assert "not_found" == (await rig.post("/v1/providers/enrol", enrolment("c", pool="none"), JOIN)).code

    served(test)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "a" * 200, "\u00e4", "a\n", "<script>"])
def test_what_cannot_be_a_name_is_enrolled_under_none(name: str) -> None:
    """Names are safe in URLs, files, labels and terminals, or refused."""

    async def test(rig: Rig) -> None:
        got = await rig.post("/v1/providers/enrol", enrolment(name), JOIN)
        assert (
            400 == got.status and "bad_request" == got.code and b"<script>" not in got.headers["Content-Type"].encode()
        )

    served(test)


def test_tokens_are_made_listed_and_revoked_without_their_texts() -> None:
    """A text is in one answer alone; lists are paged, hide agents' credentials and never show a digest."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        made = await rig.post("/v1/tokens", {"role": "read-only", "note": "grafana"})
        assert 201 == made.status and made.json["token"].startswith("coord-read-only-")
        assert 200 == (await rig.get("/v1/pools", made.json["token"])).status
        seen: list[str] = []
        page = ""
        while True:
            got: Got = await rig.get(f"/v1/tokens?limit=2{page}")
            assert made.json["token"].encode() not in got.body and b"digest" not in got.body
            seen += [entry["token_id"] for entry in got.json["entries"]]
            if got.json["next_page"] is None:
                break
            page = f"&page={got.json['next_page']}"
        assert len(seen) == len(set(seen)) == 7 and made.json["entry"]["token_id"] in seen
        agents = (await rig.get("/v1/tokens?role=agent")).json["entries"]
        assert ["a"] == [entry["provider_id"] for entry in agents]
        assert 204 == (await rig.ask("DELETE", f"/v1/tokens/{made.json['entry']['token_id']}")).status
        assert 401 == (await rig.get("/v1/pools", made.json["token"])).status
        assert "conflict" == (await rig.ask("DELETE", "/v1/tokens/t-admin")).code
        assert "not_found" == (await rig.ask("DELETE", "/v1/tokens/none")).code

    served(test)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"role": "root"},
        {"role": "agent"},
        {"role": "tenant"},
        {"role": "admin", "tenant": "x"},
        {"role": "admin", "pool": "default"},
        {"role": "join", "expires_in_s": -1},
        {"role": "join", "expires_in_s": 1e300},
        {"role": "join", "note": "x" * 600},
        {"role": "join", "nots": "x"},
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(body: dict[str, object]) -> None:
    """400 with what is wrong, and no new token."""

    async def test(rig: Rig) -> None:
        before = len(rig.views.tokens)
        assert "bad_request" == (await rig.post("/v1/tokens", body)).code
        assert before == len(rig.views.tokens)

    served(test)


def test_a_join_token_carries_the_fingerprint_of_the_key() -> None:
    """With TLS the text ends in the pin, and the whole text is what enrols."""

    async def test(rig: Rig) -> None:
        text = (await rig.post("/v1/tokens", {"role": "join"})).json["token"]
        assert text.endswith(".pin") and 201 == (await rig.post("/v1/providers/enrol", enrolment(), text)).status

    served(test, ApiSettings(join_suffix=".pin"))


def test_pools_are_made_counted_and_deleted_when_unused() -> None:
    """`default` is always there; a pool with providers or join tokens stays."""

    async def test(rig: Rig) -> None:
        assert 201 == (await rig.post("/v1/pools", {"name": "gpu", "note": "lab"})).status
        assert "conflict" == (await rig.post("/v1/pools", {"name": "gpu"})).code
        await rig.enrol("a", pool="gpu")
        pools = {entry["name"]: entry["providers"] for entry in (await rig.get("/v1/pools")).json["entries"]}
        assert {"default": 0, "gpu": 1} == pools
        assert "conflict" == (await rig.ask("DELETE", "/v1/pools/gpu")).code
        await rig.ask("DELETE", "/v1/providers/a")
        assert 204 == (await rig.ask("DELETE", "/v1/pools/gpu")).status
        assert "not_found" == (await rig.ask("DELETE", "/v1/pools/gpu")).code
        assert "conflict" == (await rig.ask("DELETE", "/v1/pools/default")).code

    served(test)


@pytest.mark.parametrize(
    "page", ["x", "%ff", base64.urlsafe_b64encode(b'{"after":1}').decode(), "e30", "A" * 2_000, "bnVsbA"]
)
@pytest.mark.parametrize("path", ["/v1/providers", "/v1/tokens", "/v1/providers/a/sessions"])
def test_a_page_token_that_is_not_ours_is_refused(path: str, page: str) -> None:
    """Garbage, another list's token or an oversize one: 400, never 500."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        assert "bad_request" == (await rig.get(f"{path}?page={page}", ADMIN)).code

    served(test)
