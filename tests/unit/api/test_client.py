"""The client: every route through it, errors as the coordinator meant them, and nobody at the other end."""

from __future__ import annotations

import asyncio
import base64
import datetime
import gzip
import hashlib
import io
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from coordinator import wire
from coordinator.api_types.data import DataFile
from coordinator.api_types.operations import SqlAnswer
from coordinator.api_types.reliability import (
    Availability,
    Backtest,
    NetworkAvailability,
    ReliabilityAnswer,
    ReliabilityFilters,
    unobserved,
)
from coordinator.client import Client, every
from coordinator.client.traces import KINDS
from coordinator.core.commands import Put
from coordinator.core.data.rows import FileEntry, OutputRow
from coordinator.core.errors import Code, CoordError, Refusal
from coordinator.core.ids import Digest, JobId, TenantName
from coordinator.core.verdict.rows import VerdictRow
from coordinator.ports.analytics import (
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
    AskSql,
    Question,
)
from coordinator.ports.traces import TraceAnswer
from coordinator.service.api.openapi import ROUTES
from coordinator.service.api.route import SIGNED
from coordinator.service.api.routes.attempts import AGENTS
from coordinator.service.api.routes.launchers import launcher_routes
from coordinator.service.api.settings import ApiSettings
from coordinator.timetext import to_text
from tests.unit.api.rig import ADMIN, READER, Got, Rig, served
from tests.unit.api.worked import eventually
from tests.verdicts import a_verdict

T = TypeVar("T")
CSV = b"provider_id,connected_at,disconnected_at,disconnect_reason\nold,1547399272,1547405552,read_error\n"


async def off(call: Callable[[], T]) -> T:
    """The client blocks, so it runs beside the loop."""
    return await asyncio.to_thread(call)


FEATURES = unobserved("a", to_text(1_547_399_272_000))
GRID = tuple((0.5,) * 24 for _ in range(7))
ANSWERS: dict[type[Question], Any] = {
    AskFeatures: FEATURES,
    AskReliability: ReliabilityAnswer(
        filters=ReliabilityFilters(), as_of="x", computed_at="x", providers=1, matched=1, entries=(FEATURES,)
    ),
    AskForecast: None,
    AskNetwork: NetworkAvailability(
        window_days=14.0,
        as_of="x",
        providers=0,
        mean_uptime_pct=None,
        p10_uptime_pct=None,
        p50_uptime_pct=None,
        p90_uptime_pct=None,
        highly_reliable=0,
    ),
    AskAvailability: Availability(
        provider_id="a",
        as_of="x",
        window_days=14.0,
        time_zone="UTC",
        hourly_availability=GRID,
        observed_seconds=GRID,
        uptime_pct=0.5,
    ),
    AskBacktest: Backtest(
        from_=None, to=None, cuts=0, every_s=1.0, window_s=1.0, model="constant", horizons=(), note="too little"
    ),
    AskSql: SqlAnswer(columns=("n",), types=("INTEGER",), entries=((1,),), truncated=False, elapsed_s=0.1),
}


def use_jobs(client: Client) -> None:
    """Every call about work."""
    body = {"command": ["true"], "array": "1-2"}
    job = client.jobs.submit(body, tenant="physics", idempotency_key="k")
    assert job == client.jobs.submit(body, tenant="physics", idempotency_key="k") and "physics" == job.tenant
    assert 2 == client.jobs.preview(body).tasks
    assert [job.job_id] == [e.job_id for p in every(lambda at: client.jobs.list(limit=1, page=at)) for e in p.entries]
    assert "main" == client.jobs.show(job.job_id).steps[0].name
    assert () == client.jobs.tasks(job.job_id, step=0, state="failed,running", attempts=True).entries
    assert "never" == client.jobs.why(job.job_id).steps[0].verdict
    assert "pending" == client.jobs.wait(job.job_id, timeout_s=0.01).state
    assert "pending" == client.jobs.cancel(job.job_id, task="0.1", why="one").state
    assert "cancelled" == client.jobs.cancel(job.job_id).state == client.jobs.wait(job.job_id).state
    assert not list(client.jobs.logs(job.job_id, tail=10)) and not list(client.jobs.follow(job.job_id, tail="1m"))
    assert "pending" == client.jobs.retry(job.job_id).state
    happened = client.audit(job_id=job.job_id, limit=1000).entries
    events = client.events(job_id=job.job_id, after=0)
    assert list(reversed(happened)) == [next(events) for _ in happened]
    events.close()  # type: ignore[attr-defined]
    assert 2 == client.nodepools().entries[0].queued
    for kind in KINDS:
        assert [{"a": 1}, {"b": 2}, {"c": 3}] == list(client.traces.fetch(job.job_id, kind))
    assert b"<html>" == client.traces.page(job.job_id)


