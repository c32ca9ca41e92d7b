"""What an agent does for traces, piece by piece: bodies of exporters, rows that were left, the spool, its own spans."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from coordinator import wire
from coordinator.agent import otlp, trace_left, trace_rows
from coordinator.agent.asking import Asking, Refused, Whose
from coordinator.agent.grounds import Ground
from coordinator.agent.offset import Estimate
from coordinator.agent.standing import Standing
from coordinator.agent.trace_rows import Row, timed
from coordinator.agent.trace_spool import Full, TraceSpool
from coordinator.agent.tracing import Tracing
from coordinator.core.rows import LeaseToken
from coordinator.core.work.launch_plan import LaunchPlan
from coordinator.core.work.traceids import ATTEMPT, run_span_id, span_id, trace_id
from coordinator.wire_traces import BODY_BYTES_MAX, JSON, PROTOBUF, Part, TracePartsAnswer, split
from tests.unit.agent.agents import eventually
from tests.unit.agent.keeper_side import a_now

TOKEN = LeaseToken(1, 7)
WHOSE = Whose("12.0.3.1", 0, TOKEN)


def a_request(spans: int = 3) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(spans):
        scope.spans.add(name=f"s{number}", trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8))
    return bytes(request.SerializeToString())


# ---- bodies


def test_messages_pass_in_both_encodings_packed_or_not() -> None:
    """Several messages behind each other are one, as protobuf has it."""
    otlp.check(a_request(), PROTOBUF, "")
    otlp.check(a_request() + a_request(300), PROTOBUF, "")
    otlp.check(b"", PROTOBUF, "")
    otlp.check(b'{"resourceSpans": []}', JSON, "")
    otlp.check(gzip.compress(a_request()), PROTOBUF, "gzip")


@pytest.mark.parametrize("body", [a_request()[:-1], b"\x0a\xff\xff\xff\xff\xff\xff", b"hello", b"\x0a", b"\x12\x00"])
def test_what_is_no_message_is_told_to_its_exporter(body: bytes) -> None:
    with pytest.raises(otlp.NotOtlp) as refused:
        otlp.check(body, PROTOBUF, "")
    assert 400 == refused.value.status


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"a": ' * 5_000, b"\xff"])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Also one that is deeper than anybody reads."""
    with pytest.raises(otlp.NotOtlp):
        otlp.check(body, JSON, "")


def test_other_media_and_encodings_are_not_taken() -> None:
    assert (PROTOBUF, JSON) == tuple(otlp.media_type(h) for h in ("application/x-protobuf", "Application/JSON; a=b"))
    for call in (lambda: otlp.media_type("text/plain"), lambda: otlp.media_type(""), lambda: otlp.encoding("br")):
        with pytest.raises(otlp.NotOtlp) as refused:
            call()
        assert 415 == refused.value.status
    with pytest.raises(otlp.NotOtlp):
        otlp.check(b"not gzip", PROTOBUF, "gzip")


def test_no_post_holds_the_daemon_up() -> None:
    """Countless resources are no export, fields that nobody knows are skipped: what is posted is looked at in
    milliseconds, and leases are renewed meanwhile."""
    with pytest.raises(otlp.NotOtlp):
        otlp.check(b"\x0a\x00" * (otlp.RESOURCES_MAX + 1), PROTOBUF, "")
    otlp.check(b"\x0a\x00" * otlp.RESOURCES_MAX, PROTOBUF, "")
    unknown = b"{" + b",".join(b'"%x":1' % number for number in range(300_000)) + b"}"
    began_s = time.process_time()
    otlp.check(unknown, JSON, "")
    skipped_s = time.process_time() - began_s
    began_s = time.process_time()
    json.loads(unknown)
    assert skipped_s < (time.process_time() - began_s) / 3


# ---- rows that were left


def left(path: Path, user: int = 0) -> list[tuple[str, bytes]]:
    return [(piece.kind, piece.data) for piece in trace_left.left(Ground(str(path.parent), path.name), "1.0.0.1", user)]


