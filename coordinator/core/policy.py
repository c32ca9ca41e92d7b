"""Every tunable of the core: its unit is in the name, its default and the reason stand here."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms


class Policy(Struct, frozen=True, gc=False, kw_only=True):
    """How patient the coordinator is. Deadlines that follow the heartbeat interval are given as a share."""

    heartbeat_interval_ms: Ms = 5_000
    """What an agent is told at least. Five seconds notice a loss within ten."""
    heartbeat_budget_per_s: float = 2_000.0
    """Heartbeats that the whole fleet may send in a second; a larger fleet is told a longer interval."""
    ping_after_intervals: float = 1.2
    """Silent for so many intervals (6 s): pinged, so that a dead socket shows itself."""
    suspect_after_intervals: float = 2.0
    """Silent for so many (10 s): suspect, no new work."""
    lost_after_ms: Ms = 30_000
    """Silent or gone for so long: lost. Also the gap that ends a stay. Never under six intervals."""
    challenge_ms: Ms = 5_000
    """How long an old connection has to answer when a second one claims its provider."""
    rejoin_ms: Ms = 60_000
    """After a start: how long sessions wait for their agents. Reconnects are spread over 10 s, capped at 30."""
    alive_every_ms: Ms = 5_000
    """How often `alive_at` is stored: the start of an outage is known to that."""
    beat_save_every_ms: Ms = 60_000
    """How often an open session's last heartbeat is written to the truth, should telemetry be lost."""
    tick_ms: Ms = 250
    """How often a tick is to come. Whoever would be pinged or suspect before the next one is so at this one."""
    stall_ms: Ms = 2_500
    """A tick so late is a stall of our own: nobody is judged by it."""
    outage_ms: Ms = 10_000
    """A stall from this length on is stored as unobserved time."""
    wall_jump_ms: Ms = 2_000
    """The wall clock moving so far against the monotonic one is an alert."""
    providers_max: int = 100_000
    """Enrolled providers held in memory (about 1 kB each); further ones are refused."""
    tokens_max: int = 200_000
    """Tokens held in memory, agents' credentials included."""
    pools_max: int = 1_000
    forecast_stale_ms: Ms = 1_800_000
    """Figures older than this are not used for a provider: the age of its session alone is."""

    # ---- tenants and the queue
    tenants_max: int = 10_000
    guardrail_percent: int = 90
    """Of a quota: cumulative use is refused when it would reach it, concurrent use when it would pass it."""
    drift_percent: int = 10
    """A job that was charged so much more or less than its estimate is an alert."""
    share_half_life_ms: Ms = 24 * 3_600_000
    """What a tenant used counts half as much after so long: a burst of yesterday is not paid for for ever."""
    share_ahead_ms: Ms = 3_600_000
    """What a tenant holds counts beside what it used as if it went on for so long: tenants take turns within one
    moment, and over a window of some hours a burst gets what it was owed."""
    turn_max: int = 64
    """Tasks of one step that are given their first lease in one turn, before fair share looks again who is next. A
    tenant gets so many more than its due at most, and the next ones have their turns for it."""
    share_least: float = 0.5
    """Of what a tenant's weight is due among those that want or hold something: whoever lately had less is served
    before those that had more, whatever it used before. 0: what was used is paid back at once."""
    turn_share: float = 0.001
    """Of the fleet that a turn may take where it would be more: in a small fleet tenants take turns task by task."""
    aging_ms: Ms = 1_800_000
    """A line that got nothing for so long while it could be served counts as one priority higher, and so on."""
    plans_max: int = 16
    """Blocked heads of the queue that a start is planned for at a time; nothing that is let past delays one."""
    rank: str = "forecast"
    """How feasible providers are ranked: `forecast` (expected loss and fit), `fit`, `score`, `random` (by a hash). The
    others are there to be compared with."""

    rank_fit_weight: float = 0.05
    """What a provider that would be left empty but for the run counts, beside the share of the run that is expected to
    be lost there: a twentieth of the run. Fit decides among those that stay about as well."""
    rank_ahead_ms: Ms = 48 * 3_600_000
    """Shorter runs are ranked by the hazards over the run, twice as long and so on up to so long (queue/ranking.py)."""
    rank_every_ms: Ms = 60_000
    """How old the forecasts may be by which providers are ranked."""
    plan_every_ms: Ms = 5_000
    """How often a planned start is looked at anew while it stands, and looked for where there is none."""

    # ---- work
    jobs_max: int = 200_000
    """Live jobs held in memory; further ones are refused."""
    placements_max: int = 512
    """Leases that one Place event grants; it asks for another when there is more to do."""
    unanswered_max: int = 8_192
    """Grants that no agent has answered yet; beyond, nothing is placed for now."""
    unanswered_late_max: int = 256
    """The same of those that are so for a quarter of `grant_ms`: where our own disk takes seconds, grants would run out
    while they wait for it. Of 28,000 for 20,000 tasks 11,000 were taken back, and it did not end. A hung agent of a
    few slots stops nobody."""
    prefetch_ms: Ms = 500
    """Work that a provider may have lined up behind what it runs, of steps whose tasks are shorter than this: short
    tasks wait for no round trip, and nobody waits much longer for its turn."""
    prefetch_wait_ms: Ms = 5_000
    """A prefetched one that was not begun by then is called back: those before it last longer than they were taken to,
    and another provider may be free."""
    attempts_per_provider_max: int = 1_000
    """A heartbeat names every one of them."""
    term_ms: Ms = 30_000
    """How long an agent may hold a lease without a renewal. It freezes the attempt at 5/6 of it."""
    term_max_ms: Ms = 900_000
    """The longest that `on_lost = "auto"` lets a term grow."""
    term_unsaved_share: float = 0.1
    """`auto`: the term is this share of the unsaved work at stake: ten minutes for a hundred."""
    term_planned_stop_ms: Ms = 600_000
    """Added to every term, durably, before a planned stop: nobody freezes while we restart."""
    grant_ms: Ms = 10_000
    """A grant that is not acknowledged for so long is fenced, and its capacity waits out the term."""
    launch_ms: Ms = 60_000
    """An attempt that was ordered to launch and has not said that it runs is reported as slow to start."""
    retry_jitter: float = 0.25
    """A backoff is lengthened by up to this share, by a hash of the attempt's id."""
    quarantine_failures: int = 5
    """Failures in a row on one provider, of `quarantine_jobs` jobs at least, without a success between them."""
    quarantine_jobs: int = 3
    quarantine_ms: Ms = 600_000
    """The first quarantine; each further one in a row is twice as long."""
    quarantine_max_ms: Ms = 24 * 3_600_000
    storm_providers: int = 5
    """A task that failed on so many providers is not tried on another one, whatever its budget."""
    storm_failures: int = 20
    """So many retries of one job within `storm_ms` are an alert."""
    storm_ms: Ms = 600_000
    straggler_factor: float = 3.0
    """A task that runs so many times the median of its siblings, or of its expected run time, is a straggler."""
    straggler_siblings: int = 5
    """Siblings that must have ended before their median counts."""
    straggler_min_ms: Ms = 60_000
    """Nothing shorter is flagged."""

    # ---- verdicts
    verdict_wait_ms: Ms = 2_000
    """How long a failed task waits for its verdict before the rules for exit codes decide; 0: not at all."""
    avoid_ms: Ms = 6 * 3_600_000
    """How long a task is not placed where its verdict sends it away from. Afterwards it counts as worse there, half as
    much after each further so long."""
    suspicion_half_ms: Ms = 24 * 3_600_000
    """A verdict that blames a provider counts half as much after so long."""
    suspicion_weight: float = 0.25
    """The probability that a run fails on a provider that one fresh verdict of full confidence blames."""
    suspicion_tenant_max: float = 0.25
    """What the verdicts on one tenant's attempts count for against a provider, all together, at most. Less where
    tenants do not trust each other, 1 where there is one."""

    # ---- data
    blob_bytes_max: int = 1 << 42
    """Of one blob: 4 TiB."""
    uploads_max: int = 20_000
    """Uploads that are open; further ones are refused. About 0.5 kB each."""
    uploads_per_tenant_max: int = 5_000
    """Of those, of one tenant."""
    upload_ms: Ms = 24 * 3_600_000
    """An upload that gets no byte for so long is dropped, and what it reserved is free ..."""
    upload_longest_ms: Ms = 7 * 24 * 3_600_000
    """... and so is one that is not published so long after it was opened."""
    egress_again_ms: Ms = 600_000
    """A task whose inputs could not be brought, since its tenant may fetch no more, is tried again after so long."""
    blob_grace_ms: Ms = 24 * 3_600_000
    """A blob that nobody holds is kept so long: whoever has just found it there is about to refer to it."""
    checkpoint_gone_ms: Ms = 3_600_000
    """The same of what only a checkpoint had that gave way to newer ones: one of 10 GB every ten minutes would leave
    1.4 TB behind in a day. 0: it goes with the next sweep."""
    sweep_max: int = 1_000
    """Blobs that one sweep removes."""
    outputs_max: int = 1_024
    """Files of one result; more belong into an archive."""
    checkpoint_files_max: int = 4_096
    """Files of one checkpoint; more belong into an archive."""
    checkpoint_min_ms: Ms = 10_000
    """`every = "auto"` asks for none more often; nor for one within ten times what one costs."""
    checkpoint_max_ms: Ms = 4 * 3_600_000
    """`every = "auto"` asks for none less often, but of a run that should have ended by then."""
    checkpoint_first_cost_ms: Ms = 15_000
    """What one is taken to cost before any was measured."""
    progress_save_ms: Ms = 30_000
    """How often progress alone is a reason to write an attempt's row."""
    cached_max: int = 512
    """Digests that are known of a provider's cache."""
    stage_bytes_per_s: int = 50_000_000
    """How fast inputs are taken to arrive where they are not cached, before any transfer was measured: for ranking."""

    def interval_ms(self, connected: int) -> Ms:
        """The heartbeat interval that keeps `connected` agents within the budget: the usual one, or whole seconds."""
        if connected * 1_000 <= self.heartbeat_budget_per_s * self.heartbeat_interval_ms:
            return self.heartbeat_interval_ms
        return int(-(-connected // self.heartbeat_budget_per_s)) * 1_000

    def lost_ms(self, interval_ms: Ms) -> Ms:
        """How long a provider may be silent before it is lost, at this interval."""
        return max(self.lost_after_ms, 6 * interval_ms)
