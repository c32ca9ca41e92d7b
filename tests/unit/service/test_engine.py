"""The engine: writes before words, in order; one commit in flight while deciding goes on; full and broken disks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from coordinator.core import commands, events
from coordinator.core.amounts import Ask, Share
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ConnId, JobId, Ms, PoolName, ProviderId, RequestId, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    AuditRow,
    EndReason,
    LeaseToken,
    PoolRow,
    Promises,
    Resources,
    Role,
    TokenRow,
)
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.service import recorder as recorder_module
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.recorder import Recorder, decision_crc, read_dump, replay
from coordinator.service.views import LiveViews
from store.memory import MemoryStore
from tests.builders import ADMIN, JOIN, START_MS, Fleet, a_hello, an_enrolment

FULL = CoordError(Code.STORE_FULL, "the disk is full", "make room")
BROKEN = CoordError(Code.STORE_BROKEN, "a sync failed", "look at the disk")


async def until(holds: Callable[[], bool]) -> None:
    """Let the engine take its turns until `holds`."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  the engine has no event for every turn, and a turn is all it takes
            await asyncio.sleep(0)


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ms: Ms = START_MS
        self.wall_step_ms: Ms = 0
        self.looks = 0

    def now_ms(self) -> Ms:
        return self.ms

    def now_ns(self) -> int:
        return self.ms * 1_000_000

    def boot_ns(self) -> int:
        return self.now_ns() - START_MS * 1_000_000

    def monotonic_s(self) -> float:
        return self.ms / 1_000

    def wall_ms(self) -> Ms:
        self.looks += 1
        return self.ms + self.wall_step_ms


class Still(Engine):
    """Ticks are the test's own."""

    async def _tick(self) -> None:
        await asyncio.Event().wait()


class SlowStore(MemoryStore):
    """Commits wait for the test; how many were under way at once is counted."""

    def __init__(self) -> None:
        super().__init__("head")
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: asyncio.Queue[list[commands.Write]] = asyncio.Queue()
        self.under_way = 0
        self.under_way_max = 0

    async def commit(self, writes: Sequence[commands.Write]) -> None:
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        self.begun.put_nowait(list(writes))
        try:
            await self.gate.wait()
            await super().commit(writes)
        finally:
            self.under_way -= 1

    async def next_commit(self) -> list[commands.Write]:
        """The writes of the next commit that begins, from now on."""
        return await asyncio.wait_for(self.begun.get(), 60)


class Rig:
    """An engine at work, with what it said in order."""

    def __init__(
        self, store: SlowStore, recordings: Path, settings: EngineSettings, kind: type[Engine] = Still
    ) -> None:
        self.store = store
        self.clock = HandClock()
        self.views = LiveViews()
        self.said: list[object] = []
        self.recorder = Recorder(recordings)
        state = ClusterState.load("head", [JOIN, ADMIN], 1, 1)
        self.engine = kind(store, self.clock, self.views, Policy(), settings, self.recorder, state)
        self.engine.bind_links(self)
        self.beats: list[events.Beat] = []
        self.engine.set_beats_source(self._take)
        self.views.listen(lambda note: self.said.append(type(note).__name__))

    def send(self, conn_id: ConnId, message: commands.Message) -> None:
        for send in commands.sends_one_by_one([commands.Send(conn_id, message)]):
            self.said.append((conn_id, type(send.message).__name__))

    async def drained(self) -> None:
        """There are no sockets here."""

    def _take(self) -> tuple[events.Beat, ...]:
        taken, self.beats = tuple(self.beats), []
        return taken

    def pool(self, name: str) -> asyncio.Task[commands.Result]:
        """Ask for a pool; what was answered joins what was said."""

        async def asked() -> commands.Result:
            try:
                result = await self.engine.call(
                    lambda r: events.PoolCreate(at_ms=self.clock.ms, request_id=r, name=PoolName(name))
                )
            except CoordError as error:
                self.said.append((name, error.code))
                raise
            self.said.append((name, "made"))
            return result

        return asyncio.ensure_future(asked())

    async def decided(self, count: int) -> None:
        """Until so many decisions were made."""
        await until(lambda: self.engine.counters.decisions >= count)

    async def enrol_and_connect(self, provider: str = "a", conn: int = 1) -> None:
        await self.engine.call(lambda r: msgspec.structs.replace(an_enrolment(provider), request_id=r))
        self.engine.post(a_hello(conn, provider))
        await until(lambda: (conn, "Welcome") in self.said)


