"""Traces over HTTP: OTLP to the letter, whose rows are whose, bounds, answers that are never a part of the whole."""

from __future__ import annotations

import asyncio
import gzip
import io
import shutil
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from coordinator import wire_traces as w
from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId, ProviderId, dotted
from coordinator.core.rows import AttemptState, LeaseToken, RankRow, Role
from coordinator.ports.traces import AskTrace, Taken, TraceAnswer, TraceKind
from coordinator.service.traces import TraceDoorSettings
from tests.unit.api.rig import ADMIN, READER, TENANT, Rig, served
from tests.unit.api.worked import Work, eventually

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}


def response_of(body: bytes) -> tuple[int, str]:
    """(rejected_spans, error_message) of an answer, read by OpenTelemetry's own messages."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    told = ExportTraceServiceResponse.FromString(body)
    return told.partial_success.rejected_spans, told.partial_success.error_message


def status_of(body: bytes) -> tuple[int, str]:
    """(code, message) of a google.rpc.Status, read by Google's own."""
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

    told = Status.FromString(body)
    return told.code, told.message


def test_an_export_is_handed_on_as_it_came_and_answered_in_its_encoding() -> None:
    """Protobuf and JSON, packed or not: empty answers, for everything was accepted."""

    async def test(rig: Rig) -> None:
        packed = {"Content-Encoding": "gzip"}
        for headers, body in ((PROTOBUF, b"\x0a\x00"), (JSON, b"{}"), (PROTOBUF | packed, gzip.compress(b"\x0a\x00"))):
            got = await rig.ask("POST", "/v1/traces", TENANT, data=body, headers=headers)
            assert (200, headers["Content-Type"]) == (got.status, got.headers["Content-Type"].partition(";")[0])
            assert (b"{}" if headers == JSON else b"") == got.body
            upload, held = rig.traces.bodies[-1]
            assert (body, "physics", 1, len(body)) == (held, upload.tenant, len(upload.parts), upload.parts[0].size)
        forms = [(one.parts[0].form, one.parts[0].encoding) for one, _ in rig.traces.bodies]
        assert [("otlp_protobuf", ""), ("otlp_json", ""), ("otlp_protobuf", "gzip")] == forms
        assert None is rig.traces.bodies[-1][0].parts[0].job_id
        await rig.ask("POST", "/v1/traces", ADMIN, data=b"{}", headers=JSON)
        assert None is rig.traces.bodies[-1][0].tenant, "an admin may name anybody's job"
        assert [] == list(rig.deps.traces.directory.iterdir()), "no upload outlives its request"

    served(test)


def test_partial_success_is_told() -> None:
    """How many spans were not kept, and why, in both encodings; it is 200 all the same."""

    async def test(rig: Rig) -> None:
        rig.traces.taken = Taken(accepted=5, rejected=300, dropped=2, why="the trace is no job's: é")
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"", headers=PROTOBUF)
        assert (200, (302, "the trace is no job's: é")) == (got.status, response_of(got.body))
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"", headers=JSON)
        told = {"partialSuccess": {"rejectedSpans": "302", "errorMessage": "the trace is no job's: é"}}
        assert (200, told) == (got.status, got.json)

    served(test)


@pytest.mark.parametrize(
    ("code", "status", "again"),
    [
        (Code.BAD_REQUEST, 400, False),
        (Code.TOO_LARGE, 413, False),
        (Code.TOO_MANY, 429, True),
        (Code.ANALYTICS_UNAVAILABLE, 503, True),
        (Code.STORE_FULL, 503, True),
        (Code.TIMEOUT, 504, True),
    ],
)
def test_what_may_be_sent_again_says_so_and_what_may_not_does_not(code: Code, status: int, again: bool) -> None:
    """The statuses that exporters know, with Retry-After; a full disk is one of them. The body is google.rpc.Status."""

    async def test(rig: Rig) -> None:
        rig.traces.fail = CoordError(code, "it is so", "do this")
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"", headers=PROTOBUF)
        assert (status, again) == (got.status, "Retry-After" in got.headers)
        assert "application/x-protobuf" == got.headers["Content-Type"]
        number, message = status_of(got.body)
        assert number > 0 and "it is so (do this)" == message
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"", headers=JSON)
        assert {"code": number, "message": message} == got.json

    served(test)