def test_rows_are_sent_by_whole_lines(tmp_path: Path) -> None:
    """Large files in pieces; a last line without an end is a row."""
    line = json.dumps({"name": "x" * 1_000}).encode() + b"\n"
    where = tmp_path / "trace"
    where.mkdir()
    (where / "spans.jsonl").write_bytes(line * 3_000 + b'{"cut')
    (where / "assets.jsonl").write_bytes(b'{"data_id": "a"}\n')
    (where / "lineage-7.jsonl").write_bytes(b"{}\n")
    (where / "notes.txt").write_bytes(b"no")
    found = left(where)
    assert b'{"data_id": "a"}\n' == b"".join(data for kind, data in found if kind == "assets")
    assert line * 3_000 + b'{"cut\n' == b"".join(data for kind, data in found if kind == "spans")
    assert {"spans", "assets", "lineage"} == {kind for kind, _ in found}
    assert all(data.endswith(b"\n") and len(data) < 2 << 20 for _, data in found)
    assert not trace_left.is_empty(str(where)) and trace_left.is_empty(str(tmp_path / "none"))


def test_nothing_but_plain_files_of_its_own_is_read(tmp_path: Path) -> None:
    """A link to what only the agent may read, a FIFO, a directory that is a link, a line without end."""
    secret = tmp_path / "secret"
    secret.write_text("{}\n")
    secret.chmod(0o600)
    where = tmp_path / "trace"
    where.mkdir()
    (where / "spans.jsonl").symlink_to(secret)
    os.mkfifo(where / "assets.jsonl")
    (where / "lineage.jsonl").write_bytes(b"x" * (3 << 20))
    assert [] == left(where)
    (where / "lineage.jsonl").unlink()
    os.link(secret, where / "lineage.jsonl")
    assert [] == left(where, user=54_321), "a hard link to another user's file"
    linked = tmp_path / "linked"
    linked.symlink_to(where)
    assert [] == left(linked) and trace_left.is_empty(str(linked)) and not trace_left.is_empty(str(where))


def test_other_files_do_not_hide_the_rows(tmp_path: Path) -> None:
    """A program may leave what it likes beside them: a hundred files are no reason to find none of ours."""
    where = tmp_path / "trace"
    where.mkdir()
    for number in range(200):
        (where / f"dump-{number}").touch()
    (where / "spans.jsonl").write_bytes(b"{}\n")
    assert [("spans", b"{}\n")] == left(where)


# ---- the spool