def with_engine(
    test: Callable[[Rig], Awaitable[None]], recordings: Path, settings: EngineSettings | None = None
) -> None:
    """Run `test` beside an engine that ticks never, retries at once and is stopped at the end."""

    async def main() -> None:
        rig = Rig(SlowStore(), recordings, settings or EngineSettings(retry_s=0.0))
        await MemoryStore.commit(rig.store, [commands.Put(JOIN), commands.Put(ADMIN)])
        running = asyncio.ensure_future(rig.engine.run())
        rig.engine.post(events.Boot(at_ms=rig.clock.ms))
        await rig.store.next_commit()
        await test(rig)
        rig.store.gate.set()
        await rig.engine.stop()
        await asyncio.wait_for(running, 60)
        assert rig.store.under_way_max == 1

    asyncio.run(main())


def test_nothing_is_said_before_its_writes_are_durable(tmp_path: Path) -> None:
    """Reply, send, note and view wait for the commit."""

    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect()
        rig.store.gate.clear()
        said = list(rig.said)
        drained = asyncio.ensure_future(
            rig.engine.call(
                lambda r: events.ProviderDrain(at_ms=rig.clock.ms, request_id=r, provider_id=ProviderId("a"))
            )
        )
        while not any(isinstance(w, commands.Put) for w in await rig.store.next_commit()):
            pass
        await rig.decided(4)
        assert said == rig.said and not drained.done()
        assert not rig.views.providers[ProviderId("a")].drained
        rig.store.gate.set()
        await drained
        assert [(1, "TellDrain"), "ProviderChanged"] == [s for s in rig.said[len(said) :] if s != "Audited"]
        assert rig.views.providers[ProviderId("a")].drained

    with_engine(test, tmp_path)


def test_deciding_goes_on_while_one_commit_is_in_flight(tmp_path: Path) -> None:
    """What is decided meanwhile is one commit, and speaks in its order after it."""

    async def test(rig: Rig) -> None:
        rig.store.gate.clear()
        first = rig.pool("one")
        assert ["one"] == [
            w.row.name
            for w in await rig.store.next_commit()
            if isinstance(w, commands.Put) and isinstance(w.row, PoolRow)
        ]
        others = [rig.pool(name) for name in ("two", "three", "two", "four")]
        await rig.decided(6)
        assert not any(task.done() for task in (first, *others))
        rig.store.gate.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(results[3], CoordError)
        names = [
            w.row.name
            for w in await rig.store.next_commit()
            if isinstance(w, commands.Put) and isinstance(w.row, PoolRow)
        ]
        assert ["two", "three", "four"] == names
        answers = [said for said in rig.said if isinstance(said, tuple)]
        assert [
            ("one", "made"),
            ("two", "made"),
            ("three", "made"),
            ("two", Code.CONFLICT),
            ("four", "made"),
        ] == answers

    with_engine(test, tmp_path)


def test_a_refusal_never_overtakes_what_it_rests_on(tmp_path: Path) -> None:
    """It says that a pool exists: it may not say so before the pool is durable."""

    async def test(rig: Rig) -> None:
        rig.store.gate.clear()
        first, second = rig.pool("lab"), rig.pool("lab")
        await rig.decided(3)
        assert not second.done()
        rig.store.gate.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert [("lab", "made"), ("lab", Code.CONFLICT)] == [said for said in rig.said if isinstance(said, tuple)]

    with_engine(test, tmp_path)


def test_heartbeats_received_so_far_count_before_any_event(tmp_path: Path) -> None:
    """A tick and a heartbeat wait together: the heartbeat is heard first."""

    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect()
        rig.clock.ms += 29_000
        rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        rig.clock.ms += 2_000
        rig.beats = [events.Beat(conn_id=ConnId(1), received_ms=rig.clock.ms)]
        rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        await rig.decided(5)
        assert Liveness.ONLINE is rig.engine.state.providers[ProviderId("a")].phase

    with_engine(test, tmp_path)