def use_artifacts(client: Client, beneath: Path) -> DataFile:
    """Bytes there and back; the file that was stored."""
    file = beneath / "file"
    file.write_bytes(b"data")
    made = client.artifacts.put(file, "x")
    assert ["x"] == [e.name for p in every(lambda at: client.artifacts.list(limit=1, page=at)) for e in p.entries]
    assert 4 == client.artifacts.get("x", beneath / "back").size
    waiting = client.artifacts.uploads.open(5, "0" * 64)
    assert waiting.id is not None and {"0" * 64} == client.artifacts.uploads.missing(["0" * 64, made.digest])
    client.artifacts.uploads.drop(waiting.id)
    client.artifacts.remove("x")
    return DataFile(path="deep/file", digest=made.digest, size=4, executable=False)


async def use_results(rig: Rig, client: Client, file: DataFile, beneath: Path) -> None:
    """A job's result, as if one of its tasks had published it."""
    job = await off(lambda: client.jobs.submit({"command": ["true"], "outputs": ["**"]}))
    entry = FileEntry(path=file.path, digest=Digest(file.digest), size=file.size)
    result = OutputRow(
        job_id=JobId(job.job_id), step=0, task=0, attempt=1, tenant=TenantName("default"), at_ms=0, files=(entry,),
        size=file.size,
    )  # fmt: skip
    verdict = VerdictRow(
        job_id=JobId(job.job_id), step=0, task=0, attempt=1, at_ms=0, late=False, verdict=a_verdict()
    )  # fmt: skip
    await rig.store.commit([Put(result), Put(verdict)])
    assert verdict.verdict == (await off(lambda: client.jobs.verdict(f"{job.job_id}.0.0.1"))).verdict
    assert ("**",) == (await off(lambda: client.jobs.data(job.job_id))).inputs[0].outputs
    assert await off(lambda: client.jobs.get_output(job.job_id, "0.0", file, beneath / "result"))
    assert b"data" == (beneath / "result" / "deep" / "file").read_bytes()


def use_tenants(client: Client) -> None:
    """Everything of tenants once."""
    made = client.tenants.create("lab", quota={"cpus": 5_000_000})
    assert ("lab", 5_000_000, None) == (made.name, made.quota["cpus"], made.quota["gpus"])
    changed = client.tenants.change("lab", weight=3, quota={"cpus": None})
    assert (3, None) == (changed.weight, changed.quota["cpus"]) and changed == client.tenants.show("lab")
    assert "lab" in {e.name for p in every(lambda page: client.tenants.list(limit=1, page=page)) for e in p.entries}
    assert ["lab"] == [entry.tenant for entry in client.tenants.usage("lab").entries]
    assert () == client.tenants.ledger(tenant="lab", month=202701, job_id=1).entries
    assert ("pool", ()) == ((sums := client.tenants.usage_by("pool", tenant="lab")).by, sums.entries)
    client.tenants.delete("lab")