class Head:
    """The coordinator's side of uploads."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.refuses: Exception | None = None

    async def send(self, body: bytes) -> TracePartsAnswer:
        if self.refuses is not None:
            raise self.refuses
        self.bodies.append(body)
        return TracePartsAnswer(taken=1, rejected=0)

    def got(self) -> list[bytes]:
        return [bytes(data) for body in self.bodies for _, data in split(body)]


def a_part(data: bytes, attempt: str = WHOSE.attempt) -> Part:
    return Part(attempt=attempt, token=TOKEN, kind="spans", size=len(data))


def run_with(spool: TraceSpool, work: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            task = group.create_task(spool.run())
            await work()
            task.cancel()

    asyncio.run(go())


async def until(true: Callable[[], bool]) -> None:
    assert await eventually(true)


def test_parts_of_many_attempts_travel_together(tmp_path: Path) -> None:
    """In their order, in few requests; when they are there nothing is left on the disk."""
    head = Head()
    spool = TraceSpool(tmp_path, head.send)
    sent = [b"%d" % number for number in range(500)]

    async def work() -> None:
        for number, data in enumerate(sent):
            spool.put(a_part(data, f"1.0.{number}.1"), data)
        await until(lambda: len(head.got()) == 500)
        await until(lambda: spool.status().waiting_bytes == 0)

    run_with(spool, work)
    assert sent == head.got() and len(head.bodies) <= 2
    assert [] == list((tmp_path / "traces").iterdir())
    assert (500, 0, 0) == (spool.sent, spool.refused, spool.dropped)


def test_what_a_daemon_left_its_successor_sends(tmp_path: Path) -> None:
    """What was answered is on the disk; a part that was cut by the kill is left out, those before it are not."""
    never = Head()
    never.refuses = None
    gone = TraceSpool(tmp_path, lambda body: asyncio.Event().wait())  # type: ignore[arg-type, return-value]

    async def first() -> None:
        gone.put(a_part(b"one"), b"one")
        gone.put(a_part(b"two"), b"two")
        await gone.written()

    run_with(gone, first)
    (file,) = (tmp_path / "traces").iterdir()
    file.write_bytes(file.read_bytes() + b'{"attempt":"1.0')
    head = Head()
    spool = TraceSpool(tmp_path, head.send)

    async def second() -> None:
        await until(lambda: len(head.got()) == 2)

    run_with(spool, second)
    assert [b"one", b"two"] == head.got()


def test_the_spool_is_bounded_for_each_attempt_and_for_all(tmp_path: Path) -> None:
    """Who is over its own bound is told so for good, who finds no room may come again."""
    head = Head()
    spool = TraceSpool(tmp_path, head.send, bytes_max=2_500, attempt_bytes_max=2_000)
    data = b"x" * 900
    spool.put(a_part(data), data)
    with pytest.raises(Full) as own:
        spool.put(a_part(data * 2), data * 2)
    spool.put(a_part(data, "2.0.0.1"), data)
    with pytest.raises(Full) as all_of_them:
        spool.put(a_part(data, "3.0.0.1"), data)
    assert (True, False) == (own.value.for_good, all_of_them.value.for_good)

    async def work() -> None:
        await until(lambda: spool.status().waiting_bytes == 0)
        spool.put(a_part(data, "3.0.0.1"), data)
        await until(lambda: len(head.got()) == 3)

    run_with(spool, work)
    assert 2 == spool.dropped


def test_large_parts_never_make_a_request_too_large(tmp_path: Path) -> None:
    head = Head()
    spool = TraceSpool(tmp_path, head.send, attempt_bytes_max=1 << 30)
    data = b"x" * (7 << 20)

    async def work() -> None:
        for _ in range(5):
            spool.put(a_part(data), data)
        await until(lambda: len(head.got()) == 5)

    run_with(spool, work)
    assert all(len(body) <= BODY_BYTES_MAX for body in head.bodies)


def test_a_coordinator_that_takes_no_traces_costs_them_alone(tmp_path: Path) -> None:
    """An older one has no such route: they are dropped and counted, and the next ones are tried."""
    head = Head()
    head.refuses = Refused(404, "not_found", "no such route")
    spool = TraceSpool(tmp_path, head.send)

    async def work() -> None:
        spool.put(a_part(b"one"), b"one")
        await until(lambda: spool.dropped == 1)
        head.refuses = None
        spool.put(a_part(b"two"), b"two")
        await until(lambda: spool.sent == 1)

    run_with(spool, work)
    assert [b"two"] == head.got()


# ---- the agent's own spans


def test_own_spans_are_otlp_with_the_clock_beside_them() -> None:
    """Integer nanoseconds, ids that follow from the attempt, attributes by the conventions; protobuf reads them."""
    rows = [Row("stage", "stage", 10**18, 10**18 + 5, "network", {"coord.bytes": 7}, failed="no")]
    trace = trace_id("c1", 12)
    body = json.loads(trace_rows.encoded(rows, "12.0.3.1", 1, "p", trace, Estimate(-1.5, 0.5)))
    (resource,) = body["resourceSpans"]
    (span,) = resource["scopeSpans"][0]["spans"]
    assert (trace.hex(), span_id("12.0.3.1/1", "stage").hex()) == (span["traceId"], span["spanId"])
    assert span_id("12.0.3.1", ATTEMPT).hex() == span["parentSpanId"]
    assert (str(10**18), str(10**18 + 5)) == (span["startTimeUnixNano"], span["endTimeUnixNano"])
    assert {"code": 2, "message": "no"} == span["status"]
    said = {one["key"]: next(iter(one["value"].values())) for one in resource["resource"]["attributes"]}
    assert ("12.0.3", "12", "p", "-1500000", "500000") == tuple(
        said[name]
        for name in (
            "data_id",
            "cicd.pipeline.run.id",
            "cicd.worker.id",
            "coord.clock.offset_ns",
            "coord.clock.bound_ns",
        )
    )


def test_what_fails_has_a_span_too() -> None:
    """With the reason, and with what was known by then."""
    rows: list[Row] = []
    with (
        pytest.raises(OSError, match="gone"),
        timed(lambda _, row: rows.append(row), WHOSE, "w", "n", "network", {}) as s,
    ):
        s["coord.bytes"] = 3
        raise OSError("gone")
    (row,) = rows
    assert ("gone", {"coord.bytes": 3}) == (row.failed, row.attributes) and row.end_ns >= row.start_ns


# ---- what programs leave


def test_of_a_program_that_left_nothing_nothing_is_waited_for(tmp_path: Path) -> None:
    """The keeper knows it: its directories are free at once. Into those of another it is looked, then they are."""
    over: list[tuple[str, int]] = []

    async def go() -> None:
        standing = Standing(process_id="p", daemon=1, resume_key="")
        tracing = Tracing(Asking(), tmp_path, tmp_path / "work", standing, on=True)
        tracing.over = over.append
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            task = group.create_task(tracing.run())
            now = a_now(tmp_path, "exited", untouched=True)
            tracing.on_now(now, False)
            assert not tracing.holds((now.attempt, now.rank))
            other = a_now(tmp_path, "exited", attempt="1.0.1.1")
            tracing.on_now(other, False)
            assert tracing.holds((other.attempt, other.rank))
            await until(lambda: not tracing.holds((other.attempt, other.rank)))
            task.cancel()

    asyncio.run(go())
    assert [("1.0.1.1", 0)] == over


# ---- what programs are told


def a_launch(**env: str) -> wire.Launch:
    plan = LaunchPlan(argv=("true",), env=tuple(env.items()))
    return wire.Launch(attempt=WHOSE.attempt, rank=1, token=TOKEN, plan=plan)


def told(tmp_path: Path, on: bool = True, **env: str) -> dict[str, str]:
    standing = Standing(process_id="p", daemon=1, resume_key="")
    standing.coordinator_id = "c1"
    tracing = Tracing(Asking(), tmp_path, tmp_path, standing, on=on)
    return dict(tracing.environment(a_launch(**env), "http://127.0.0.1:9", "secret.1"))


def test_a_program_is_told_its_trace_and_where_to_send(tmp_path: Path) -> None:
    found = told(tmp_path, OTEL_RESOURCE_ATTRIBUTES="service.name=mine")
    assert f"00-{trace_id('c1', 12).hex()}-{run_span_id(WHOSE.attempt, 1).hex()}-01" == found["TRACEPARENT"]
    assert "http://127.0.0.1:9" == found["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert "http/protobuf" == found["OTEL_EXPORTER_OTLP_PROTOCOL"]
    assert "Authorization=Bearer%20secret.1" == found["OTEL_EXPORTER_OTLP_HEADERS"]
    assert "service.name=mine,data_id=12.0.3,coord.attempt=1,coord.rank=1" == found["OTEL_RESOURCE_ATTRIBUTES"]


def test_a_job_with_a_collector_of_its_own_never_gets_our_token(tmp_path: Path) -> None:
    """It would be sent there. Its spans join our trace by their parent all the same."""
    found = told(tmp_path, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://elsewhere/")
    assert ["TRACEPARENT"] == list(found)
    assert not told(tmp_path, on=False)
    assert "TRACEPARENT" not in told(tmp_path, TRACEPARENT="00-1-2-01")