def test_ticks_that_wait_are_one(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        for _ in range(100):
            rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        assert 1 == rig.engine.inbox_depth

    with_engine(test, tmp_path)


def test_a_step_of_the_wall_clock_is_told_even_when_its_tick_was_dropped(tmp_path: Path) -> None:
    """A tick that finds another one waiting (the disk is slow) is dropped; the next one tells of the step."""

    async def main() -> None:
        rig = Rig(SlowStore(), tmp_path, EngineSettings(undurable_max=1), Engine)
        rig.engine.policy = Policy(tick_ms=1)
        rig.store.gate.clear()
        running = asyncio.ensure_future(rig.engine.run())
        rig.engine.post(events.Boot(at_ms=rig.clock.ms))
        await until(lambda: rig.engine.counters.decisions == 2 and rig.engine.inbox_depth == 1)
        rig.clock.wall_step_ms = 60_000
        looks = rig.clock.looks
        await until(lambda: rig.clock.looks >= looks + 3)
        assert 1 == rig.engine.inbox_depth
        rig.store.gate.set()
        await until(lambda: "Warned" in rig.said)
        await rig.engine.stop()
        await asyncio.wait_for(running, 60)
        assert 1 == rig.said.count("Warned")

    asyncio.run(main())


def test_a_full_inbox_refuses_calls(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        tasks = [rig.pool(f"p{i}") for i in range(12)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        codes = [result.code for result in results if isinstance(result, CoordError)]
        assert {Code.TOO_MANY} == set(codes) and 2 == len(codes) == rig.engine.counters.refused

    with_engine(test, tmp_path, EngineSettings(retry_s=0.0, inbox_max=10))


def test_a_full_disk_undoes_what_it_did_not_take_and_goes_on(tmp_path: Path) -> None:
    """Everybody whose request is undone is told; nothing undone is ever seen; connections stay."""

    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect()
        await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("b"), request_id=r))
        rig.store.gate.clear()
        lost = [rig.pool("lab"), rig.pool("attic")]
        rig.engine.post(a_hello(2, "b"))
        await rig.decided(7)
        rig.store.fault = FULL
        rig.store.gate.set()
        assert 0 == rig.engine.counters.ends_undone
        for answer in await asyncio.gather(*lost, return_exceptions=True):
            assert isinstance(answer, CoordError) and Code.STORE_FULL is answer.code
        assert {} == rig.views.pools == rig.engine.state.pools
        assert (2, "Welcome") not in rig.said and (2, "CloseLink") in rig.said
        assert {ConnId(1)} == set(rig.engine.state.conns)
        rig.store.fault = None
        assert isinstance(await rig.pool("lab"), PoolRow)
        assert rig.engine.full_since_ms is None and rig.engine.counters.rollbacks >= 1

    with_engine(test, tmp_path)


def test_a_question_is_answered_while_the_disk_is_full(tmp_path: Path) -> None:
    """By what is durable, also where it was decided together with what the disk refused."""

    async def test(rig: Rig) -> None:
        await rig.pool("lab")
        rig.store.fault = FULL
        rig.store.gate.clear()

        def explained(request_id: RequestId) -> events.AnyEvent:
            return events.JobExplain(at_ms=rig.clock.ms, request_id=request_id, tenant=None, job_id=JobId(7))

        refused = rig.pool("attic")
        await rig.store.next_commit()
        asked = [asyncio.ensure_future(rig.engine.call(explained)) for _ in range(2)]
        await rig.decided(rig.engine.counters.decisions + 2)
        rig.store.gate.set()
        with pytest.raises(CoordError) as caught:
            await refused
        assert Code.STORE_FULL is caught.value.code
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, CoordError) and Code.NOT_FOUND is answer.code, answer
        assert rig.engine.full_since_ms is not None

    with_engine(test, tmp_path)


def test_an_end_that_the_disk_refuses_is_counted_and_made_again(tmp_path: Path) -> None:
    """A failed close is retried until it is durable, with its first reason, and is not forgotten."""

    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect()
        rig.store.fault = FULL
        rig.engine.post(events.AgentBye(at_ms=rig.clock.ms, conn_id=ConnId(1)))
        await until(lambda: rig.engine.counters.ends_undone == 1)
        rig.clock.ms += 1_000
        rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        await until(lambda: rig.engine.counters.ends_undone == 2)
        rig.store.fault = None
        rig.clock.ms += 1_000
        rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        await until(lambda: "SessionEnded" in rig.said)
        (row,) = await rig.store.sessions(ProviderId("a"), 0, 9)
        assert (EndReason.CLEAN_CLOSE, 2) == (row.disconnect_reason, rig.engine.counters.ends_undone)

    with_engine(test, tmp_path)


