"""Any interleaving of uploads, names, results, checkpoints, sweeps, stale tokens, losses, restarts and full disks.

A hypothesis state machine on the core. Its store answers as of now or as of a while ago, its blob store has the files
that the service would have put and removed. What is durable must be right after every step (`depot.check_rows`).
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.data import events as data
from coordinator.core.data.answers import Swept, UploadOpened
from coordinator.core.data.rows import BlobRow, FileEntry, HoldRow, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, TaskId, TenantName, UploadId, dotted
from coordinator.core.image import image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, LeaseToken, TaskRow
from coordinator.core.work.jobspec import CheckpointRule, JobSpec, OnLost, RetryRule, StepSpec
from tests.depot import DONE, Depot, an_input, check_rows, digest_of
from tests.site import TENANT, a_step

TEXTS = ("v", "w", "x", "y", "z")
SIZES = {"v": 0, "w": 1, "x": 100, "y": 250, "z": 400}
OTHER = TenantName("other")
TENANTS = (TENANT, TENANT, OTHER)
HOUR_S = 3_600
POLICY = Policy(
    uploads_max=12, uploads_per_tenant_max=8, upload_ms=30 * 60_000, blob_grace_ms=HOUR_S * 1_000, sweep_max=3
)
BETWEEN = ("name", "open", "store", "submit", "publish", "save", "touch")
FEW = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3, unique=True)
Blob = tuple[TenantName, Digest]


class DataAtWork(RuleBasedStateMachine):
    """Never: two results of a task, a row without its bytes, a byte counted twice, something held that is swept."""

    def __init__(self) -> None:
        super().__init__()
        self.depot = Depot("a", "b", policy=POLICY)
        self.full_from: int | None = None
        self.files: set[Blob] = set()
        self.uploads: list[tuple[UploadId, TenantName, str]] = []
        self.claims: list[data.Claim] = []
        self.results: dict[TaskId, OutputRow] = {}
        self.looked: dict[Blob, BlobRow] = {}
        """What the store had a while ago: at most one sweep was carried out since."""
        self.look_age = 0
        self.swept_while_full = False
        self.promised: list[BlobRow] = []
        """Somebody was told in this step that these are there."""

    # ---- asking

    def ask(self, event: events.AnyEvent) -> Any:
        """A refusal changes nothing, but for the audit of a late result."""
        before = image_of(self.depot.state)
        decision = self.depot.decide(event)
        (reply,) = decision.replies
        if isinstance(reply.result, CoordError):
            assert reply.result.message and reply.result.hint
        claim: data.Claim | None = getattr(event, "claim", None)
        attempt = self.depot.state.work.attempts.get(claim.attempt_id) if claim is not None else None
        if claim is not None and attempt is not None and attempt.row.token != claim.token:
            stale = isinstance(reply.result, CoordError) and reply.result.code is Code.STALE_TOKEN
            assert stale, f"a token that was never given: {reply.result}"
        audited = any(isinstance(note, commands.Audited) for note in decision.notes)
        if isinstance(reply.result, CoordError) and not audited:
            self.depot.state.now_ms = before.now_ms
            if before.work.accounts.month:
                assert image_of(self.depot.state) == before, f"a refusal changed something: {reply.result}"
        return reply.result

    def known(self, text: str, tenant: TenantName, late: bool) -> BlobRow | None:
        return self.looked.get((tenant, digest_of(text))) if late else self.depot.blob(text, tenant)

    @property
    def durable(self) -> bool:
        return self.depot.durable

    @initialize()
    def work_and_data_are_there(self) -> None:
        """A tenant with quotas, some blobs, and jobs of every kind that run."""
        quota = (("storage", 1_000), ("ingress", 4_000))
        request = self.depot.request()
        made = events.TenantSet(at_ms=self.depot.now_ms, request_id=request, name=OTHER, create=True, quota=quota)
        self.depot.decide(made)
        for tenant in (TENANT, OTHER):
            self.bytes_move(tenant, 1, 0)
        self.store("x", TENANT, False)
        self.store("x", OTHER, False)
        self.look()
        self.submit([], True, False, 1, 1, "retry", 2)
        self.submit(["x"], True, True, 1, 1, "auto", 2)
        self.submit([], True, True, 2, 1, "retry", 2)

    # ---- people

    @rule(text=st.sampled_from(TEXTS), tenant=st.sampled_from(TENANTS), late=st.booleans(), off=st.integers(0, 1))
    def open(self, text: str, tenant: TenantName, late: bool, off: int) -> None:
        self._open(text, tenant, late, SIZES[text] + off, None)

    def _open(self, text: str, tenant: TenantName, late: bool, size: int, claim: data.Claim | None) -> None:
        self.depot.numbers += 1
        found = self.ask(
            data.UploadOpen(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                upload_id=UploadId(f"{self.depot.numbers:032x}"),
                tenant=tenant,
                by="token:t" if claim is None else f"agent:{claim.provider_id}",
                size=size,
                digest=digest_of(text),
                known=self.known(text, tenant, late),
                claim=claim,
            )
        )
        if isinstance(found, UploadOpened) and found.present is not None:
            self.promised.append(found.present)
        if isinstance(found, UploadOpened) and found.upload is not None and self.durable:
            self.uploads.append((found.upload.upload_id, tenant, text))

    @rule(text=st.sampled_from(TEXTS), tenant=st.sampled_from(TENANTS), late=st.booleans())
    def store(self, text: str, tenant: TenantName, late: bool) -> None:
        self._open(text, tenant, late, SIZES[text], None)
        if self.uploads and self.uploads[-1][1:] == (tenant, text):
            self._finish(*self.uploads[-1], 0)

    @rule(data=st.data(), repeat=st.booleans(), lie=st.sampled_from((0, 0, 0, 1)))
    def finish(self, data: st.DataObject, repeat: bool, lie: int) -> None:
        """Its bytes are under their digest before the core hears of it. Under the digest's lock: nobody looks late."""
        if self.uploads:
            upload_id, tenant, text = data.draw(st.sampled_from(self.uploads))
            for _ in range(2 if repeat else 1):
                self._finish(upload_id, tenant, text, lie)

    def _finish(self, upload_id: UploadId, tenant: TenantName, text: str, lie: int) -> None:
        upload = self.depot.state.data.uploads.get(upload_id)
        if upload is not None and upload.size != SIZES[text]:
            return  # no bytes have this digest and that size
        if upload is not None and not lie:
            self.files.add((tenant, digest_of(text)))
        result = self.ask(
            data.UploadDone(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                upload_id=upload_id,
                digest=digest_of(text),
                size=SIZES[text] + lie,
                known=self.depot.blob(text, tenant),
            )
        )
        if isinstance(result, BlobRow):
            assert upload_id not in self.depot.state.data.uploads, "a nonce was not burnt"

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        opened = [upload_id for upload_id, _, _ in self.uploads if upload_id in self.depot.state.data.uploads]
        if opened:
            upload_id = data.draw(st.sampled_from(opened))
            ask, at_ms = self.depot.request(), self.depot.now_ms
            self.ask(_drop(at_ms, ask, upload_id))

    @rule(
        text=st.sampled_from(TEXTS),
        tenant=st.sampled_from(TENANTS),
        name=st.sampled_from(("one", "two", "one", "..")),
        late=st.booleans(),
    )
    def name(self, text: str, tenant: TenantName, name: str, late: bool) -> None:
        self.ask(
            data.ArtifactPut(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                tenant=tenant,
                by="token:t",
                name=name,
                digest=digest_of(text),
                known=self.known(text, tenant, late),
            )
        )

    @rule(tenant=st.sampled_from(TENANTS), name=st.sampled_from(("one", "two")))
    def unname(self, tenant: TenantName, name: str) -> None:
        row: Any = self.depot.rows.get(("artifact", (tenant, name)))
        self.ask(
            data.ArtifactRemove(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                tenant=tenant,
                by="token:t",
                name=name,
                known=row,
            )
        )

    @rule()
    def touch(self) -> None:
        rows = tuple(self.looked.values())
        self.ask(data.BlobsTouch(at_ms=self.depot.now_ms, request_id=self.depot.request(), known=rows))

    @rule(
        inputs=st.lists(st.sampled_from(TEXTS), max_size=2, unique=True),
        outputs=st.booleans(),
        saves=st.booleans(),
        nodes=st.sampled_from((1, 1, 2)),
        tasks=st.integers(1, 2),
        mode=st.sampled_from(("retry", "auto")),
        losses=st.integers(0, 2),
    )
    def submit(
        self, inputs: list[str], outputs: bool, saves: bool, nodes: int, tasks: int, mode: str, losses: int
    ) -> None:
        step = a_step(
            inputs=tuple(map(an_input, inputs)),
            outputs=("*",) if outputs else (),
            checkpoint=CheckpointRule(every_ms=10_000, keep=2) if saves else None,
            nodes=nodes,
            tasks=tasks,
            on_lost=OnLost(mode=mode),
            retry=RetryRule(limit=1, losses=losses, delay_ms=1_000),
        )
        known = tuple(row for row in self.looked.values() if row.tenant == TENANT)
        self.ask(
            events.JobSubmit(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                tenant=TENANT,
                by="token:t",
                spec=JobSpec(name="j", steps=(step,)),
                inputs=known,
            )
        )
        self._settle()

    @rule(job=st.integers(1, 4))
    def cancel(self, job: int) -> None:
        self.depot.cancel(job)

    @rule(job=st.integers(1, 4))
    def retry(self, job: int) -> None:
        if self.durable and ("job", job) in self.depot.rows:
            self.depot.retry(job)
            self._settle()

    # ---- agents: the current token, and every one that ever was

    def _settle(self) -> None:
        """Remember who may act for what."""
        for row in self.depot.all(AttemptRow):
            for rank, held in enumerate(row.ranks):
                if row.token.number:
                    claim = data.Claim(
                        provider_id=held.provider_id, attempt_id=row.attempt_id, rank=rank, token=row.token
                    )
                    if claim not in self.claims:
                        self.claims.append(claim)

    def _claim(self, drawn: st.DataObject) -> data.Claim | None:
        """Mostly one that counts; also an old one, or a lie."""
        self._settle()
        live = [c for c in self.claims if c.attempt_id in self.depot.state.work.attempts and c.rank == 0]
        pool = drawn.draw(st.sampled_from((live, live, live, self.claims)))
        if not pool:
            return None
        claim = drawn.draw(st.sampled_from(pool))
        if not drawn.draw(st.integers(0, 7)):
            token = LeaseToken(claim.token.generation, claim.token.number + drawn.draw(st.integers(-1, 1)))
            claim = data.Claim(provider_id=claim.provider_id, attempt_id=claim.attempt_id, rank=claim.rank, token=token)
        return claim

    @rule(drawn=st.data(), text=st.sampled_from(TEXTS))
    def an_attempt_uploads(self, drawn: st.DataObject, text: str) -> None:
        claim = self._claim(drawn)
        if claim is not None:
            self._open(text, TENANT, drawn.draw(st.booleans()), SIZES[text], claim)

    @rule(
        drawn=st.data(),
        texts=FEW,
        whole=st.booleans(),
    )
    def an_attempt_publishes(self, drawn: st.DataObject, texts: list[str], whole: bool) -> None:
        claim = self._claim(drawn)
        if claim is None:
            return
        if whole:
            self._bring(claim, texts)
        files = tuple(
            replace(entry, size=SIZES[text]) for text, entry in zip(texts, self.depot.files(*texts), strict=True)
        )
        self._publish(claim, files)

    @rule(
        drawn=st.data(),
        texts=FEW,
        whole=st.booleans(),
    )
    def an_attempt_saves(self, drawn: st.DataObject, texts: list[str], whole: bool) -> None:
        claim = self._claim(drawn)
        if claim is None:
            return
        if whole:
            self._bring(claim, texts)
        self._save(claim, texts)

    def _publish(self, claim: data.Claim, files: tuple[FileEntry, ...]) -> None:
        job_id, step, task, _ = claim.attempt_id
        self.ask(
            data.OutputsPublished(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                claim=claim,
                files=files,
                exit=DONE,
                known=self.depot.known(entry.digest for entry in files),
                published=self.depot.output(job_id, step, task),
            )
        )

    def _save(self, claim: data.Claim, texts: list[str]) -> None:
        digests = tuple(sorted(map(digest_of, texts)))
        self.ask(
            data.CheckpointPublished(
                at_ms=self.depot.now_ms,
                request_id=self.depot.request(),
                claim=claim,
                manifest=digest_of(texts[0]),
                files=len(texts),
                size=1,
                sent=1,
                age_ms=0,
                cost_ms=100,
                digests=digests,
                known=self.depot.known(digests),
            )
        )

    def _bring(self, claim: data.Claim, texts: list[str]) -> None:
        for text in texts:
            self._open(text, TENANT, False, SIZES[text], claim)
        own = list(self.depot.state.data.by_attempt.get(claim.attempt_id, ()))
        for upload_id, tenant, text in list(self.uploads):
            if upload_id in own:
                self._finish(upload_id, tenant, text, 0)

    @rule(drawn=st.data(), back=st.integers(0, 2), damaged=st.booleans())
    def an_attempt_restores(self, drawn: st.DataObject, back: int, damaged: bool) -> None:
        claim = self._claim(drawn)
        task: Any = self.depot.rows.get(("task", claim.attempt_id[:3])) if claim is not None else None
        if claim is None or not isinstance(task, TaskRow):
            return
        number = task.checkpoints[-1] if task.checkpoints and not back else task.checkpoint - back
        at_ms, request = self.depot.now_ms, self.depot.request()
        if damaged:
            known: Any = self.depot.rows.get(("checkpoint", (*task.task_id, number)))
            told = data.CheckpointDamaged(
                at_ms=at_ms, request_id=request, claim=claim, number=number, why="off", known=known
            )
            self.ask(told)
        else:
            self.ask(data.AttemptRestored(at_ms=at_ms, request_id=request, claim=claim, number=number))

    @rule(drawn=st.data(), code=st.sampled_from((0, 0, 1)))
    def one_ends(self, drawn: st.DataObject, code: int) -> None:
        running = [h for agent in self.depot.agents.values() for h in agent.held.values() if h.phase == "running"]
        if running:
            held = drawn.draw(st.sampled_from(running))
            self.depot.exits(dotted(held.attempt_id), code, rank=held.rank)

    @rule(drawn=st.data(), text=st.sampled_from(TEXTS))
    def one_rank_of_two_fails_late(self, drawn: st.DataObject, text: str) -> None:
        """Rank 0 has brought its result already."""
        pairs = [a for a in self.depot.state.work.attempts.values() if len(a.row.ranks) > 1 and a.row.ranks[1].running]
        for attempt in pairs[:1]:
            self._settle()
            claim = next((c for c in self.claims if c.attempt_id == attempt.row.attempt_id and not c.rank), None)
            if claim is not None:
                self._bring(claim, [text])
                entry = self.depot.files(text)[0]
                self._publish(claim, (replace(entry, size=SIZES[text]),))
                held = self.depot.agents[attempt.row.ranks[1].provider_id].held.get((claim.attempt_id, 1))
                if held is not None and held.phase == "running":
                    self.depot.exits(dotted(claim.attempt_id), drawn.draw(st.integers(0, 1)), rank=1)

    @rule(name=st.sampled_from(("a", "b")), how=st.sampled_from(("silent", "breaks", "back", "empty")))
    def an_agent_comes_and_goes(self, name: str, how: str) -> None:
        agent = self.depot.agents[name]
        if how == "silent":
            self.depot.falls_silent(name)
        elif how == "breaks" and agent.conn is not None:
            self.depot.breaks(name)
        elif how in ("back", "empty") and self.durable:
            if agent.conn is not None:
                self.depot.breaks(name)
            self.depot.back(name, empty=how == "empty")

    # ---- sweeps, looks, time

    @rule()
    def look(self) -> None:
        """Somebody asks the store, and will act on it a while later."""
        self.looked = {(row.tenant, row.digest): row for row in self.depot.all(BlobRow)}
        self.look_age = 0

    @rule(
        data=st.data(), old=st.sampled_from((True, True, False)), between=st.lists(st.sampled_from(BETWEEN), max_size=2)
    )
    def sweep(self, data: st.DataObject, old: bool, between: list[str]) -> None:
        """While the store is asked what nobody holds, and after it has said so, others go on."""
        self.promised.clear()
        if not self._may_sweep():
            return
        if old:
            self.depot.at(self.depot.now_s + 1.1 * HOUR_S)
        self.depot.sweep_begin()
        candidates = self.depot.unheld()
        for what in between:
            tenant, texts = self._wanted(data, candidates)
            match what:
                case "name":
                    self.name(texts[0], tenant, "one", True)
                case "open":
                    self._open(texts[0], tenant, True, SIZES[texts[0]], None)
                case "store":
                    self.store(texts[0], tenant, True)
                case "submit":
                    self.submit(texts, False, False, 1, 1, "retry", 1)
                case "publish":
                    self.an_attempt_publishes(data, texts, data.draw(st.booleans()))
                case "save":
                    self.an_attempt_saves(data, texts, data.draw(st.booleans()))
                case _:
                    self.touch()
        self._end_sweep(candidates)

    @rule(text=st.sampled_from(TEXTS), kind=st.sampled_from(("name", "submit", "publish", "save", "look")))
    def one_refers_beside_a_sweep(self, text: str, kind: str) -> None:
        """To what was stored a while ago, when the store has just said that nobody holds it."""
        if not self._may_sweep():
            return
        self.store(text, TENANT, False)
        self.look()
        self.promised.clear()
        self.depot.at(self.depot.now_s + 1.1 * HOUR_S)
        self.depot.sweep_begin()
        candidates = self.depot.unheld()
        if kind == "look":  # and refers to it when the sweep is over
            self._end_sweep(candidates)
            self.name(text, TENANT, "two", True)
            self._open(text, TENANT, True, SIZES[text], None)
            return
        claims = [claim for claim in self._current() if self._spec(claim).checkpoint or kind == "publish"]
        if kind == "name":
            self.name(text, TENANT, "two", True)
        elif kind == "submit":
            self.submit([text], False, False, 1, 1, "retry", 1)
        elif kind == "publish" and claims:
            self._publish(claims[0], (replace(self.depot.files(text)[0], size=SIZES[text]),))
        elif claims:
            self._save(claims[0], [text])
        self._end_sweep(candidates)

    @rule(texts=FEW)
    def one_saves_again_and_again(self, texts: list[str]) -> None:
        for claim in [claim for claim in self._current() if self._spec(claim).checkpoint][:1]:
            for text in texts:
                self._bring(claim, [text])
                self._save(claim, [text])

    def _current(self) -> list[data.Claim]:
        """Of rank 0 of what runs."""
        self._settle()
        live = self.depot.state.work.attempts
        return [
            c for c in self.claims if not c.rank and c.attempt_id in live and live[c.attempt_id].row.token == c.token
        ]

    def _spec(self, claim: data.Claim) -> StepSpec:
        return self.depot.state.work.jobs[claim.attempt_id[0]].spec.steps[claim.attempt_id[1]]

    def _may_sweep(self) -> bool:
        """While nothing becomes durable nobody hears of the end of a sweep, and begins another one."""
        may, self.swept_while_full = self.durable or not self.swept_while_full, not self.durable
        return may

    def _wanted(self, drawn: st.DataObject, candidates: tuple[BlobRow, ...]) -> tuple[TenantName, list[str]]:
        """Mostly what is about to be swept."""
        if not candidates or not drawn.draw(st.integers(0, 4)):
            return drawn.draw(st.sampled_from(TENANTS)), drawn.draw(FEW)
        row = drawn.draw(st.sampled_from(candidates))
        return row.tenant, [text for text in TEXTS if digest_of(text) == row.digest]

    def _end_sweep(self, candidates: tuple[BlobRow, ...]) -> None:
        held = {(hold.tenant, digest) for hold in self.depot.all(HoldRow) for digest in hold.digests}
        told = {(row.tenant, row.digest) for row in self.promised}
        found = self.ask(_end(self.depot.now_ms, self.depot.request(), candidates))
        assert isinstance(found, Swept)
        if self.durable:
            assert not held & set(found.gone), "what is held was swept"
            assert not told & set(found.gone), "somebody was told this moment that it is there"
            self._removed(found.gone)

    def _removed(self, gone: tuple[Blob, ...]) -> None:
        for key in gone:
            if ("blob", key) not in self.depot.rows:  # under its lock the service asks again
                self.files.discard(key)
        self.look_age += 1
        if self.look_age > 1:
            self.looked, self.look_age = {}, 0

    @rule(hours=st.sampled_from((0, 0, 0.3, 1.1)), seconds=st.sampled_from((1, 12, 40)))
    def time_goes_by(self, hours: float, seconds: int) -> None:
        self.depot.at(self.depot.now_s + hours * HOUR_S)
        for _ in range(3):
            self.depot.at(self.depot.now_s + seconds / 3)
            if self.durable:
                self.depot.beat_all()
            self.depot.tick()

    @rule(tenant=st.sampled_from(TENANTS), ingress=st.integers(0, 500), egress=st.integers(0, 500))
    def bytes_move(self, tenant: TenantName, ingress: int, egress: int) -> None:
        what = (data.Moved(tenant=tenant, ingress=ingress, egress=egress),)
        self.depot.decide(data.BytesMoved(at_ms=self.depot.now_ms, moved=what))

    @precondition(lambda self: self.durable)
    @rule()
    def nothing_unheld_stays_for_ever(self) -> None:
        """After the grace time sweeps take all that nobody holds and nobody expects."""
        self.promised.clear()
        self.depot.at(self.depot.now_s + 1.5 * HOUR_S)
        self.depot.tick()
        for _ in range(len(self.depot.all(BlobRow)) // POLICY.sweep_max + 4):
            self.depot.sweep_begin()
            self._end_sweep(self.depot.unheld())
        assert not self.depot.unheld(), "it is there for ever"

    # ---- what befalls the coordinator

    @rule(away_s=st.sampled_from((1.0, 60.0)))
    def restart(self, away_s: float) -> None:
        self.depot.durable, self.full_from = True, None
        self.looked = {}
        for agent in self.depot.agents.values():
            agent.conn = None
        self.depot.restart(self.depot.now_s + away_s)
        for name in self.depot.agents:
            self.depot.back(name)

    @precondition(lambda self: self.durable)
    @rule()
    def the_disk_fills(self) -> None:
        self.depot.durable, self.full_from, self.swept_while_full = False, len(self.depot.decisions), False

    @precondition(lambda self: not self.durable)
    @rule()
    def the_disk_has_room(self) -> None:
        assert self.full_from is not None
        undone = self.depot.decisions[self.full_from :]
        self.depot.durable, self.full_from = True, None
        self.depot.write(self.depot.disk_was_full(*undone))
        for agent in self.depot.agents.values():
            if agent.conn not in self.depot.state.conns:
                agent.conn = None
        for name, agent in self.depot.agents.items():
            if agent.conn is None:
                self.depot.back(name)

    @rule()
    def a_copy_is_the_same(self) -> None:
        assert image_of(self.depot.state) == image_of(state_of(image_of(self.depot.state)))

    # ---- what must always hold

    @invariant()
    def what_is_durable_is_right(self) -> None:
        check_rows(self.depot)
        for key in self.depot.rows:
            if key[0] == "blob":
                assert key[1] in self.files, f"{key}: a row without its bytes"
        for row in self.depot.all(OutputRow):
            task_id = (row.job_id, row.step, row.task)
            assert self.results.setdefault(task_id, row) == row, f"{task_id} has two results"
        assert all(("output", task_id) in self.depot.rows for task_id in self.results), "a result is gone"

    @invariant()
    def uploads_end_with_their_attempts(self) -> None:
        for upload in self.depot.state.data.uploads.values():
            if upload.attempt_id is not None:
                attempt = self.depot.state.work.attempts[upload.attempt_id]
                assert attempt.row.state in LIVE_ATTEMPT


def _drop(at_ms: int, request: Any, upload_id: UploadId) -> data.UploadDrop:
    return data.UploadDrop(at_ms=at_ms, request_id=request, upload_id=upload_id, why="given up")


def _end(at_ms: int, request: Any, candidates: tuple[BlobRow, ...]) -> data.SweepEnd:
    return data.SweepEnd(at_ms=at_ms, request_id=request, candidates=candidates)


TestDataAtWork = DataAtWork.TestCase
TestDataAtWork.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True)