def test_every_route_but_the_agents_is_reached_through_the_client(tmp_path: Path) -> None:
    """Each call gives its struct; together they take every route of the table."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        for kind, answer in ANSWERS.items():
            rig.analytics.says(kind, answer)
        rig.analytics.computed_at_ms = rig.clock.now_ms() - 3_000

        rig.traces.lines = [b'{"a":1}\n{"b":2}\n', b'{"c":3}\n']
        rig.traces.answer = TraceAnswer(body=b"<html>", cached=False)

        def use() -> None:
            with Client(rig.url, ADMIN) as client:
                assert "ok" == client.healthz().status == client.readyz().status
                assert "a" == client.reliability(min_score=0.0, horizon="8h").entries[0].provider_id
                age_s = client.age_s
                assert age_s in (3, 4, 5)
                assert "never_observed" in client.liveness("a", time_zone="UTC").flags
                assert not (client.sessions("a").entries or client.heartbeats("a").entries or client.hours("a").entries)
                assert client.age_s is None
                assert client.forecast("a") is None
                assert GRID == client.availability("a").hourly_availability == client.availability().hourly_availability
                assert 0 == client.network().providers
                assert "too little" == client.backtest(horizons="8h", from_="0").note
                assert ((1,),) == client.sql("select 1").entries
                assert ["a"] == [entry.provider_id for entry in client.providers().entries]
                assert "never_seen" == client.provider("a").liveness
                assert client.drain("a", note="x").drained and not client.resume("a").drained
                made = client.create_token(role="read-only")
                assert made.entry.token_id in {
                    e.token_id for p in every(lambda page: client.tokens(limit=1, page=page)) for e in p.entries
                }
                client.revoke_token(made.entry.token_id)
                assert "gpu" == client.create_pool("gpu", "lab").name
                assert ["default", "gpu"] == [entry.name for entry in client.pools().entries]
                assert 7 == client.price_pool("gpu", cpu=7).price.cpu
                client.delete_pool("gpu")
                assert 1 == client.import_sessions(io.BytesIO(CSV)).added
                assert () == client.alerts().entries and "closed" == client.transfers().state
                assert Path(client.backup("b").path).is_dir()
                assert () == client.check().problems
                assert "# TYPE coord_info gauge" in client.metrics()
                assert "3.1.0" == client.openapi()["openapi"]
                client.forget("a")
                rig.alerts.fire("disk", "data", "full")
                assert "token:t-admin" == client.acknowledge(client.alerts().entries[0].id).acknowledged_by
                use_tenants(client)
                use_jobs(client)

        await off(use)
        with Client(rig.url, ADMIN) as client:
            file = await off(lambda: use_artifacts(client, tmp_path))
            await use_results(rig, client, file, tmp_path)
        for last in (
            "/v1/events",
            "/v1/jobs/{id}/outputs/{path}",
        ):  # counted when it is over, which its reader may be first
            counted = f'route="{last}",status="20'.encode()
            await eventually(lambda counted=counted: counted in rig.deps.metrics.render(), f"the end of {last}")  # type: ignore[misc]
        metrics = (await rig.get("/metrics")).body.decode()
        for route in rig.app[ROUTES]:
            agents = route.path in (wire.CONNECT_PATH, wire.ENROL_PATH) or AGENTS == route.roles
            # Blobs are for agents; of uploads whoever sends is told without asking, unless the connection breaks.
            agents |= route.roles == SIGNED and route.method != "PUT"
            # Launchers have clients of their own.
            agents |= route.path in {one.path for one in launcher_routes()}
            # Traces are sent by agents, and by OpenTelemetry's own exporters.
            agents |= route.path.startswith("/v1/traces") and route.method == "POST"
            if not agents and route.path != "/metrics":
                assert f'method="{route.method}",route="{route.path}",status="20' in metrics, route.path

    served(test, ApiSettings(backups=tmp_path, streams_idle_s=0.05))


def test_a_refusal_arrives_as_the_coordinator_meant_it() -> None:
    """Code, message and hint are the same at both ends; the connection goes on."""

    async def test(rig: Rig) -> None:
        def use() -> None:
            with Client(rig.url, READER) as client:
                for call, code in (
                    (lambda: client.provider("nobody"), Code.NOT_FOUND),
                    (lambda: client.create_pool("x"), Code.FORBIDDEN),
                    (lambda: client.sessions("a", window="8d"), Code.BAD_REQUEST),
                    (lambda: client.provider("../tokens"), Code.NOT_FOUND),
                ):
                    with pytest.raises(CoordError) as caught:
                        call()
                    assert code is caught.value.code and caught.value.hint
                assert client.pools().entries
            with pytest.raises(CoordError) as caught, Client(rig.url, "") as stranger:
                stranger.pools()
            assert Code.UNAUTHENTICATED is caught.value.code
            with pytest.raises(CoordError) as caught, Client(rig.url, ADMIN) as admin:
                admin.tenants.create("full", quota={"queued": 0, "egress": 1_000})
                admin.jobs.submit({"command": ["true"], "estimate": {"egress": "2kB"}}, tenant="full")
            assert Code.QUOTA is caught.value.code
            figures = {"used": 0, "reserved": 0}
            assert (
                Refusal(dimension="queued", request=1, limit=0, guardrail=0, **figures),
                Refusal(dimension="egress", request=2_000, limit=1_000, guardrail=900, **figures),
            ) == caught.value.refusals

        await off(use)

    served(test)


def test_one_connection_is_kept_and_replaced_when_the_server_let_go() -> None:
    """Many calls, one socket; when it was closed meanwhile the call is sent again, and a POST only counts once."""

    async def test(rig: Rig) -> None:
        with Client(rig.url, ADMIN) as client:
            for _ in range(5):
                await off(client.pools)
            (connection,) = rig.connections()
            assert connection.transport is not None
            connection.transport.abort()
            assert "p" == (await off(lambda: client.create_pool("p"))).name
            assert rig.connections() and connection not in rig.connections()
        assert {"default", "p"} == {e["name"] for e in (await rig.get("/v1/pools")).json["entries"]}

    served(test)


def test_an_import_tells_how_far_it_is_and_reads_pipes_too() -> None:
    """Progress rises to the file's size; what cannot be rewound is taken, too."""

    async def test(rig: Rig) -> None:
        body = CSV + b"".join(b"p%d,1547399272,1547405552,\n" % i for i in range(30_000))
        seen: list[int] = []

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def tell(self) -> int:
                raise OSError("not seekable")

        def use() -> None:
            with Client(rig.url, ADMIN) as client:
                assert 30_001 == client.import_sessions(io.BytesIO(body), seen.append).added
                assert 30_001 == client.import_sessions(Pipe(gzip.compress(body))).unchanged

        await off(use)
        assert len(body) == seen[-1] and sorted(seen) == seen and len(seen) > 2

    served(test)


