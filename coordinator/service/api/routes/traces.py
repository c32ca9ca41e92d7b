"""Routes of traces."""

from __future__ import annotations

from coordinator.api_types.trace import Profile
from coordinator.core.rows import Role
from coordinator.ports.traces import TraceKind
from coordinator.service.api import otlp, traces
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import ONLOOKERS, TENANTS, AnyRoute, get, receiving
from coordinator.service.api.streams import OpenStreams
from coordinator.wire_traces import CONTENT_TYPE as PARTS_MEDIA
from coordinator.wire_traces import PATH as PARTS
from coordinator.wire_traces import TracePartsAnswer

AGENTS = frozenset({Role.AGENT})
WHAT: dict[TraceKind, str] = {"spans": "Spans", "assets": "Assets", "lineage": "Edges of the lineage"}


def trace_routes(streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Where the time went: taken in, given back, analysed."""
    return (
        receiving(
            "/v1/traces",
            TENANTS,
            traces.export_traces,
            "application/x-protobuf",
            "Spans over OTLP/HTTP; the answer is in the encoding of the request",
            otlp.PROTOBUF,
            otlp.JSON,
        ),
        receiving(
            PARTS,
            AGENTS,
            traces.take_attempts,
            TracePartsAnswer,
            "What an agent sends of its attempts",
            PARTS_MEDIA,
        ),
        *(
            receiving(
                f"/v1/traces/tasks/{{task}}/{kind}",
                TENANTS,
                traces.take_rows(kind),
                traces.TraceTaken,
                f"{what} of a task, as lines of JSON",
                traces.LINES,
            )
            for kind, what in WHAT.items()
        ),
        *(
            get(
                f"/v1/traces/workflows/{{id}}/{kind}",
                ONLOOKERS,
                traces.send_rows(kind, streams),
                "application/x-ndjson",
                f"{what} of a job, as lines of JSON",
                NoQuery,
            )
            for kind, what in WHAT.items()
        ),
        get(
            "/v1/traces/workflows/analyze/{id}",
            ONLOOKERS,
            traces.analyze_job,
            Profile,
            "Where the time of a job went: a profile, a comparison, a what-if",
            traces.AnalyzeQuery,
        ),
    )