def test_what_is_no_export_is_refused_before_it_is_read() -> None:
    """Another type, another packing, too much: 400 and 413; nothing is handed on."""

    async def test(rig: Rig) -> None:
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"x", headers={"Content-Type": "text/plain"})
        assert (400, "bad_request") == (got.status, got.code)
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"x", headers=PROTOBUF | {"Content-Encoding": "br"})
        assert 400 == got.status and "gzip" in status_of(got.body)[1]
        got = await rig.ask("POST", "/v1/traces", TENANT, data=b"x" * 101, headers=PROTOBUF)
        assert 413 == got.status

        async def endless() -> AsyncGenerator[bytes, None]:
            for _ in range(20):
                yield b"x" * 10

        async with rig.http.post(
            f"{rig.url}/v1/traces", data=endless(), headers=PROTOBUF | {"Authorization": f"Bearer {TENANT}"}
        ) as response:
            assert 413 == response.status, "also where its size was not announced"
        assert [] == rig.traces.bodies

    served(test, trace_settings=TraceDoorSettings(body_bytes_max=100))


def test_a_sender_that_is_ahead_of_its_rate_waits_and_another_one_does_not() -> None:
    """429 with when to come again; after that time it may."""

    async def test(rig: Rig) -> None:
        body = b"x" * 50_000
        assert 200 == (await rig.ask("POST", "/v1/traces", TENANT, data=body, headers=JSON)).status
        late = await rig.ask("POST", "/v1/traces", TENANT, data=body, headers=JSON)
        assert (429, "30") == (late.status, late.headers["Retry-After"])
        assert 200 == (await rig.ask("POST", "/v1/traces", ADMIN, data=body, headers=JSON)).status
        rig.clock.ahead_ms = 31_000
        assert 200 == (await rig.ask("POST", "/v1/traces", TENANT, data=body, headers=JSON)).status

    served(test, trace_settings=TraceDoorSettings(burst_bytes=20_000, bytes_per_s=1_000))


def test_so_many_uploads_at_a_time() -> None:
    """Of a sender, and of everybody's bytes together; of a sender one at a time is taken in: nobody's many stand before
    another's."""

    async def test(rig: Rig) -> None:
        rig.traces.gate.clear()
        waiting = [asyncio.ensure_future(rig.ask("POST", "/v1/traces", TENANT, data=b"{}", headers=JSON)) for _ in "12"]
        await eventually(lambda: rig.deps.traces.under_way("tenant:physics") == 2, "both are under way")
        assert 429 == (await rig.ask("POST", "/v1/traces", TENANT, data=b"{}", headers=JSON)).status
        assert 429 == (await rig.ask("POST", "/v1/traces", ADMIN, data=b"x" * 100, headers=JSON)).status
        others = asyncio.ensure_future(rig.ask("POST", "/v1/traces", ADMIN, data=b"{}", headers=JSON))
        await eventually(lambda: len(rig.traces.bodies) == 2, "another sender's is taken in beside the first one's")
        assert ["physics", None] == [body.tenant for body, _ in rig.traces.bodies]
        rig.traces.gate.set()
        assert 200 == (await others).status
        assert [200, 200] == [got.status for got in await asyncio.gather(*waiting)]
        assert 200 == (await rig.ask("POST", "/v1/traces", TENANT, data=b"{}", headers=JSON)).status

    served(test, trace_settings=TraceDoorSettings(bodies_per_sender_max=2, waiting_bytes_max=100))


@pytest.mark.parametrize("kind", ["spans", "assets", "lineage"])
def test_rows_of_a_task_are_for_its_tenant(kind: TraceKind) -> None:
    """Its own task, one that there is; others' are like those that never were; a reader writes nothing."""

    async def test(rig: Rig) -> None:
        job = Work(rig, 12, tasks=3)
        await job.begin()
        await Work(rig, 13, "biology").begin()
        at = "/v1/traces/tasks/{}/" + kind
        rig.traces.taken = Taken(accepted=2, rejected=1, why="line 3")
        got = await rig.ask("POST", at.format("12.0.2"), TENANT, data=b"{}\n{}\nx")
        assert {"accepted": 2, "rejected": 1, "dropped": 0, "message": "line 3"} == got.json
        (part,) = rig.traces.bodies[-1][0].parts
        assert (12, "12.0.2", kind) == (part.job_id, part.task, part.form)
        for missing in ("12.0.3", "12.1.0", "13.0.0", "99.0.0", "12.0", "12.0.0.1", "x"):
            assert 404 == (await rig.ask("POST", at.format(missing), TENANT, data=b"")).status, missing
        assert 200 == (await rig.ask("POST", at.format("13.0.0"), ADMIN, data=b"")).status
        assert 403 == (await rig.ask("POST", at.format("12.0.2"), READER, data=b"")).status

    served(test)


