"""What is kept of each job's traces: appended, sealed, read back whole. Bounded by job and by tenant.

Uploads are frames as they came; now and then they become one segment, sorted and without repetitions. One thread at a
time may use a shelf.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack

from analytics.traces.building import TraceBuilder, joined
from analytics.traces.columns import Trace
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.packing import is_canonical, pack, rows_of, unpack
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TenantName
from store.layout import DataDir
from store.traces.files import JobTraces, Part
from store.traces.frames import BadFrame
from store.traces.owners import Owners
from store.traces.places import INCOMING, jobs_with_traces, sizes

SEAL_BYTES = 4 * 1024 * 1024
SEAL_APPENDS = 128
"""What is incoming becomes a segment when it is larger, or came in more pieces."""
SEGMENTS_MAX = 6
"""More of a job become one."""
JOBS_KNOWN_MAX = 4_096
"""Jobs whose figures are remembered."""
LOOSE_PART = 20
"""A job that is full is looked through for repetitions once a twentieth of what it may keep was not yet: it takes
seconds."""
COUNT_AGAIN = 4_096
"""Appends after which what tenants keep is counted anew: retention takes without asking here."""


class _Known:
    """What is remembered of a job."""

    def __init__(self, files: JobTraces) -> None:
        self.files = files
        self.rows = 0
        self.loose = 0
        """Rows that may be repetitions of others."""
        self.bytes = 0
        self.appends = 0
        self.damaged: set[str] = set()
        """Segments that are, as far as was seen: they are left as they are, and never sealed again."""
        self.unread: set[str] = set()
        """Files of which the last `load` could not read all."""


class Shelf:
    """See the module. `report` is told of damage. Raises CoordError as store.traces.files does."""

    def __init__(self, data: DataDir, settings: TraceSettings, report: Callable[[str], None]) -> None:
        self._data = data
        self._settings = settings
        self._report = report
        self._owners = Owners(data.truth)
        self._known: OrderedDict[JobId, _Known] = OrderedDict()
        self._of_tenants: dict[TenantName, int] = {}
        self._appends = 0
        self.bytes = 0
        """Of all that is kept, as it was last counted, and what was added since."""
        self._count()

    def may(self, job_id: JobId, tenant: TenantName | None) -> bool:
        """Whether there is such a job, and it is this tenant's; None: anybody's."""
        owner = self._owners.of(job_id)
        return owner is not None and tenant in (None, owner.tenant)

    # ---- putting

    def add(self, job_id: JobId, trace: Trace) -> str:
        """Keep these rows, durably. Returns why there is no room for them, and then none was kept."""
        owner = self._owners.of(job_id)
        if owner is None:
            raise CoordError(Code.NOT_FOUND, f"there is no job {job_id}", "coord job list shows those there are")
        known = self._job(job_id)
        rows = len(trace.spans) + len(trace.assets) + len(trace.lineage)
        if known.rows + rows > (most := self._settings.job_spans_max) and known.loose * LOOSE_PART >= most:
            self._seal(job_id, known, everything=True)  # what was sent twice counts once
        why = self._no_room(known, owner.tenant, rows)
        if why:
            return why
        pieces = pack(trace, canonical=False)
        known.files.append(pieces)
        size = sum(map(len, pieces))
        self._grew(known, owner.tenant, size)
        known.rows, known.loose, known.appends = known.rows + rows, known.loose + rows, known.appends + 1
        if known.appends >= SEAL_APPENDS or known.files.incoming_bytes >= SEAL_BYTES:
            self._seal(job_id, known, everything=len(sizes(known.files.path)) > SEGMENTS_MAX)
        return ""

    def _no_room(self, known: _Known, tenant: TenantName, rows: int) -> str:
        s = self._settings
        if known.rows + rows > s.job_spans_max:
            return f"a job keeps {s.job_spans_max} rows"
        if known.bytes >= s.job_bytes_max:
            return f"a job keeps {s.job_bytes_max} bytes of traces"
        if self._of_tenants.get(tenant, 0) >= s.tenant_bytes_max:
            return f"a tenant keeps {s.tenant_bytes_max} bytes of traces"
        return ""

    def _grew(self, known: _Known, tenant: TenantName, size: int) -> None:
        known.bytes += size
        self.bytes += size
        self._of_tenants[tenant] = self._of_tenants.get(tenant, 0) + size
        self._appends += 1
        if self._appends % COUNT_AGAIN == 0:
            self._count()

    def _count(self) -> None:
        """What each tenant keeps, from the disk."""
        self._of_tenants, self.bytes = {}, 0
        for job_id, directory in jobs_with_traces(self._data.traces):
            owner = self._owners.of(job_id)
            size = sum(sizes(directory).values())
            self.bytes += size
            if owner is not None:
                self._of_tenants[owner.tenant] = self._of_tenants.get(owner.tenant, 0) + size

    def _job(self, job_id: JobId) -> _Known:
        known = self._known.pop(job_id, None)
        if known is None:
            known = _Known(JobTraces(self._data.traces, job_id, self._settings.leave_bytes))
            with ExitStack() as stack:
                parts = known.files.parts(stack, self._report)
                sealed = [rows_of(part.frame) for part in parts if part.name != INCOMING]
                known.rows = sum(rows_of(part.frame) for part in parts)
                known.loose = known.rows - max(sealed, default=0)
                known.appends = sum(part.name == INCOMING for part in parts)
            known.bytes = sum(sizes(known.files.path).values())
        self._known[job_id] = known
        while len(self._known) > JOBS_KNOWN_MAX:
            self._known.popitem(last=False)
        return known

    # ---- sealing

    def _seal(self, job_id: JobId, known: _Known, *, everything: bool) -> None:
        """What is incoming, or all there is, becomes one segment."""
        with ExitStack() as stack:
            parts = known.files.parts(stack, self._report)
            known.damaged |= known.files.damaged - {INCOMING}
            wanted = [part for part in parts if everything or part.name == INCOMING]
            chosen = [part for part in wanted if part.name not in known.damaged]
            if not chosen:
                return
            trace, damaged = self._united(chosen, details=True)
            damaged |= known.files.damaged & {INCOMING}
        before = known.bytes
        if sound := {part.name for part in chosen} - damaged:
            known.files.seal(pack(trace, canonical=True), tuple(sound))
        if INCOMING in damaged:
            damaged = damaged - {INCOMING} | {known.files.set_aside()}
        known.damaged |= damaged
        known.bytes = sum(sizes(known.files.path).values())
        known.rows = sum(rows_of(part.frame) for part in parts if part not in chosen)
        known.rows += len(trace.spans) + len(trace.assets) + len(trace.lineage)
        known.appends = 0
        if everything:
            known.loose = 0
        owner = self._owners.of(job_id)
        self.bytes += known.bytes - before
        if owner is not None:
            self._of_tenants[owner.tenant] = self._of_tenants.get(owner.tenant, 0) + known.bytes - before

    def forget(self) -> None:
        """Look at the disk again: something failed half way."""
        self._known.clear()
        self._count()

    # ---- reading

    def version(self, job_id: JobId) -> str:
        """Another one whenever anything was added. Cheap, once what came of an ended job is sealed."""
        return ",".join(f"{name}:{size}" for name, size in sorted(self._settled(job_id).items()))

    def load(self, job_id: JobId, *, details: bool) -> Trace:
        """All that is kept of a job, once; what of it is damaged is left out."""
        self._settled(job_id)
        known = self._job(job_id)
        with ExitStack() as stack:
            parts = known.files.parts(stack, self._report)
            trace, damaged = self._united(parts, details=details)
        known.unread = damaged | known.files.damaged
        return trace

    def unread(self, job_id: JobId) -> list[str]:
        """The files of a job of which its last `load` could not read all, as `coord db check` names them."""
        files = self._job(job_id).files
        return [
            f"traces/{files.path.relative_to(self._data.traces)}/{name}" for name in sorted(self._job(job_id).unread)
        ]

    def _settled(self, job_id: JobId) -> dict[str, int]:
        """The files of a job; those of one that has ended become one segment, which is read as it is."""
        known = self._job(job_id)
        there = sizes(known.files.path)
        if INCOMING not in there and len(there.keys() - known.damaged) < 2:
            return there
        owner = self._owners.of(job_id)
        if owner is None or not owner.ended:
            return there
        self._seal(job_id, known, everything=True)
        return sizes(known.files.path)

    def _united(self, parts: list[Part], *, details: bool) -> tuple[Trace, set[str]]:
        """What these hold together, and the names of files that are damaged: those are left where they are."""
        traces: list[Trace] = []
        damaged: set[str] = set()
        for part in parts:
            try:
                traces.append(unpack(part.frame, details=details))
            except BadFrame as error:
                self._report(f"a frame of traces in {part.name} is damaged: {error}")
                damaged.add(part.name)
        if not traces:
            return TraceBuilder().finish(), damaged
        if len(parts) == 1 and is_canonical(parts[0].frame):
            return traces[0], damaged
        return joined(traces), damaged

    def close(self) -> None:
        self._owners.close()
