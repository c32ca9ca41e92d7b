"""A job's own traces and coord's, of real processes: the real OpenTelemetry SDK, rows left in a directory, a provider
that is killed in the middle of a graph, and where the time went."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from coordinator.agent.control import AgentControl
from coordinator.api_types.trace import Profile, SegmentKind
from coordinator.api_types.work import JobEntry
from coordinator.client import Client
from coordinator.core.work.traceids import run_span_id
from tests.acceptance.processes import Agent, Head, wait_for, when_online

SDK = """
import os, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from {module} import {exporter} as Exporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Exporter()))
parent = TraceContextTextMapPropagator().extract({{"traceparent": os.environ["TRACEPARENT"]}})
with provider.get_tracer("job").start_as_current_span("epoch", context=parent) as span:
    span.set_attribute("flowmesh.type", "compute")
    time.sleep(0.05)
    with provider.get_tracer("job").start_as_current_span("all-reduce"):
        time.sleep(0.02)
provider.shutdown()
"""
"""A program whose SDK is told nothing but by its environment."""
PROTOBUF = "opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTLPSpanExporter"
JSON = "opentelemetry.exporter.otlp.json.http.trace_exporter", "OTLPSpanExporter"


class Fleet(NamedTuple):
    head: Head
    client: Client
    agents: tuple[Agent, ...]

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(
            self.head.url + path, headers={"Authorization": f"Bearer {self.head.token('admin')}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def rows(self, job: int, kind: str = "spans") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.get(f"/v1/traces/workflows/{job}/{kind}").splitlines()]

    def profile(self, job: int) -> Profile:
        return msgspec.json.decode(self.get(f"/v1/traces/workflows/analyze/{job}"), type=Profile)

    def run(self, body: dict[str, Any]) -> JobEntry:
        job = self.client.jobs.submit(body)
        return self.client.jobs.wait(job.job_id, timeout_s=60.0)

    def named(self, job: int, name: str) -> list[dict[str, Any]]:
        return [row for row in self.rows(job) if row["name"] == name]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One coordinator and one agent, for tests that leave them alive."""
    directory = tmp_path_factory.mktemp("traces")
    with (
        Head(directory) as head,
        head.start() as client,
        Agent(directory, head, "w1", "--isolation", "none", "--cpus", "4") as agent,
    ):
        when_online(client, agent)
        yield Fleet(head, client, (agent,))


@pytest.mark.parametrize(("module", "exporter"), [PROTOBUF, JSON], ids=["protobuf", "json"])
@pytest.mark.parametrize("packed", ["none", "gzip"])
def test_the_real_sdk_joins_with_nothing_but_its_environment(
    fleet: Fleet, module: str, exporter: str, packed: str
) -> None:
    """Its spans are in the job's trace, beneath the span of what ran, with their names and to the nanosecond."""
    program = SDK.format(module=module, exporter=exporter)
    env = {"OTEL_EXPORTER_OTLP_COMPRESSION": packed} if packed != "none" else {}
    job = fleet.run({"command": [sys.executable, "-c", program], "env": env})
    assert "completed" == job.state, fleet.client.jobs.tasks(job.job_id, attempts=True)
    (epoch,) = wait_for(lambda: fleet.named(job.job_id, "epoch"), "the program's span being there")
    (inner,) = fleet.named(job.job_id, "all-reduce")
    (ran,) = fleet.named(job.job_id, "run")
    assert run_span_id(f"{job.job_id}.0.0.1", 0).hex() == epoch["parent_id"].removeprefix("0x")
    assert epoch["context"]["span_id"] == inner["parent_id"]
    assert epoch["context"]["trace_id"] == ran["context"]["trace_id"] == inner["context"]["trace_id"]
    assert f"{job.job_id}.0.0" == epoch["attributes"]["data_id"]


def test_rows_left_in_the_directory_are_there_after_the_end(fleet: Fleet) -> None:
    """Spans, assets and lineage; a line that is none costs itself alone, and is named where people look."""
    program = """
import json, os, time
where, task = os.environ["COORD_TRACE_DIR"], os.environ["COORD_TASK_ID"]
now = time.time_ns()
span = {"traceId": "0" * 31 + "7", "spanId": "00000000000000aa", "name": "left", "kind": 1,
        "startTimeUnixNano": str(now - 10**8), "endTimeUnixNano": str(now)}
with open(where + "/spans.jsonl", "w") as file:
    print(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}), file=file)
    print("no row", file=file)
with open(where + "/assets.jsonl", "w") as file:
    print(json.dumps({"data_id": task, "asset_guid": "model", "version": 3, "user_id": "u",
                      "created_at": "2026-11-22T10:00:00Z"}), file=file)
"""
    job = fleet.run({"command": [sys.executable, "-c", program]})
    assert "completed" == job.state
    (left,) = wait_for(lambda: fleet.named(job.job_id, "left"), "the row that was left")
    assert f"{job.job_id}.0.0" == left["attributes"]["data_id"]
    (asset,) = fleet.rows(job.job_id, "assets")
    assert ("model", 3) == (asset["asset_guid"], asset["version"])
    traced = AgentControl(fleet.agents[0].state).status().traces
    assert traced.rejected_rows >= 1 and traced.dropped_parts == 0
    counts = fleet.profile(job.job_id).counts
    assert [(f"{job.job_id}.0.0.1 spans", 2)] == [(bad.source, bad.line) for bad in counts.bad]
    assert 1 == counts.rejected