async def changed(work: Work, attempt: AttemptId, **more: Any) -> None:
    """The attempt stands otherwise from now on."""
    row = work.attempts[attempt] = msgspec.structs.replace(work.attempts[attempt], **more)
    await work.rig.store.commit([Put(row)])


def a_part(attempt: AttemptId, token: LeaseToken, data: bytes, rank: int = 0, kind: w.Kind = "spans") -> bytes:
    return w.encoded(w.Part(attempt=dotted(attempt), rank=rank, token=token, kind=kind, size=len(data)), data)


def test_agents_send_for_attempts_that_they_hold_or_held() -> None:
    """Each part by its own attempt, rank and token: those that fit are handed on with whose they are, together; of the
    others their attempts are told, and they are not looked at."""

    async def test(rig: Rig) -> None:
        credential = await rig.enrol("p0")
        work = Work(rig, 12, tasks=4)
        await work.begin()
        mine = await work.start(0)
        lost = await work.start(1)
        theirs = await work.start(2)
        token = work.attempts[mine].token
        await changed(work, lost, state=AttemptState.LOST)
        await changed(work, theirs, ranks=(RankRow(provider_id=ProviderId("p9")),))
        never = (JobId(12), 0, 3, 1)
        parts = [
            a_part(mine, token, b"one"),
            a_part(lost, work.attempts[lost].token, b"lost"),
            a_part(theirs, work.attempts[theirs].token, b"theirs"),
            a_part(mine, token, b"two", kind="lineage"),
            a_part(never, token, b"never"),
        ]
        got = await rig.ask("POST", w.PATH, credential, data=b"".join(parts), headers={"Content-Type": w.CONTENT_TYPE})
        assert 200 == got.status, got.body
        refused = {dotted(one): "stale_token" for one in (lost, theirs, never)}
        assert {"taken": 2, "rejected": 0, "refused": refused} == got.json
        upload, data = rig.traces.bodies[-1]
        assert b"onetwo" == data
        handed = [(part.form, part.at, part.size, part.task, part.attempt, part.provider) for part in upload.parts]
        assert [("spans", 0, 3, "12.0.0", 1, "p0"), ("lineage", 3, 3, "12.0.0", 1, "p0")] == handed
        wrong = [(mine, LeaseToken(1, 9_999), 0), (mine, token, 1)]
        for attempt, given, rank in wrong:
            got = await rig.ask("POST", w.PATH, credential, data=a_part(attempt, given, b"x", rank))
            assert {dotted(mine): "stale_token"} == got.json["refused"]
        assert 1 == len(rig.traces.bodies)

    served(test)


def test_an_attempts_spans_are_taken_until_a_day_after_its_end() -> None:
    """Rows of its trace directory come when it is over; a month later nobody waits for them."""

    async def test(rig: Rig) -> None:
        credential = await rig.enrol("p0")
        work = Work(rig, 12)
        await work.begin()
        mine = await work.start(0)
        now_ms = rig.clock.now_ms()
        body = a_part(mine, work.attempts[mine].token, b"x")
        await changed(work, mine, state=AttemptState.COMPLETED, ended_at_ms=now_ms)
        assert {} == (await rig.ask("POST", w.PATH, credential, data=body)).json["refused"]
        await changed(work, mine, ended_at_ms=now_ms - 25 * 3_600_000)
        assert {dotted(mine): "stale_token"} == (await rig.ask("POST", w.PATH, credential, data=body)).json["refused"]

    served(test)


def test_what_agents_send_is_bounded_and_a_full_disk_is_no_reason_to_throw_it_away() -> None:
    """No parts: 400; too much: 413; the disk: 503, to be sent again. Nobody else may use that door."""

    async def test(rig: Rig) -> None:
        credential = await rig.enrol("p0")
        assert 400 == (await rig.ask("POST", w.PATH, credential, data=b"no parts")).status
        assert 413 == (await rig.ask("POST", w.PATH, credential, data=io.BytesIO(bytes(w.BODY_BYTES_MAX + 1)))).status
        for token in (ADMIN, TENANT, READER):
            assert 403 == (await rig.ask("POST", w.PATH, token, data=b"")).status
        work = Work(rig, 12)
        await work.begin()
        mine = await work.start(0)
        rig.traces.fail = CoordError(Code.STORE_FULL, "no room")
        got = await rig.ask("POST", w.PATH, credential, data=a_part(mine, work.attempts[mine].token, b"x"))
        assert (503, "analytics_unavailable") == (got.status, got.code)
        assert "Retry-After" in got.headers

    served(test)


