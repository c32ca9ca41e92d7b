"""A step that takes what another one made is placed where that lies already."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.core import events
from coordinator.core.commands import Launch
from coordinator.core.data import events as data
from coordinator.core.data.caches import KEY_BYTES, holds, to_fetch
from coordinator.core.data.rows import FileEntry
from coordinator.core.ids import ConnId, JobId
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.queue.lines import FETCHED_MAX
from coordinator.core.work.jobspec import Input, JobSpec
from tests.builders import sent
from tests.depot import Depot, an_input, digest_of
from tests.site import a_job, a_step

GB = 10**9


def a_chain(*patterns: str, tasks: int = 1, **more: object) -> JobSpec:
    """`make` takes `seed`, by which it is placed; `use` takes what it made."""
    inputs = tuple(Input(path="", step=0, pattern=pattern) for pattern in patterns)
    make = a_step("make", inputs=(an_input("seed"),), outputs=("*",), tasks=tasks)
    return a_job(make, a_step("use", inputs=inputs, needs=(0,), **more))


def a_depot(policy: Policy | None = None) -> Depot:
    """Where `seed` is on b."""
    depot = Depot("a", "b", policy=policy)
    depot.store("seed", 40 * GB)
    told(depot, "b", "seed")
    return depot


def told(depot: Depot, name: str, *texts: str) -> None:
    conn = ConnId(depot.conn(name))
    depot.decide(data.CacheTold(at_ms=depot.now_ms, conn_id=conn, digests=tuple(map(digest_of, texts))))


def made(depot: Depot, attempt: str, *paths: str, size: int = GB, cached: bool = True) -> None:
    """Its program has ended and left these files."""
    claim = depot.claim(attempt)
    for path in paths:
        depot.store(path, size, claim=claim)
    files = tuple(FileEntry(path=path, digest=digest_of(path), size=size) for path in sorted(paths))
    depot.publish(claim, files=files, cached=tuple(file.digest for file in files) if cached else ())


def placed(depot: Depot, attempt: str = "1.1.0.1") -> tuple[str, int]:
    """Where, and how many bytes had to be brought there."""
    row = depot.attempt(attempt)
    assert row.choice is not None
    return row.ranks[0].provider_id, row.choice.fetch


@pytest.mark.parametrize("cached", [True, False])
def test_a_step_goes_to_the_node_that_made_what_it_takes(cached: bool) -> None:
    """Where both are equally good, and if it kept a copy. What it reads of other steps is counted beside its blobs."""
    depot = a_depot()
    depot.store("other", 2 * GB)
    spec = a_chain("big.bin")
    use = msgspec.structs.replace(spec.steps[1], inputs=(*spec.steps[1].inputs, an_input("other")))
    depot.submit_with(msgspec.structs.replace(spec, steps=(spec.steps[0], use)))
    assert placed(depot, "1.0.0.1") == ("b", 0)
    made(depot, "1.0.0.1", "big.bin", "unused.bin", cached=cached)
    assert placed(depot) == (("b", 2 * GB) if cached else ("a", 3 * GB))


def test_what_its_pattern_cannot_mean_is_not_counted() -> None:
    """Small files are not either; a pattern means what lies beneath the directory that it begins with."""
    depot = a_depot()
    depot.submit_with(a_chain("./parts/*/last.bin", "log.bin"))
    made(depot, "1.0.0.1", "parts/1/last.bin", "parts.bin", "logs/log.bin", cached=False)
    assert placed(depot)[1] == GB
    depot.submit_with(a_chain("*.bin"))
    made(depot, "2.0.0.1", "small.bin", size=999_999, cached=False)
    assert placed(depot, "2.1.0.1")[1] == 0


def test_files_of_each_task_alone_say_nothing() -> None:
    """Tasks that stand in one line take the same, or nothing is known of what they take."""
    depot = a_depot()
    depot.submit_with(a_chain("{index}.bin", array=True, tasks=1))
    made(depot, "1.0.0.1", "0.bin", cached=False)
    assert placed(depot)[1] == 0


def test_of_many_files_the_largest_are_known() -> None:
    """Of all tasks together: what is kept of a step is bounded."""
    depot = a_depot()
    depot.submit_with(a_chain("**", tasks=3))
    for task in range(3):
        made(depot, f"1.0.{task}.1", *(f"{task}-{number}" for number in range(10)), size=(task + 1) * GB, cached=False)
    assert placed(depot)[1] == 10 * 3 * GB + (FETCHED_MAX - 10) * 2 * GB


def test_what_is_kept_for_later_steps_is_told_to_the_agent() -> None:
    """The patterns of all steps behind, each once."""
    depot = a_depot()
    spec = a_chain("big.bin", "*.txt")
    again = a_step("again", inputs=spec.steps[1].inputs[:1], needs=(0,))
    depot.submit_with(msgspec.structs.replace(spec, steps=(*spec.steps, again)))
    assert [("big.bin", "*.txt")] == [m.passed_on for d in depot.decisions for _, m in sent(d, Launch)]
    made(depot, "1.0.0.1", "big.bin")
    assert [("big.bin", "*.txt"), (), ()] == [m.passed_on for d in depot.decisions for _, m in sent(d, Launch)]


def test_a_copy_is_known_besides_what_was_told_and_within_the_bound() -> None:
    """The next word of the agent replaces it."""
    depot = a_depot(Policy(cached_max=2))
    told(depot, "b", "seed", "old")
    depot.submit_with(a_chain("*"))
    made(depot, "1.0.0.1", "big.bin")
    cached = depot.provider("b").cached
    assert len(cached) == 2 * KEY_BYTES and holds(cached, digest_of("big.bin"))
    told(depot, "b", "seed")
    assert not holds(depot.provider("b").cached, digest_of("big.bin"))
    assert to_fetch(depot.provider("b").cached, [(digest_of("big.bin"), GB)]) == GB


def waiting_chain() -> Depot:
    """`use` waits for a place, and knows what it takes."""
    depot = a_depot()
    depot.submit_with(a_chain("*", labels=(("zone", "nowhere"),)))
    made(depot, "1.0.0.1", "big.bin")
    assert depot.state.work.jobs[JobId(1)].steps[1].line is not None
    return depot


def test_what_a_step_takes_outlives_a_full_disk_and_a_restart_and_is_in_an_image() -> None:
    """Its line is that of what it takes."""
    depot = waiting_chain()
    (line,) = depot.state.work.queue
    assert line.shape.inputs == ((digest_of("big.bin"), GB),)
    packed = msgspec.msgpack.encode(image_of(depot.state))
    copy = state_of(msgspec.msgpack.decode(packed, type=StateImage))
    copy.check_invariants()
    assert list(copy.work.queue) == [line] and image_of(copy) == image_of(depot.state)
    depot.disk_was_full()
    depot.state.check_invariants()
    assert list(depot.state.work.queue) == [line]
    depot.decide(events.Tick(at_ms=depot.now_ms + 1_000))
    assert list(depot.state.work.queue) == [line]
    depot.restart(depot.now_s + 1)
    depot.state.check_invariants()
    assert list(depot.state.work.queue) == [line]