def test_a_broken_disk_ends_the_engine_and_nothing_unsaid_was_acknowledged(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(SlowStore(), tmp_path, EngineSettings())
        running = asyncio.ensure_future(rig.engine.run())
        rig.engine.post(events.Boot(at_ms=rig.clock.ms))
        await rig.store.next_commit()
        rig.store.fault = BROKEN
        asked = rig.pool("lab")
        with pytest.raises(BaseExceptionGroup) as ended:
            await asyncio.wait_for(running, 60)
        (error,) = ended.value.exceptions
        assert isinstance(error, CoordError) and Code.STORE_BROKEN is error.code
        with pytest.raises(CoordError):
            await asked
        assert ("lab", "made") not in rig.said and {} == rig.views.pools

    asyncio.run(main())


def test_a_stop_tells_the_agents_and_ends_no_session(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect()
        await rig.engine.stop()
        rig.engine.post(events.LinkClosed(at_ms=rig.clock.ms, conn_id=ConnId(1)))
        with pytest.raises(CoordError) as refused:
            await rig.engine.call(lambda r: events.PoolCreate(at_ms=rig.clock.ms, request_id=r, name=PoolName("lab")))
        assert Code.SHUTTING_DOWN is refused.value.code
        await until(lambda: (1, "CloseLink") in rig.said)
        loaded = await rig.store.load()
        assert 1 == len([row for row in loaded.rows if hasattr(row, "connected_at_ms")])

    with_engine(test, tmp_path)


# ---- the recorder


async def an_eventful_life(rig: Rig) -> None:
    await rig.enrol_and_connect()
    for second in range(1, 60):
        rig.clock.ms += 1_000
        if second < 20 and second % 5 == 0:
            rig.beats = [events.Beat(conn_id=ConnId(1), received_ms=rig.clock.ms)]
        rig.engine.post(events.Tick(at_ms=rig.clock.ms))
        await until(lambda: not rig.engine.inbox_depth)
        if second == 30:
            await asyncio.gather(rig.pool("lab"), rig.pool("lab"), return_exceptions=True)
            rig.store.fault = FULL
            await asyncio.gather(rig.pool("attic"), return_exceptions=True)
            rig.store.fault = None
    await rig.pool("cellar")


def test_a_recording_replays_decision_by_decision(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        await an_eventful_life(rig)
        path = rig.recorder.dump("a test")
        assert path is not None
        outcome = replay(path)
        assert (None, None, "a test") == (outcome.diverged_at, outcome.failed_at, outcome.why)
        assert outcome.events == len(read_dump(path)[2]) >= 25

    with_engine(test, tmp_path)


def test_a_recording_that_was_decided_otherwise_is_noticed_where_it_differs(tmp_path: Path) -> None:
    """The same events under another patience: the replay names the first decision that differs."""

    async def test(rig: Rig) -> None:
        await an_eventful_life(rig)
        path = rig.recorder.dump("a test")
        assert path is not None
        whole = path.read_bytes()
        changed = whole.replace(
            msgspec.msgpack.encode({"alive_every_ms": 5_000})[1:], msgspec.msgpack.encode({"alive_every_ms": 1_001})[1:]
        )
        assert whole != changed
        path.write_bytes(changed)
        assert replay(path).diverged_at is not None

    with_engine(test, tmp_path)


def test_a_torn_recording_replays_up_to_the_tear(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        await an_eventful_life(rig)
        path = rig.recorder.dump("a test")
        assert path is not None
        before = len(read_dump(path)[2])
        path.write_bytes(path.read_bytes()[:-3])
        assert before - 1 == replay(path).events

    with_engine(test, tmp_path)


def test_no_secret_is_in_a_recording(tmp_path: Path) -> None:
    """Only digests enter the core: the text of a token is nowhere in what is kept."""

    async def test(rig: Rig) -> None:
        await rig.engine.call(
            lambda r: events.TokenCreate(
                at_ms=rig.clock.ms, request_id=RequestId(r), token_id=TokenId("t"), digest="0f" * 32, role=Role.ADMIN
            )
        )
        path = rig.recorder.dump("a test")
        assert path is not None and path.stat().st_mode & 0o077 == 0
        kept = [row for row in rig.engine.state.tokens.values() if isinstance(row, TokenRow)]
        assert b"0f0f" in path.read_bytes() and all("secret" not in str(row) for row in kept)

    with_engine(test, tmp_path)


def test_a_state_too_large_to_be_recorded_is_not_and_is_again_when_it_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image holds the loop up, and a dump says that there is nothing; later ones replay."""
    monkeypatch.setattr(recorder_module, "ENTRIES_MAX", 2)
    monkeypatch.setattr(recorder_module, "LOOK_AGAIN", 3)
    fleet = Fleet("a", "b", "c")
    recorder = Recorder(tmp_path)
    recorder.begin(fleet.state, fleet.policy)

    def happens(event: events.AnyEvent) -> None:
        recorder.note(event, fleet.decide(event))

    happens(events.Tick(at_ms=fleet.now_ms))
    assert recorder.dump("too large") is None
    happens(events.ProviderForget(at_ms=fleet.now_ms, request_id=RequestId(9), provider_id=ProviderId("a")))
    for _ in range(3):
        happens(events.Tick(at_ms=fleet.now_ms))
    path = recorder.dump("small again")
    assert path is not None and replay(path).diverged_at is None


def test_large_submissions_do_not_outgrow_the_recorder(tmp_path: Path) -> None:
    """Megabytes of specifications go by; what is held stays within twice the bound and one event, and replays."""
    fleet, bytes_max = Fleet("a"), 2_000_000
    recorder = Recorder(tmp_path, bytes_max)
    recorder.begin(fleet.state, fleet.policy)
    for number in range(12):
        spec = JobSpec(name="j", steps=(StepSpec(name="main", command=("true",), stdin="x" * 400_000),))
        request = fleet.request()
        events_of_one = (
            events.JobSubmit(at_ms=fleet.now_ms, request_id=request, tenant=TenantName("default"), by="t", spec=spec),
            events.JobCancel(
                at_ms=fleet.now_ms, request_id=fleet.request(), tenant=None, by="t", job_id=JobId(number + 1)
            ),
        )
        for event in events_of_one:
            recorder.note(event, fleet.decide(event))
        held = sum(map(len, (*recorder._now, *recorder._before)))
        assert held <= 2 * bytes_max + 400_000
    path = recorder.dump("test")
    assert path is not None and replay(path).diverged_at is None


# ---- work


def a_submission(request_id: RequestId, tasks: int = 1) -> events.JobSubmit:
    steps = (StepSpec(name="main", command=("true",), tasks=tasks, array=((0, tasks - 1, 1),)),)
    spec = JobSpec(name="j", steps=steps)
    return events.JobSubmit(
        at_ms=START_MS, request_id=request_id, tenant=TenantName("default"), by="token:1", spec=spec
    )


def a_worker(conn: int, provider: str = "a") -> events.AgentHello:
    """The hello of an agent that runs attempts, on a machine of four cores."""
    hello = a_hello(conn, provider)
    resources = Resources(cpus=4.0, memory_gb=8.0)
    return msgspec.structs.replace(hello, resources=resources, promises=Promises(work=True))


def test_every_event_is_stamped_when_it_is_decided(tmp_path: Path) -> None:
    """The audit rows of what it led to carry the very nanoseconds; a replay finds them in the recording."""

    async def test(rig: Rig) -> None:
        rig.store.gate.clear()
        job = asyncio.ensure_future(rig.engine.call(a_submission))
        rig.clock.ms += 5_000
        writes = await rig.store.next_commit()
        rig.store.gate.set()
        await job
        rows = [w.row for w in writes if isinstance(w, commands.Put) and isinstance(w.row, AuditRow)]
        assert rows and {(row.wall_ns, row.mono_ns) for row in rows} == {
            ((START_MS + 5_000) * 1_000_000, 5_000 * 1_000_000)
        }
        path = rig.engine.dump_recording("test")
        assert path is not None
        assert replay(path).diverged_at is None

    with_engine(test, tmp_path)


def test_a_planned_stop_extends_the_leases_durably_before_it_says_good_bye(tmp_path: Path) -> None:
    """`stop` returns when the longer terms are on the disk and told; the close comes after them."""

    async def test(rig: Rig) -> None:
        await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("a"), request_id=r))
        rig.engine.post(a_worker(1))
        await rig.engine.call(a_submission)
        await until(lambda: (1, "Grant") in rig.said)
        (attempt,) = rig.engine.state.work.attempts.values()
        token, before_ms = attempt.row.token, attempt.row.term_ms
        granted = events.AgentGranted(
            at_ms=rig.clock.ms, conn_id=ConnId(1), attempt_id=attempt.row.attempt_id, rank=0, token=token
        )
        rig.engine.post(granted)
        await until(lambda: (1, "Launch") in rig.said)
        rig.store.gate.clear()
        stopping = asyncio.ensure_future(rig.engine.stop())
        await until(lambda: rig.store.under_way == 1)
        assert (1, "Renew") not in rig.said and not stopping.done()
        rig.store.gate.set()
        await stopping
        assert rig.said.index((1, "Renew")) < rig.said.index((1, "CloseLink"))
        row = await rig.store.attempt(attempt.row.attempt_id)
        assert row is not None and row.term_ms == before_ms + Policy().term_planned_stop_ms

    with_engine(test, tmp_path)


def test_a_stop_does_not_wait_for_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """It returns after its patience; the process ends, and what was not durable was never said."""

    async def main() -> None:
        rig = Rig(SlowStore(), tmp_path, EngineSettings(stop_s=0.05))
        rig.store.gate.clear()
        running = asyncio.ensure_future(rig.engine.run())
        rig.engine.post(events.Boot(at_ms=rig.clock.ms))
        await rig.store.next_commit()
        async with asyncio.timeout(60):
            await rig.engine.stop()
        assert not running.done()
        rig.store.gate.set()
        await asyncio.wait_for(running, 60)

    asyncio.run(main())


def test_what_cannot_be_recorded_stops_nobody(tmp_path: Path) -> None:
    """A number beyond 64 bits in an event: it is decided, the recording begins anew later."""

    async def test(rig: Rig) -> None:
        rig.engine.post(
            events.TenantSet(
                at_ms=rig.clock.ms, request_id=RequestId(0), name=TenantName("a"), create=True, weight=10**30
            )
        )
        await rig.pool("lab")
        assert "lab" in rig.engine.state.pools and rig.recorder.dump("a test") is None

    with_engine(test, tmp_path)


def test_steps_count_for_what_is_too_large_to_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs of a thousand steps are a hundred thousand: an image of them would hold the loop up."""
    monkeypatch.setattr(recorder_module, "ENTRIES_MAX", 20)
    fleet = Fleet("a")
    steps = tuple(StepSpec(name=f"s{number}", command=("true",)) for number in range(30))
    submit = events.JobSubmit(
        at_ms=fleet.now_ms,
        request_id=fleet.request(),
        tenant=TenantName("default"),
        by="t",
        spec=JobSpec(name="j", steps=steps),
    )
    fleet.decide(submit)
    recorder = Recorder(tmp_path)
    recorder.begin(fleet.state, fleet.policy)
    recorder.note(submit, None)
    assert recorder.dump("too large") is None


def test_a_decision_that_launches_others_is_another_one() -> None:
    """Tasks that are launched together need not follow one another: also those in the middle are compared."""

    def crc(*tasks: int) -> int:
        first, *_ = leases = [((JobId(1), 0, task, 1), LeaseToken(1, task)) for task in tasks]
        like = commands.Launch(
            attempt_id=first[0],
            rank=0,
            token=first[1],
            tenant=TenantName("default"),
            step=StepSpec(name="s", command=("true",)),
            share=Share(ask=Ask()),
            nodes=(ProviderId("a"),),
        )
        send = commands.Send(ConnId(1), commands.Launches(like=like, leases=leases))
        return decision_crc(commands.Decision(sends=[send]))

    assert crc(1, 5, 9) == crc(1, 5, 9)
    assert crc(1, 5, 9) != crc(1, 6, 9)