def test_a_disk_without_room_for_a_body_is_503_at_every_door_and_refusals_are_counted() -> None:
    """Nothing of the body could be laid aside: come again, in the words that each door has for it."""

    async def test(rig: Rig) -> None:
        work = Work(rig, 12)
        await work.begin()
        mine = await work.start(0)
        shutil.rmtree(rig.deps.traces.directory)
        credential = await rig.enrol("p1")
        for path, token, body, headers in (
            ("/v1/traces", TENANT, b"x", PROTOBUF),
            (f"/v1/traces/tasks/{dotted(mine[:3])}/spans", TENANT, b"{}", {}),
            (w.PATH, credential, b"x", {}),
        ):
            got = await rig.ask("POST", path, token, data=body, headers=headers)
            assert (503, True) == (got.status, "Retry-After" in got.headers)
        assert {"store_full": 3} == rig.deps.traces.counters.refused

    served(test)


def test_rows_come_as_they_are_made_and_only_to_who_may_see_the_job() -> None:
    """A refusal comes before the answer begins."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        await Work(rig, 13, "biology").begin()
        rig.traces.lines = [b'{"n":1}\n', b'{"n":2}\n']
        got = await rig.get("/v1/traces/workflows/12/spans", TENANT)
        assert (200, b'{"n":1}\n{"n":2}\n') == (got.status, got.body)
        assert "application/x-ndjson" == got.headers["Content-Type"]
        for path in ("13/spans", "14/assets", "x/lineage"):
            assert 404 == (await rig.get(f"/v1/traces/workflows/{path}", TENANT)).status
        assert 200 == (await rig.get("/v1/traces/workflows/13/spans", READER)).status
        rig.traces.fail = CoordError(Code.ANALYTICS_UNAVAILABLE, "away")
        got = await rig.get("/v1/traces/workflows/12/spans", TENANT)
        assert (503, "analytics_unavailable") == (got.status, got.code)

    served(test)


def test_an_analysis_is_of_jobs_that_may_be_seen() -> None:
    """The one in the path and the one that it is compared with; what is asked is handed on."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        await Work(rig, 13, "biology").begin()
        await Work(rig, 14).begin()
        at = "/v1/traces/workflows/analyze"
        rig.traces.answer = TraceAnswer(body=b'{"x":1}', cached=False)
        got = await rig.get(f"{at}/12", TENANT)
        assert (200, {"x": 1}, "application/json") == (got.status, got.json, got.headers["Content-Type"])
        assert 200 == (await rig.get(f"{at}/12?other=14", TENANT)).status
        assert 200 == (await rig.get(f"{at}/12?slots=4&without=12.0.0,12.0.1", TENANT)).status
        assert 200 == (await rig.get(f"{at}/12?rows=0", TENANT)).status
        job = JobId(12)
        whatif = AskTrace(job_id=job, slots=4, without=("12.0.0", "12.0.1"))
        whole = AskTrace(job_id=job, rows=0)
        assert [AskTrace(job_id=job), AskTrace(job_id=job, other=JobId(14)), whatif, whole] == rig.traces.asked
        for path in ("13", "99", "12?other=13", "12?other=99"):
            assert 404 == (await rig.get(f"{at}/{path}", TENANT)).status, path
        for query in (
            "format=xml",
            "other=14&slots=1",
            "format=html&other=14",
            "slots=0",
            "rows=-1",
            f"other={10**20}",
            f"without={'1,' * 65}",
        ):
            assert 400 == (await rig.get(f"{at}/12?{query}", TENANT)).status, query

    served(test)