def test_a_refused_upload_tells_why_though_the_server_stopped_listening() -> None:
    """The answer is read even when the rest of the body could not be sent."""

    async def test(rig: Rig) -> None:
        def use() -> None:
            with Client(rig.url, READER) as client:
                with pytest.raises(CoordError) as caught:
                    client.import_sessions(io.BytesIO(b"x" * 3_000_000))
                assert Code.FORBIDDEN is caught.value.code
            with Client(rig.url, ADMIN) as client:
                with pytest.raises(CoordError) as caught:
                    client.import_sessions(io.BytesIO(b"x" * 3_000_000))
                assert Code.TOO_LARGE is caught.value.code

        await off(use)

    served(test, ApiSettings(import_sent_bytes_max=1_000_000))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def babbler() -> Iterator[str]:
    """A server that is no coordinator."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def babble() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html>hi</html")

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_nobody_at_the_other_end_is_said_so_with_what_to_do(babbler: str) -> None:
    """Refused, unresolvable, silent, or something else altogether: UNREACHABLE or TIMEOUT with a hint."""
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid:7070", babbler):
        with pytest.raises(CoordError) as caught, Client(url, ADMIN) as client:
            client.pools()
        assert Code.UNREACHABLE is caught.value.code and caught.value.hint
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CoordError) as caught, Client(url, ADMIN, timeout_s=0.2) as client:
            client.pools()
        assert Code.TIMEOUT is caught.value.code


def test_tls_to_a_plain_port_is_said_so() -> None:
    """The hint is the address with the other scheme."""

    async def test(rig: Rig) -> None:
        def use() -> None:
            with pytest.raises(CoordError) as caught, Client(rig.url.replace("http", "https"), ADMIN) as client:
                client.healthz()
            assert "does not speak TLS" in caught.value.message and f"write {rig.url}" in caught.value.hint

        await off(use)

    served(test)


@pytest.mark.parametrize("name", ["", "x/y", "..", "reliability", "enrol"])
def test_what_cannot_be_a_provider_is_not_found_and_nothing_is_asked(name: str) -> None:
    """A word of the API in the place of an id would be another question, with another answer."""
    with Client(f"http://127.0.0.1:{free_port()}", ADMIN) as client, pytest.raises(CoordError) as caught:
        client.provider(name)
    assert Code.NOT_FOUND is caught.value.code
    assert (name or "''") in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "url", ["", "localhost:7070", "ftp://x", "http://", "http://h:99999", "http://h/path", "http://h:x"]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """BAD_CONFIG that says how to write one."""
    with pytest.raises(CoordError) as caught:
        Client(url, ADMIN)
    assert Code.BAD_CONFIG is caught.value.code


def certificate(directory: Path, name: str) -> tuple[Path, Path, str]:
    """A self-signed certificate for 127.0.0.1, its key, and the key's fingerprint."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = directory / f"{name}.pem", directory / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    info = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem, secret, base64.urlsafe_b64encode(hashlib.sha256(info).digest()).rstrip(b"=").decode()