def test_a_run_that_goes_on_is_analysed_until_now(fleet: Fleet) -> None:
    job = fleet.client.jobs.submit({"command": ["sleep", "60"]})
    wait_for(lambda: fleet.client.jobs.show(job.job_id).job.state == "running", "the job running")
    path = fleet.profile(job.job_id).real_critical_path
    assert path.makespan_ns == sum(one.end_ns - one.start_ns for one in path.segments) > 0
    fleet.client.jobs.cancel(job.job_id)


def test_no_secret_of_an_attempt_is_in_what_others_see(fleet: Fleet) -> None:
    """Its token is in its own environment alone: not in lists of processes, logs, rows of its trace."""
    program = "import os, sys; sys.stderr.write(os.environ['OTEL_EXPORTER_OTLP_HEADERS'][-12:])"
    job = fleet.run({"command": [sys.executable, "-c", program]})
    assert "completed" == job.state
    tail = wait_for(lambda: fleet.get(f"/v1/jobs/{job.job_id}/logs").decode(), "the log")[-12:]
    assert len(tail) == 12
    assert tail not in fleet.agents[0].text() and tail not in fleet.head.text()
    assert tail not in json.dumps(fleet.rows(job.job_id))


@pytest.mark.soak
def test_the_path_of_a_graph_names_the_loss_and_what_was_waited_for(tmp_path: Path) -> None:
    """Three agents, one of which is killed (kill -9, and what it ran): the path has the lost run, the wait for the end
    of its lease, a failed try, its backoff, and the slot that was waited for. Its segments are the wall time."""
    settings = "heartbeat_interval_ms=1s", "lost_after_ms=6s", "term_ms=8s"
    quick = [word for setting in settings for word in ("--set", f"policy.{setting}")]
    with Head(tmp_path, *quick) as head, head.start() as client:
        flags = ("--isolation", "none", "--cpus", "1")
        with (
            Agent(tmp_path, head, "w1", *flags) as w1,
            Agent(tmp_path, head, "w2", *flags) as w2,
            Agent(tmp_path, head, "w3", *flags) as w3,
        ):
            agents = {agent.provider_id: agent for agent in (w1, w2, w3)}
            when_online(client, *agents.values())
            fleet = Fleet(head, client, tuple(agents.values()))
            mark = tmp_path / "tried"
            flaky = f"sleep 0.3; if [ ! -e {mark} ]; then touch {mark}; exit 1; fi"
            steps = [
                {"name": "prep", "command": ["sh", "-c", flaky], "retry": {"limit": 2, "delay": "1s"}},
                {"name": "long", "command": ["sh", "-c", "sleep 4"], "needs": ["prep"], "on_lost": "retry"},
                {"name": "many", "command": ["sh", "-c", "sleep 1.5"], "array": "0-5", "needs": ["long"]},
            ]
            job = client.jobs.submit({"name": "graph", "step": steps})
            task = f"{job.job_id}.1.0"
            where = wait_for(lambda: _running(client, task), "the long step running")
            agents[where].kill()
            agents[where].__exit__(None, None, None)
            ended = client.jobs.wait(job.job_id, timeout_s=120.0)
            assert "completed" == ended.state
            path = fleet.profile(job.job_id).real_critical_path
    assert ended.ended_at is not None
    wall = datetime.fromisoformat(ended.ended_at) - datetime.fromisoformat(ended.submitted_at)
    shown_ns = wall // timedelta(milliseconds=1) * 1_000_000
    assert shown_ns == path.makespan_ns == sum(one.end_ns - one.start_ns for one in path.segments)
    assert all(a.end_ns == b.start_ns for a, b in zip(path.segments, path.segments[1:], strict=False))
    kinds = {segment.kind for segment in path.segments}
    wanted = {SegmentKind.FAILED_RUN, SegmentKind.BACKOFF, SegmentKind.LOST_RUN, SegmentKind.LOST, SegmentKind.RUN}
    assert wanted <= kinds, path.segments
    lost = next(segment for segment in path.segments if segment.kind is SegmentKind.LOST_RUN)
    assert (task, where) == (lost.task, lost.provider)
    slots = [segment.cause for segment in path.segments if segment.cause.startswith("slot ")]
    assert slots and all(cause.startswith(f"slot {job.job_id}.2.") for cause in slots)
    assert not any(segment.inferred for segment in path.segments)


def _running(client: Client, task: str) -> str | None:
    """Where this task runs."""
    job = int(task.split(".")[0])
    for entry in client.jobs.tasks(job, attempts=True).entries:
        if entry.task == task:
            for one in entry.tries:
                if one.state == "running":
                    return one.ranks[0].provider_id
    return None


def test_what_was_spooled_survives_the_daemon(fleet: Fleet, tmp_path: Path) -> None:
    """Posted while the coordinator does not answer, the daemon killed: its successor sends it."""
    agent = fleet.agents[0]
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
    program = waits + SDK.format(module=PROTOBUF[0], exporter=PROTOBUF[1]) + "\ntime.sleep(3)\n"
    job = fleet.client.jobs.submit({"command": [sys.executable, "-c", program]})
    wait_for(lambda: fleet.client.jobs.show(job.job_id).job.state == "running", "the job running")
    fleet.head.signal(signal.SIGSTOP)
    go.touch()
    try:
        spooled = agent.state / "traces"
        wait_for(lambda: any(b"epoch" in file.read_bytes() for file in spooled.glob("*.parts")), "spans being spooled")
        before = agent.daemon_pid()
        os.kill(before, signal.SIGKILL)
    finally:
        fleet.head.signal(signal.SIGCONT)
    assert "completed" == fleet.client.jobs.wait(job.job_id, timeout_s=60.0).state
    wait_for(lambda: fleet.named(job.job_id, "epoch"), "the program's span being there")
