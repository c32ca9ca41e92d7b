"""Metering of bytes: an account's counts are the sums of its ledger, by the hour; no quota is passed."""

from __future__ import annotations

from coordinator.core import events
from coordinator.core.data import events as data
from coordinator.core.data.room import check_egress
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, UploadId
from coordinator.core.policy import Policy
from coordinator.core.rows import LedgerRow
from coordinator.core.tenants.months import begins_ms, month_of
from coordinator.core.work.jobspec import Estimate, JobSpec
from tests.builders import START_MS, refusal
from tests.depot import Depot, outcome
from tests.site import TENANT, a_step

HOUR_S = 3_600


def moved(depot: Depot, ingress: int = 0, egress: int = 0, tenant: TenantName = TENANT) -> None:
    what = (data.Moved(tenant=tenant, ingress=ingress, egress=egress),)
    depot.decide(data.BytesMoved(at_ms=depot.now_ms, moved=what))


def limit(depot: Depot, **quota: int | None) -> None:
    told = tuple(quota.items())
    outcome(depot.decide(events.TenantSet(at_ms=depot.now_ms, request_id=depot.request(), name=TENANT, quota=told)))


def ledger(depot: Depot, kind: str) -> list[int]:
    rows = [row for row in depot.all(LedgerRow) if row.kind == kind]
    return [row.amount for row in sorted(rows, key=lambda row: row.seq)]


def test_what_moves_in_an_hour_is_one_row_that_grows() -> None:
    depot = Depot()
    moved(depot, ingress=5, egress=7)
    depot.at(100)
    moved(depot, ingress=1)
    depot.at(2 * HOUR_S)
    moved(depot, egress=3)
    assert ledger(depot, "ingress") == [6] and ledger(depot, "egress") == [7, 3]
    assert (depot.account().ingress, depot.account().egress) == (6, 10)
    depot.restart(2 * HOUR_S + 10)
    moved(depot, egress=2)
    assert ledger(depot, "egress") == [7, 5], "the hour's row goes on after a restart"


