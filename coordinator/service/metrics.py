"""Metrics: every one is declared here, once. What they stand at is in metric_values.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coordinator.ports import attribution

SERIES_MAX = 1_000
TENANTS_MAX = 100
"""Tenants with series of their own in what is kept by tenant: the others are one, `other`."""
FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the seconds that a request may take."""

PLACE_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Bounds of the seconds that a placement may take: engine.PLACE_BOUNDS_S, which counts by them."""
WAIT_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0)
"""Bounds of the seconds that a job may wait, or a planned start be wrong."""
FLUSH_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds of the seconds that a flush may take."""

VERDICT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0)
"""Bounds of the seconds from an attempt's end to its verdict."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric. Names end in their unit; counters in `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    series_max: int = SERIES_MAX


_table: dict[str, Metric] = {}


def _declare(metric: Metric) -> Metric:
    assert metric.name not in _table, f"metric {metric.name} is declared twice"
    assert (metric.kind == "counter") == metric.name.endswith("_total"), f"{metric.name} is misnamed"
    _table[metric.name] = metric
    return metric


def _counter(name: str, text: str, *labels: str) -> Metric:
    return _declare(Metric(name, "counter", text, labels))


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return _declare(Metric(name, "gauge", text, labels))


def _histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str, series_max: int = SERIES_MAX) -> Metric:
    return _declare(Metric(name, "histogram", text, labels, bounds, series_max))


INFO = _gauge("coord_info", "1; version and id of this coordinator are its labels", "version", "coordinator_id")
UPTIME = _gauge("coord_uptime_seconds", "Since this process began to serve")
RESIDENT = _gauge("coord_process_resident_bytes", "Resident memory of the coordinator's process")
CPU = _counter("coord_process_cpu_seconds_total", "CPU time that the process used, user and system")
FILES = _gauge("coord_process_open_files", "Open file descriptors of the process")
LOOP_LAG = _gauge("coord_loop_lag_seconds", "How late the event loop ran what was due, worst of late")

HTTP_REQUESTS = _counter("coord_http_requests_total", "Requests answered", "method", "route", "status")
HTTP_SECONDS = _histogram("coord_http_request_seconds", "From a request's head to its answer's end", FAST_S, "route")
HTTP_OPEN = _gauge("coord_http_open_requests", "Requests that are being answered now, agents' connections included")
HTTP_PROBLEMS = _counter("coord_http_problems_total", "Refusals and failures, by their code", "code")
HTTP_REPLAYED = _counter("coord_http_replayed_total", "Answers given again for an Idempotency-Key")
AUTH_FAILED = _counter("coord_auth_failures_total", "Requests without a valid token or signature")
IMPORTED = _counter("coord_imported_rows_total", "Rows of imported history, by what became of them", "result")

PROVIDERS = _gauge("coord_providers", "Enrolled providers by how they stand", "liveness")
TOKENS = _gauge("coord_tokens", "Tokens known, providers' credentials included")
POOLS = _gauge("coord_pools", "Pools besides the default one")
SESSIONS_OPENED = _counter("coord_sessions_opened_total", "Sessions that began (new) or went on (resumed)", "how")
SESSIONS_ENDED = _counter("coord_sessions_ended_total", "Sessions that ended, by reason", "reason")
SESSION_ENDS_UNDONE = _counter(
    "coord_session_ends_undone_total", "Ends of sessions that a full disk undid; each is made again"
)
WARNINGS = _counter("coord_warnings_total", "What the core warned of, by kind", "kind")
ALERTS = _gauge("coord_alerts", "Alerts that stand, by kind", "kind")

ENGINE_EVENTS = _counter("coord_engine_events_total", "Events taken from the inbox")
ENGINE_DECISIONS = _counter("coord_engine_decisions_total", "Decisions made")
ENGINE_COMMITS = _counter("coord_engine_commits_total", "Transactions of the truth that are durable")
ENGINE_COMMIT_SECONDS = _counter("coord_engine_commit_seconds_total", "Time spent in those transactions")
ENGINE_COMMIT_MAX = _gauge("coord_engine_commit_seconds_max", "The slowest of those transactions")
ENGINE_ROLLBACKS = _counter("coord_engine_rollbacks_total", "Groups of decisions undone because the disk was full")
ENGINE_REFUSED = _counter("coord_engine_refused_total", "Requests refused because the inbox was full")
ENGINE_STALLS = _counter("coord_engine_stalls_total", "Times that the coordinator itself stood still")
ENGINE_INBOX = _gauge("coord_engine_inbox_events", "Events that wait")
STORE_FULL = _gauge("coord_store_full", "1 while the disk takes no writes, else 0")

PLACE_SECONDS = _histogram("coord_place_seconds", "Time that a round of placing took to decide", PLACE_S)

JOBS = _gauge("coord_jobs", "Jobs that have not ended, by state", "state")
ATTEMPTS = _gauge("coord_attempts", "Attempts that hold capacity or may yet run, by state", "state")
TASKS_WAITING = _gauge("coord_tasks_waiting", "Tasks whose step may run and that have no attempt: the queue")
TRANSITIONS = _counter(
    "coord_transitions_total",
    "Audited transitions, by what changed and what it became; attempts that became lost or taken_back were fenced",
    "entity",
    "after",
)
PLACED = _counter(
    "coord_placements_total",
    "Leases granted: of those that stood first (ranked), before one that stood ahead (backfilled), behind what runs "
    "there (prefetched)",
    "how",
)
LINED_UP = _gauge("coord_attempts_prefetched", "Attempts whose agents hold them behind others that run there")
LINES = _gauge("coord_queue_lines", "Lines of the queue: kinds of requests that wait, by tenant and priority")
PLANS = _gauge("coord_planned_starts", "Lines whose head has no room now, and a start that is planned and kept free")
AGED = _gauge("coord_queue_aged", "Tenants' priorities that count as higher ones, for they got nothing for long")
QUEUE_WAIT = _histogram(
    "coord_queue_wait_seconds", "From a job's submission to its first start", WAIT_S, "tenant", series_max=TENANTS_MAX
)
START_ERROR = _histogram(
    "coord_start_error_seconds",
    "How far a job started from when it was first promised to, before (early) or after that (late)",
    WAIT_S,
    "side",
)

TENANTS = _gauge("coord_tenants", "Tenants that were made")
TENANT_USED = _gauge(
    "coord_tenant_used",
    "What tenants hold, or have used of a month, in CPUs, GPUs, bytes, jobs and units",
    "tenant",
    "dimension",
)
TENANT_RESERVED = _gauge(
    "coord_tenant_reserved", "What their live jobs are promised beyond that", "tenant", "dimension"
)
TENANT_LIMIT = _gauge("coord_tenant_limit", "What they may; absent without a limit", "tenant", "dimension")
TENANT_SHARE = _gauge("coord_tenant_share", "Dominant share of the fleet that tenants hold now, 0 to 1", "tenant")
TENANT_SHARE_DECAYED = _gauge("coord_tenant_share_decayed", "The same as fair share remembers it", "tenant")
QUOTA_REFUSED = _counter(
    "coord_quota_refusals_total", "Jobs refused by their tenant's quota, once for each dimension", "dimension"
)

ORDERS = _counter("coord_agent_orders_total", "What agents were told about attempts; `renew` counts leases", "order")
PLANS_FAILED = _counter("coord_launch_plans_failed_total", "Launches that no plan could be made of")
FEED_FOLLOWERS = _gauge("coord_feed_followers", "Readers that follow the feed of events")

RELAY_TAKEN = _counter("coord_relay_taken_bytes_total", "Log bytes taken from agents, repeated ones included")
RELAY_STORED = _counter("coord_relay_stored_bytes_total", "Log bytes handed to the disk and synced")
RELAY_DROPPED = _counter(
    "coord_relay_dropped_bytes_total", "Log bytes that found no room, or came behind such; they are sent again"
)
RELAY_REFUSED = _counter("coord_relay_refused_frames_total", "Log frames with an old token or of no attempt of ours")
RELAY_WAITING = _gauge("coord_relay_waiting_bytes", "Log bytes that were taken and are not stored yet")
RELAY_LAG = _gauge("coord_relay_lag_seconds", "From the receipt to the disk, of the oldest bytes in the last batch")
RELAY_LAG_MAX = _gauge("coord_relay_lag_max_seconds", "The worst of these since the start")
RELAY_APPENDS = _counter("coord_relay_appends_total", "Batches of log bytes stored")
RELAY_APPEND_SECONDS = _counter("coord_relay_append_seconds_total", "Time that they took, syncs included")
RELAY_APPEND_MAX = _gauge("coord_relay_append_max_seconds", "The longest of them since the start")
RELAY_FAILURES = _counter("coord_relay_append_failures_total", "Batches that a full disk refused; tried again")
RELAY_HOLDS = _counter("coord_relay_holds_total", "Times that a socket was not read until logs were stored")
RELAY_HELD = _gauge("coord_relay_held_links", "Sockets that are not read for that now")
RELAY_FOLLOWERS = _gauge("coord_relay_followers", "Readers that follow a log")
LOG_FRAMES = _counter("coord_link_log_frames_total", "Binary frames with log bytes")
LINKS_SLOWED = _counter("coord_links_slowed_total", "Times that a socket was read more slowly: too many log frames")

DELIVERIES = _counter("coord_alert_deliveries_total", "Alerts to a webhook or command", "receiver", "result")
DELIVERIES_WAITING = _gauge("coord_alert_deliveries_waiting", "Alerts that wait to be delivered")

TRANSFERS = _gauge("coord_transfers", "Uploads and downloads of blobs that are under way")
TRANSFER_BYTES = _counter(
    "coord_transfer_bytes_total", "Bytes of blobs that moved, cut transfers included", "direction"
)
TRANSFERS_REFUSED = _counter(
    "coord_transfers_refused_total",
    "Transfers refused: too many at a time (busy), or faster than their tenant or the link may (throttled)",
    "cause",
)
TRANSFERS_CUT = _counter("coord_transfers_cut_total", "Transfers cut because their peer was too slow", "direction")
UPLOADS_OPEN = _gauge("coord_uploads_open", "Uploads that are open")
UPLOADS_PUBLISHED = _counter("coord_uploads_published_total", "Uploads that became blobs")
SPILLED = _gauge("coord_transfer_spilled_bytes", "Bytes of uploads beyond their rate that lie in the spill area")
BREAKER = _gauge("coord_transfer_breaker", "Circuit breaker of transfers: 0 closed, 1 half-open, 2 open")
BLOBS_SWEPT = _counter("coord_blobs_swept_total", "Blobs that nobody held, removed after their grace time")
BLOBS_ORPHANED = _counter("coord_blob_orphans_total", "Files of blobs without a row, which a crash left; removed")
BLOB_BYTES_FREED = _counter("coord_blob_freed_bytes_total", "Bytes of the disk that removed blobs gave back")

LINKS = _gauge("coord_links", "Agents' connections that are open")
LINKS_PUSHED = _gauge("coord_links_pushed", "1: frames come straight from the parser; 0: by the slower receive loop")
LINKS_OPENED = _counter("coord_links_opened_total", "Agents' connections that were accepted")
LINKS_CLOSED = _counter("coord_links_closed_total", "Agents' connections that are gone")
LINKS_REFUSED = _counter(
    "coord_links_refused_total", "Agents' connections refused: too many were open, or one provider's came too fast"
)
LINKS_CUT = _counter("coord_links_cut_total", "Agents' connections cut by us, by cause", "cause")
LINK_MESSAGES = _counter("coord_link_messages_total", "Messages from agents")
LINK_BAD_FRAMES = _counter("coord_link_bad_frames_total", "Frames from agents that could not be understood")
LINK_UNKNOWN = _counter("coord_link_unknown_messages_total", "Messages from agents of an unknown type")

BEATS_OFFERED = _counter("coord_heartbeats_offered_total", "Heartbeats received")
BEATS_STORED = _counter("coord_heartbeats_stored_total", "Heartbeats stored")
BEATS_DUPLICATE = _counter("coord_heartbeats_duplicate_total", "Heartbeats that came twice: acknowledged, not stored")
BEATS_DROPPED = _counter("coord_heartbeats_dropped_total", "Heartbeats that history lacks, by cause", "cause")
BEATS_WAITING = _gauge("coord_heartbeats_waiting", "Heartbeats received and not stored yet")
BEATS_FLUSHES = _counter("coord_heartbeats_flushes_total", "Batches stored")
BEATS_FLUSH_FAILED = _counter("coord_heartbeats_flush_failures_total", "Batches that the store did not take at once")
BEATS_FLUSH_SECONDS = _histogram("coord_heartbeats_flush_seconds", "Time that a batch took to store", FLUSH_S)
BEATS_HOLDS = _counter("coord_heartbeats_holds_total", "Times that links were asked to stop reading")

ANALYTICS_UP = _gauge("coord_analytics_up", "1 while the analytics worker runs, else 0")
ANALYTICS_RESTARTS = _counter("coord_analytics_restarts_total", "Times that the worker was started again")
FIGURES_AGE = _gauge("coord_figures_age_seconds", "Age of the last published figures; absent before the first")

VERDICTS = _counter(
    "coord_verdicts_total", "Ended attempts by whether they have a verdict: given, or why not", "result"
)
VERDICTS_WAITING = _gauge("coord_verdicts_waiting", "Ended attempts whose verdict has not come yet")
VERDICT_SECONDS = _histogram("coord_verdict_seconds", "From the end of an attempt to its verdict", VERDICT_S)
VERDICTS_CORRECTED = _counter(
    "coord_verdicts_corrected_total", "Verdicts that a later one replaced: the rest of a log, or a full pass over it"
)
LOGS_FOLLOWED = _gauge("coord_attribution_followed_logs", "Logs that are followed now, one a rank")
FOLLOWS = _counter(
    "coord_attribution_analyses_total",
    "Of logs, by what became of them: started while their attempts ran, and how it ended",
    "result",
)
FALLBACKS = _counter(
    "coord_attribution_fallbacks_total", "Logs that had to be read when their attempts had ended, by reason", "reason"
)
REPLAYS = _counter("coord_attribution_replays_total", "Logs that were read again from the beginning, by why", "reason")
CHECKS = _counter(
    "coord_attribution_checks_total", "Verdicts compared with a full pass over their log: same or different", "result"
)
FOLLOWED_BYTES = _counter("coord_attribution_read_bytes_total", "Bytes of logs that were read for verdicts")
FOLLOW_BUSY = _counter("coord_attribution_busy_seconds_total", "Time that reading and judging logs took")
FOLLOW_SAVED = _counter(
    "coord_attribution_saved_seconds_total", "The part of it before the attempts ended: verdicts came so much sooner"
)
LEFT_BYTES = _histogram(
    "coord_attribution_left_bytes", "What was left to be read when an attempt had ended", attribution.LEFT_BYTES
)

TRACE_ROWS = _counter(
    "coord_trace_rows_total",
    "Rows of traces that were sent: kept (accepted), unreadable or another's (rejected), without room (dropped)",
    "result",
)
TRACE_BYTES = _counter("coord_trace_received_bytes_total", "Bytes of traces that were sent, as they came")
TRACE_REFUSED = _counter("coord_trace_refusals_total", "Uploads of traces that were refused, by code", "code")
TRACE_STORED = _gauge("coord_trace_stored_bytes", "Bytes of traces that are kept, as they were last counted")
TRACE_ANALYSES = _counter(
    "coord_trace_analyses_total", "Analyses that were asked for: made, cached from before, failed", "result"
)
TRACE_SECONDS = _counter("coord_trace_analysis_seconds_total", "Time that analyses took, those from before left out")
TRACE_UP = _gauge("coord_trace_keeper_up", "1 while the process that keeps traces runs; it ends when it is idle")
TRACE_STARTS = _counter("coord_trace_keeper_starts_total", "Times that this process was started")


def table() -> Sequence[Metric]:
    """Every declared metric, in order of declaration."""
    return tuple(_table.values())