def test_a_page_says_itself_what_it_may_do() -> None:
    """Its policy is the one on the answer; everything else keeps the strict one."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        rig.traces.answer = TraceAnswer(body=b"<html>", cached=True, policy="default-src 'none'; script-src 'sha256-x'")
        got = await rig.get("/v1/traces/workflows/analyze/12?format=html", TENANT)
        assert ("text/html; charset=utf-8", b"<html>") == (got.headers["Content-Type"], got.body)
        assert "default-src 'none'; script-src 'sha256-x'" == got.headers["Content-Security-Policy"]
        assert "nosniff" == got.headers["X-Content-Type-Options"]

    served(test)


def test_one_analysis_of_a_tenant_at_a_time() -> None:
    """Others of it wait, too many are refused, another tenant does not wait for it."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        await Work(rig, 13, "biology").begin()
        other = await rig.tenant_token("biology", Role.TENANT)
        rig.traces.gate.clear()
        at = "/v1/traces/workflows/analyze"
        mine = [asyncio.ensure_future(rig.get(f"{at}/12", TENANT)) for _ in range(2)]
        await eventually(lambda: rig.deps.traces.waiting("physics") == 2, "one waits for the other")
        theirs = asyncio.ensure_future(rig.get(f"{at}/13", other))
        await eventually(lambda: len(rig.traces.asked) == 2, "another tenant's is made")
        assert [12, 13] == [one.job_id for one in rig.traces.asked]
        assert 429 == (await rig.get(f"{at}/12", TENANT)).status
        rig.traces.gate.set()
        assert [200] * 3 == [got.status for got in await asyncio.gather(*mine, theirs)]

    served(test, trace_settings=TraceDoorSettings(analyses_per_tenant_max=2))


def test_a_sender_has_a_share_of_what_may_be_under_way() -> None:
    """Whoever opens uploads without a length reserves a quarter of all with them, and others go on."""

    async def test(rig: Rig) -> None:
        hold = asyncio.Event()

        async def slowly() -> AsyncGenerator[bytes, None]:
            yield b"{"
            await hold.wait()
            yield b"}"

        def post(token: str, data: Any) -> asyncio.Future[Any]:
            return asyncio.ensure_future(rig.ask("POST", "/v1/traces", token, data=data, headers=JSON))

        door = rig.deps.traces
        slow = [post(TENANT, slowly()) for _ in range(2)]
        await eventually(lambda: door.under_way("tenant:physics") == 2, "two are under way")
        assert 429 == (await rig.ask("POST", "/v1/traces", TENANT, data=b"{}", headers=JSON)).status
        assert 200 == (await rig.ask("POST", "/v1/traces", ADMIN, data=b"{}", headers=JSON)).status
        hold.set()
        assert [200, 200] == [got.status for got in await asyncio.gather(*slow)]
        assert 0 == door.under_way("tenant:physics")

    served(test, trace_settings=TraceDoorSettings(body_bytes_max=100, waiting_bytes_max=800))


def test_an_upload_that_trickles_is_cut() -> None:
    """A byte now and then is no upload: 504, and nothing is under way any more."""

    async def test(rig: Rig) -> None:
        async def trickle() -> AsyncGenerator[bytes, None]:
            for _ in range(1_000):
                yield b"x"
                await asyncio.sleep(0.01)

        body: Any = trickle()
        got = await rig.ask("POST", "/v1/traces", TENANT, data=body, headers=JSON)
        assert "Retry-After" in got.headers and got.status in (408, 503, 504)
        assert 0 == rig.deps.traces.under_way("tenant:physics") and [] == rig.traces.bodies

    served(test, trace_settings=TraceDoorSettings(stall_s=0.2, rate_min_bytes_per_s=1_000_000))


def test_after_a_long_analysis_a_tenant_rests_as_long() -> None:
    """429 with when to come again: nobody has the one process that analyses for himself. Others do not rest."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        await Work(rig, 13, "biology").begin()
        other = await rig.tenant_token("biology", Role.TENANT)
        at = "/v1/traces/workflows/analyze"
        rig.traces.answer = TraceAnswer(body=b"{}", cached=False, took_s=50.0)
        assert 200 == (await rig.get(f"{at}/12", TENANT)).status
        got = await rig.get(f"{at}/12", TENANT)
        assert (429, "50") == (got.status, got.headers["Retry-After"])
        rig.traces.answer = TraceAnswer(body=b"{}", cached=False, took_s=1.0)
        assert 200 == (await rig.get(f"{at}/13", other)).status
        assert 200 == (await rig.get(f"{at}/13", other)).status
        rig.clock.ahead_ms = 51_000
        assert 200 == (await rig.get(f"{at}/12", TENANT)).status

    served(test)


def test_so_many_answers_with_rows_are_open_of_a_tenant() -> None:
    """A further one is refused; when one has ended there is room again."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        rig.traces.lines = [b"{}\n"]
        with rig.deps.traces.reading("physics"):
            assert 429 == (await rig.get("/v1/traces/workflows/12/spans", TENANT)).status
        for _ in "12":
            assert 200 == (await rig.get("/v1/traces/workflows/12/spans", TENANT)).status

    served(test, trace_settings=TraceDoorSettings(rows_per_tenant_max=1))