def test_storage_is_metered_by_how_long_it_is_kept() -> None:
    """In megabyte-seconds, what is no whole one carried on; also while nothing changes."""
    depot = Depot()
    into_s = START_MS % (HOUR_S * 1_000) // 1_000
    depot.store("x", 3_000_000)
    depot.at(10)
    depot.store("y", 500_001)
    for minute in range(1, 190):
        depot.at(60 * minute)
        depot.tick()
    rows = ledger(depot, "storage")
    first_s = HOUR_S - into_s
    assert rows[0] == (3_000_000 * 10 + 3_500_001 * (first_s - 10)) // 10**6
    assert len(rows) == 4 and sum(rows) == depot.account().storage_mb_s
    assert rows[1] in (3_500_001 * HOUR_S // 10**6, 3_500_001 * HOUR_S // 10**6 + 1)


def test_a_month_turns_with_what_was_kept_until_then() -> None:
    depot = Depot()
    depot.store("x", 1_000_000)
    moved(depot, ingress=9)
    turn_ms = begins_ms(month_of(START_MS) + 1)
    depot.now_ms = turn_ms + 5_000
    moved(depot, ingress=1)
    depot.store("y", 1)
    account = depot.account()
    assert account.month == month_of(turn_ms) and account.ingress == 1 and account.storage_mb_s == 5
    before = [row for row in depot.all(LedgerRow) if row.kind == "storage" and row.month < account.month]
    assert sum(row.amount for row in before) == (turn_ms - START_MS) // 1_000
    assert all(month_of(row.at_ms) == row.month for row in depot.all(LedgerRow))


def test_what_moved_is_counted_though_a_full_disk_undid_it() -> None:
    depot = Depot()
    moved(depot, ingress=5)
    depot.durable = False
    mark = len(depot.decisions)
    moved(depot, ingress=7, egress=2)
    depot.durable = True
    undone = depot.decisions[mark:]
    depot.write(depot.disk_was_full(*undone))
    assert (depot.account().ingress, depot.account().egress) == (12, 2)
    moved(depot, ingress=1)
    assert depot.account().ingress == 13 and ledger(depot, "ingress") == [13]


def test_storage_is_refused_at_its_guardrail() -> None:
    """What is kept, what is being uploaded and what live jobs declared counts; what is there already is no more."""
    depot = Depot()
    limit(depot, storage=1_000)
    depot.store("x", 500)
    upload = depot.opened("y", 300)
    refused = refusal(depot.open("z", 100))
    assert refused.code is Code.QUOTA and refused.hint
    (found,) = refused.refusals
    assert (found.dimension, found.used, found.reserved, found.request, found.guardrail) == (
        "storage",
        500,
        300,
        100,
        900,
    )
    outcome(depot.open("x", 500))
    outcome(depot.drop(upload.upload_id))
    depot.store("z", 100)
    assert depot.warned("quota_90") == []
    depot.opened("w", 299)
    assert depot.account().storage == 600


def test_what_a_job_declared_is_its_own_attempts_to_use() -> None:
    depot = Depot("a")
    limit(depot, storage=1_000)
    outcome(depot.submit(JobSpec(name="j", steps=(a_step(outputs=("*.out",)),), estimate=Estimate(storage=600))))
    claim = depot.claim("1.0.0.1")
    assert refusal(depot.open("z", 300)).code is Code.QUOTA
    depot.store("x", 500, claim=claim)
    assert refusal(depot.open("y", 400, claim=claim)).code is Code.QUOTA


def test_ingress_is_taken_before_it_has_arrived() -> None:
    """An upload counts when it is opened; what arrived of it is not counted twice."""
    depot = Depot()
    limit(depot, ingress=1_000)
    upload = depot.opened("x", 600)
    assert refusal(depot.open("y", 300)).code is Code.QUOTA
    moved(depot, ingress=600)
    outcome(depot.done(upload, "x"))
    assert refusal(depot.open("y", 300)).code is Code.QUOTA
    depot.opened("y", 299)


def test_egress_is_refused_at_its_guardrail() -> None:
    depot = Depot()
    limit(depot, egress=1_000)
    moved(depot, egress=600)
    check_egress(depot.state, TENANT, 200, 99, depot.policy)
    try:
        check_egress(depot.state, TENANT, 200, 100, depot.policy)
    except CoordError as error:
        assert error.code is Code.QUOTA and error.refusals[0].dimension == "egress"
    else:
        raise AssertionError("it was let through")


def test_uploads_are_bounded_and_expire() -> None:
    depot = Depot(policy=Policy(uploads_per_tenant_max=2, upload_ms=60_000))
    depot.opened("x")
    depot.opened("y")
    assert refusal(depot.open("z")).code is Code.TOO_MANY
    depot.at(61)
    depot.tick()
    assert depot.state.data.uploads == {} and depot.state.work.accounts.of(TENANT).uploads == 0
    depot.opened("z")


def test_an_upload_that_gets_bytes_is_open_for_longer_but_not_for_ever() -> None:
    """Its time counts from its last byte, up to a total; its row says so after a restart. What is no more moves
    nothing; bytes that come thick and fast write no row each."""
    depot = Depot(policy=Policy(upload_ms=60_000, upload_longest_ms=150_000))
    upload = depot.opened("x")

    def moved() -> int:
        what = data.BytesMoved(at_ms=depot.now_ms, moved=(), uploads=(upload.upload_id, UploadId("gone")))
        return len(depot.decide(what).writes)

    written = []
    for second in (1, 2, 50, 51, 100, 140):
        depot.at(second)
        written.append(moved())
        depot.tick()
    assert written == [0, 0, 1, 0, 1, 0]
    depot.restart(141)
    assert depot.state.data.uploads[upload.upload_id].expires_at_ms == START_MS + 150_000
    depot.at(151)
    depot.tick()
    assert depot.state.data.uploads == {} and moved() == 0


def test_uploads_survive_a_restart() -> None:
    depot = Depot()
    upload = depot.opened("x", 70)
    depot.restart(5)
    assert depot.opened("x", 70) == upload
    assert depot.state.work.accounts.of(TENANT).uploads == 70
    outcome(depot.done(upload, "x"))
