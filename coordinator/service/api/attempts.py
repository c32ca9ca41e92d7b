"""Routes of agents: what an attempt is to be given, where its bytes go, and what counts of it.

Every request names the rank it acts for and its token; the core decides whether that is the current one, and whose
blobs it may touch. Another provider's attempt is a stale token, like one that never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from coordinator import manifest
from coordinator import wire_data as w
from coordinator.core.data.answers import Admitted, CheckpointTaken, Published, UploadOpened
from coordinator.core.data.events import (
    AttemptAsks,
    AttemptRestored,
    CheckpointDamaged,
    CheckpointPublished,
    Claim,
    OutputsPublished,
)
from coordinator.core.data.rows import BlobRow, FileEntry, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, Digest, TenantName, attempt_of
from coordinator.service.api.artifacts import touched
from coordinator.service.api.blob_uploads import open_one
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call
from coordinator.service.data.declared import check_declared
from coordinator.service.data.giving_way import CHECKPOINTS_MAX, giving_way
from coordinator.service.data.staging import staged_files
from coordinator.service.inbound import exit_info, token_is_sane

T = TypeVar("T")
A = TypeVar("A", bound=w.ForAttempt)
OPENED_AT_ONCE = 256
"""Uploads of one request that are decided together."""


def claim_of(call: Call[NoQuery, A]) -> Claim:
    """For whom the agent says that it acts. CoordError(STALE_TOKEN) for what was never a token of ours."""
    provider_id = call.token.provider_id if call.token is not None else None
    if provider_id is None:
        raise CoordError(Code.FORBIDDEN, "this token speaks for no provider", "ask with an agent's credential")
    if not token_is_sane(call.body.token):
        raise CoordError(Code.STALE_TOKEN, "this token was never given", "stop the attempt")
    return Claim(provider_id=provider_id, attempt_id=_attempt_id(call), rank=call.body.rank, token=call.body.token)


def _attempt_id(call: Call[NoQuery, A]) -> AttemptId:
    try:
        return attempt_of(call.request.match_info["id"])
    except CoordError as error:
        raise CoordError(Code.NOT_FOUND, error.message, error.hint) from None


async def _admitted(call: Call[NoQuery, A], *, fetches: bool) -> Admitted:
    """Whoever only sends is not asked whether its tenant may fetch."""
    claim = claim_of(call)
    found = await call.deps.engine.call(
        lambda request_id: AttemptAsks(at_ms=call.now_ms, request_id=request_id, claim=claim, fetches=fetches)
    )
    assert isinstance(found, Admitted)
    return found


# ---- to the attempt


async def stage_attempt(call: Call[NoQuery, w.StagingRequest]) -> w.StagingAnswer:
    """Its inputs, and the checkpoints that it may resume from, each with a URL.

    404 when an input is gone, 422 when a pattern matches no output: neither will be otherwise later.
    """
    deps, found = call.deps, await _admitted(call, fetches=True)
    files = await staged_files(deps.data.made, found)
    blobs = await touched(deps, found.tenant, tuple({entry.digest for entry in files}))
    lost = await deps.data.soundness.lost(tuple(blobs.values()))
    for entry in files:
        if entry.digest not in blobs or entry.digest in lost:
            raise CoordError(
                Code.NOT_FOUND, f"input {entry.path} is gone: no blob {entry.digest[:16]}", "submit the job again"
            )
    kept = set(found.task.checkpoints)
    rows = await deps.store.checkpoints(found.task.job_id, CHECKPOINTS_MAX, found.task.step, found.task.task)
    states = [row for row in rows if row.number in kept and not row.damaged]
    deps.data.check_egress(found.tenant, sum(entry.size for entry in files) + (states[0].size if states else 0))
    manifests = await _sound(deps, found.tenant, tuple(row.manifest for row in states))
    return w.StagingAnswer(
        tenant=found.tenant,
        files=tuple(
            w.StagedFile(
                path=entry.path,
                digest=entry.digest,
                size=blobs[entry.digest].size,
                executable=entry.executable,
                url=deps.data.blob_url(found.tenant, entry.digest, blobs[entry.digest].size),
            )
            for entry in files
        ),
        checkpoints=tuple(
            w.SavedState(
                number=row.number,
                manifest=row.manifest,
                size=row.size,
                url=deps.data.blob_url(found.tenant, row.manifest, manifests[row.manifest].size),
            )
            for row in states
            if row.manifest in manifests
        ),
    )


async def attempt_urls(call: Call[NoQuery, w.UrlsRequest]) -> w.UrlsAnswer:
    """Where these may be fetched; what is not there is left out."""
    deps, found = call.deps, await _admitted(call, fetches=True)
    blobs = await _sound(deps, found.tenant, tuple(dict.fromkeys(call.body.digests)))
    return w.UrlsAnswer(
        urls={digest: deps.data.blob_url(found.tenant, digest, row.size) for digest, row in blobs.items()}
    )


async def _sound(deps: ApiDeps, tenant: TenantName, digests: tuple[str, ...]) -> dict[str, BlobRow]:
    """Those of these that can be handed out."""
    there = await touched(deps, tenant, digests)
    lost = await deps.data.soundness.lost(tuple(there.values()))
    return {digest: row for digest, row in there.items() if digest not in lost}


async def attempt_restored(call: Call[NoQuery, w.RestoredRequest]) -> None:
    """It resumes from this checkpoint."""
    claim, number = claim_of(call), call.body.number
    await call.deps.engine.call(
        lambda request_id: AttemptRestored(at_ms=call.now_ms, request_id=request_id, claim=claim, number=number)
    )


async def attempt_damaged(call: Call[NoQuery, w.DamagedRequest]) -> None:
    """This checkpoint cannot be restored: it is not offered again. Blobs that it names are suspects: of its own tenant
    alone, and read here before they count as damaged."""
    claim, body = claim_of(call), call.body
    if not body.why.isprintable():
        raise CoordError(Code.BAD_REQUEST, "this reason is not taken", "send printable characters")
    if body.digests:
        tenant = (await _admitted(call, fetches=False)).tenant
        for row in await call.deps.store.blobs(tenant, body.digests):
            call.deps.data.soundness.suspect(tenant, row.digest)
    if not body.number:
        return
    job_id, step, task, _ = claim.attempt_id
    rows = await call.deps.store.checkpoints(job_id, CHECKPOINTS_MAX, step, task)
    known = next((row for row in rows if row.number == body.number), None)
    await call.deps.engine.call(
        lambda request_id: CheckpointDamaged(
            at_ms=call.now_ms, request_id=request_id, claim=claim, number=body.number, why=body.why, known=known
        )
    )


# ---- from the attempt


async def attempt_uploads(call: Call[NoQuery, w.UploadsRequest]) -> w.UploadsAnswer:
    """Open an upload of each of these that is missing."""
    deps, claim = call.deps, claim_of(call)
    found = await _admitted(call, fetches=False)
    wanted = {one.digest: one.size for one in call.body.blobs}
    if len(wanted) != len(call.body.blobs):
        raise CoordError(Code.BAD_REQUEST, "a digest is named twice", "name each once")
    there = await touched(deps, found.tenant, tuple(wanted))
    mend = await deps.data.soundness.to_mend(tuple(there.values()))
    missing = [digest for digest in wanted if digest not in there or digest in mend]
    opened: dict[str, tuple[UploadOpened, int]] = {}
    for at in range(0, len(missing), OPENED_AT_ONCE):
        some = missing[at : at + OPENED_AT_ONCE]
        by = f"agent:{claim.provider_id}"
        opening = [
            open_one(deps, found.tenant, by, wanted[digest], digest, "", there.get(digest), claim) for digest in some
        ]
        opened.update(zip(some, await _all(opening), strict=True))
    return w.UploadsAnswer(uploads=tuple(_target(deps, digest, opened.get(digest)) for digest in wanted))


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Their results, when all have one; the first error of any, when all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    found: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


def _target(deps: ApiDeps, digest: str, opened: tuple[UploadOpened, int] | None) -> w.UploadTarget:
    if opened is None or opened[0].upload is None:
        return w.UploadTarget(digest=digest, present=True)
    upload, offset = opened[0].upload, opened[1]
    return w.UploadTarget(digest=digest, present=False, url=deps.data.upload_url(upload), offset=offset)


async def publish_outputs(call: Call[NoQuery, w.OutputsRequest]) -> w.OutputsAnswer:
    """The end of the rank together with its result: both count, or neither."""
    deps, claim, body = call.deps, claim_of(call), call.body
    paths = [file.path for file in body.files]
    if len(set(paths)) != len(paths):
        raise CoordError(Code.BAD_REQUEST, "a path is named twice", "name each file once")
    for path in paths:
        manifest.check_path(path)
    manifest.check_tree(paths)
    await check_declared(deps.engine.state, claim, paths)
    files = tuple(
        FileEntry(path=file.path, digest=Digest(file.digest), size=file.size, executable=file.executable)
        for file in sorted(body.files, key=lambda file: file.path)
    )
    attempt_id = claim.attempt_id
    known = await _known(call, attempt_id, tuple({file.digest for file in files}))
    published = await _published(deps, attempt_id)
    done = await deps.engine.call(
        lambda request_id: OutputsPublished(
            at_ms=deps.engine.clock.now_ms(),
            request_id=request_id,
            claim=claim,
            files=files,
            exit=exit_info(body.exit),
            known=known,
            published=published,
            cached=tuple(sorted({file.digest for file in files}.intersection(map(Digest, body.cached)))),
        )
    )
    assert isinstance(done, Published)
    return w.OutputsAnswer(repeated=done.repeated)


async def publish_checkpoint(call: Call[NoQuery, w.CheckpointRequest]) -> w.CheckpointAnswer:
    """The manifest and all that it names were uploaded: from now on the task may resume from it."""
    deps, claim, body = call.deps, claim_of(call), call.body
    if not body.label.isprintable():
        raise CoordError(Code.BAD_REQUEST, "this label is not taken", "send printable characters")
    found = await _admitted(call, fetches=False)
    try:
        raw = await deps.data.blobs.read(found.tenant, body.manifest, manifest.BYTES_MAX)
    except CoordError as error:
        if error.code is Code.BAD_DIGEST:
            deps.data.soundness.suspect(found.tenant, body.manifest)
        if error.code is not Code.NOT_FOUND:
            raise
        raise CoordError(Code.INCOMPLETE, "the manifest was not uploaded", "upload it, and what it names") from None
    listed = await asyncio.to_thread(manifest.decode, raw)
    digests = tuple(sorted({Digest(body.manifest), *(entry.digest for entry in listed.files)}))
    known = tuple(await deps.store.blobs(found.tenant, digests))
    sizes = {row.digest: row.size for row in known}
    for entry in listed.files:
        if sizes.get(entry.digest, entry.size) != entry.size:
            raise CoordError(
                Code.INCOMPLETE,
                f"{entry.path!a} has {entry.size} bytes in the manifest, its blob has {sizes[entry.digest]}",
                "list the sizes of what was uploaded",
            )
    let_go = await giving_way(deps.store, deps.data.blobs, found, frozenset(digests))
    taken = await deps.engine.call(
        lambda request_id: CheckpointPublished(
            at_ms=deps.engine.clock.now_ms(),
            request_id=request_id,
            claim=claim,
            manifest=Digest(body.manifest),
            files=len(listed.files),
            size=listed.size,
            sent=body.sent,
            age_ms=body.age_ms,
            cost_ms=body.cost_ms,
            label=body.label,
            digests=digests,
            known=known,
            let_go=let_go,
        )
    )
    assert isinstance(taken, CheckpointTaken)
    return w.CheckpointAnswer(number=taken.row.number, next_ms=taken.next_ms)


async def _known(
    call: Call[NoQuery, w.OutputsRequest], attempt_id: AttemptId, digests: tuple[Digest, ...]
) -> tuple[BlobRow, ...]:
    """Blobs of the attempt's tenant, live or ended: what is stale is refused by the core, which audits it."""
    view = call.deps.views.attempts.get(attempt_id)
    if view is None or not view.tenant:
        return ()
    return tuple(await call.deps.store.blobs(view.tenant, digests))


async def _published(deps: ApiDeps, attempt_id: AttemptId) -> OutputRow | None:
    """The result that its task has."""
    job_id, step, task, _ = attempt_id
    rows = await deps.store.outputs(job_id, 1, step, (step, task - 1))
    return rows[0] if rows and rows[0].task == task else None
