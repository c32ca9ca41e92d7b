"""Where work with data is placed: where its inputs are cached, and where a loss costs least of what is not saved."""

from __future__ import annotations

from typing import Any

from coordinator.core.data import events as data
from coordinator.core.data.caches import KEY_BYTES, holds, pack
from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import ConnId, Digest, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.work.jobspec import CheckpointRule, JobSpec
from tests.depot import Depot, an_input, digest_of
from tests.site import a_job

GB = 10**9
HOUR_MS = 3_600_000


def caches(depot: Depot, name: str, *texts: str) -> None:
    conn = ConnId(depot.conn(name))
    depot.decide(data.CacheTold(at_ms=depot.now_ms, conn_id=conn, digests=tuple(map(digest_of, texts))))


def stays(depot: Depot, chances: dict[str, float], horizon_ms: int = 48 * HOUR_MS) -> None:
    """P(still here) after so long."""
    depot.decide(
        FiguresPublished(
            at_ms=depot.now_ms,
            computed_at_ms=depot.now_ms,
            horizons_ms=(horizon_ms,),
            delays_ms=(60_000,),
            providers=tuple(
                ProviderFigures(provider_id=ProviderId(n), score=0.5, stays=(p,)) for n, p in chances.items()
            ),
            fleet_stays=Curve(),
            fleet_returns=Curve(),
        )
    )


def where(depot: Depot, attempt: str) -> str:
    return depot.attempt(attempt).ranks[0].provider_id


def a_reader(*texts: str, **more: Any) -> JobSpec:
    return a_job(inputs=tuple(map(an_input, texts)), **more)


def test_work_goes_where_its_inputs_are() -> None:
    """And the choice tells how many bytes had to be brought."""
    depot = Depot("a", "b", "c")
    depot.store("big", 40 * GB)
    depot.store("other", 20 * GB)
    caches(depot, "b", "big", "other")
    caches(depot, "c", "other")
    depot.submit_with(a_reader("big"))
    assert where(depot, "1.0.0.1") == "b"
    choice = depot.attempt("1.0.0.1").choice
    assert choice is not None and choice.fetch == 0
    caches(depot, "b")
    caches(depot, "a", "other", "big")
    depot.submit_with(a_reader("big", "other"))
    assert where(depot, "2.0.0.1") == "a"
    caches(depot, "a")
    depot.submit_with(a_reader("big", "other"))
    choice = depot.attempt("3.0.0.1").choice
    assert where(depot, "3.0.0.1") == "c" and choice is not None and choice.fetch == 40 * GB


def test_a_cache_outweighs_a_better_provider_by_the_time_that_it_saves() -> None:
    """10 GB take 200 s: more than 1 % of an hour's risk, less than a third of it."""
    for chance, best in ((0.9, "b"), (0.000_001, "a")):
        depot = Depot("a", "b")
        stays(depot, {"a": 0.95, "b": chance})
        depot.store("big", 10 * GB)
        caches(depot, "b", "big")
        depot.submit_with(a_reader("big", expected_ms=HOUR_MS))
        assert where(depot, "1.0.0.1") == best


def test_who_saves_its_state_minds_a_bad_provider_less() -> None:
    """What a loss takes is an interval, not the run: then the cache decides."""
    for rule, best in ((None, "a"), (CheckpointRule(every_ms=60_000), "b"), (CheckpointRule(auto=True), "b")):
        depot = Depot("a", "b")
        stays(depot, {"a": 0.999, "b": 0.01})
        depot.store("big", 40 * GB)
        caches(depot, "b", "big")
        depot.submit_with(a_reader("big", expected_ms=10 * HOUR_MS, checkpoint=rule))
        assert where(depot, "1.0.0.1") == best, rule
        choice = depot.attempt("1.0.0.1").choice
        assert choice is not None and (choice.loss_ms < 600_000) == (rule is not None or best == "a")


def test_a_cache_is_known_by_a_few_bytes_of_each_digest() -> None:
    digests = [digest_of(str(number)) for number in range(600)]
    cached = pack(digests)
    assert len(cached) == 600 * KEY_BYTES
    assert all(holds(cached, digest) for digest in digests)
    others = [digest_of(f"other {number}") for number in range(600)]
    assert not any(holds(cached, digest) for digest in others) and not holds(b"", others[0])
    assert holds(pack([Digest("ff" * 32), Digest("00" * 32)]), Digest("ff" * 32))


def test_what_is_known_of_a_cache_is_bounded_and_kept() -> None:
    """Over a full disk and in an image; an agent that nobody knows tells nothing."""
    depot = Depot("a", policy=Policy(cached_max=2))
    caches(depot, "a", "1", "2", "3")
    assert depot.provider("a").cached == pack([digest_of("1"), digest_of("2")])
    depot.disk_was_full()
    assert len(depot.provider("a").cached) == 2 * KEY_BYTES
    depot.decide(data.CacheTold(at_ms=depot.now_ms, conn_id=ConnId(99), digests=(digest_of("1"),)))