def test_tls_is_trusted_by_authority_or_by_key_and_a_stranger_never_sees_the_token(tmp_path: Path) -> None:
    """The right CA or pin is served; no CA, another CA or another pin is refused before anything is sent."""
    pem, key, pin = certificate(tmp_path, "ours")
    other_pem, _, other_pin = certificate(tmp_path, "other")
    seen: list[Got] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(Got(0, request.headers, b""))
        return web.json_response({"status": "ok"})

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/healthz", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"

        def use() -> None:
            for options in ({"ca": pem}, {"pin": pin}):
                with Client(url, ADMIN, **options) as client:
                    assert "ok" == client.healthz().status
            served_before = len(seen)
            for options in ({}, {"ca": other_pem}, {"pin": other_pin}, {"pin": ""}):
                with pytest.raises(CoordError) as caught, Client(url, ADMIN, **options) as client:
                    client.healthz()
                assert Code.UNREACHABLE is caught.value.code
            with pytest.raises(CoordError) as caught, Client(url, ADMIN) as client:
                client.healthz()
            assert "not trusted" in caught.value.message and "--ca" in caught.value.hint
            with pytest.raises(CoordError) as caught, Client(url.replace("https", "http"), ADMIN) as client:
                client.healthz()
            assert "speaks TLS" in caught.value.message and f"write {url}" in caught.value.hint
            assert 2 == served_before == len(seen)
            with pytest.raises(CoordError) as caught:
                Client(url, ADMIN, ca=key)
            assert Code.BAD_CONFIG is caught.value.code
            with pytest.raises(CoordError, match=r"no certificate file .*none\.pem"):
                Client(url, ADMIN, ca=tmp_path / "none.pem")

        try:
            await off(use)
        finally:
            await runner.cleanup()

    asyncio.run(run())


@pytest.mark.alone
def test_the_client_is_quick_to_import() -> None:
    """Neither aiohttp nor cryptography nor anything of the service comes along."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, coordinator.client; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {
        "aiohttp",
        "asyncio",
        "cryptography",
        "duckdb",
        "numpy",
        "uvloop",
        "coordinator.service",
        "coordinator.wire",
    }
    assert not heavy & set(said)
