"""A job's traces on disk: what was appended is there, whatever happens to the process, until the job goes."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.core.rows import WorkState
from store.check import check_files
from store.durable import DiskStore
from store.layout import DataDir
from store.restore import restore
from store.settings import DAY_MS, StoreSettings
from store.traces.files import JobTraces
from store.traces.frames import encode
from store.traces.places import INCOMING, copy_traces, jobs_kept
from tests.conformance.homes import NOON_MS, DiskHome, a_job

JOB = JobId(4_321)


def pieces(n: int) -> list[bytes]:
    return encode(1, {"n": np.array([n], np.int64)}, {}, {}, {})


def kept(root: Path, job_id: JobId = JOB) -> list[int]:
    """The numbers that are kept of a job, in order of their files; nothing of it may be damaged."""
    problems: list[str] = []
    with ExitStack() as stack:
        parts = JobTraces(root, job_id).parts(stack, problems.append)
        numbers = [int(part.frame.column("n", np.int64)[0]) for part in parts]
    assert [] == problems
    return numbers


def test_what_was_appended_is_there_in_order(tmp_path: Path) -> None:
    """Also for a second writer that knows nothing of the first; and it is private."""
    for n in range(3):
        JobTraces(tmp_path, JOB).append(pieces(n))
    job = JobTraces(tmp_path, JOB)
    job.append(pieces(3))
    assert [0, 1, 2, 3] == kept(tmp_path)
    assert 0o600 == stat.S_IMODE((job.path / INCOMING).stat().st_mode)
    assert 0o700 == stat.S_IMODE(job.path.stat().st_mode)
    assert [JOB] == jobs_kept(tmp_path)


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    """A FIFO in the place of a segment would be waited for, a link leads elsewhere: what is beside them is read."""
    job = JobTraces(tmp_path, JOB)
    job.append(pieces(1))
    os.mkfifo(job.path / "7.seg")
    (job.path / "8.seg").symlink_to(job.path / INCOMING)
    assert [1] == kept(tmp_path)


def test_a_torn_end_goes_with_the_next_append(tmp_path: Path) -> None:
    """A frame that a crash cut was never acknowledged; the next one takes its place."""
    job = JobTraces(tmp_path, JOB)
    job.append(pieces(1))
    with (job.path / INCOMING).open("ab") as file:
        file.write(b"".join(pieces(2))[:50])
    assert [1] == kept(tmp_path)
    JobTraces(tmp_path, JOB).append(pieces(3))
    assert [1, 3] == kept(tmp_path)


def test_sealing_keeps_what_was_there_and_a_crash_keeps_it_twice(tmp_path: Path) -> None:
    """The new segment is whole before anything goes: whoever reads in between sees every row."""
    job = JobTraces(tmp_path, JOB)
    job.append(pieces(1))
    job.append(pieces(2))
    first = job.seal(encode(2, {"n": np.array([12], np.int64)}, {}, {}, {}), [INCOMING])
    job.append(pieces(3))
    assert [12, 3] == kept(tmp_path)
    second = job.seal(encode(2, {"n": np.array([123], np.int64)}, {}, {}, {}), [])  # as if it ended before the removal
    assert [12, 123, 3] == kept(tmp_path)
    assert ["1.seg", "2.seg"] == [first, second]
    job.seal(encode(3, {"n": np.array([9], np.int64)}, {}, {}, {}), [first, second, INCOMING])
    assert [9] == kept(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that fails half way is taken back, is said as a full disk, and does not end a coordinator."""
    job = JobTraces(tmp_path, JOB)
    job.append(pieces(1))
    real = os.fdatasync

    def no_room(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", no_room)
    with pytest.raises(CoordError) as full:
        job.append(pieces(2))
    monkeypatch.setattr(os, "fdatasync", real)
    assert Code.STORE_FULL is full.value.code
    assert [1] == kept(tmp_path)
    job.append(pieces(3))
    assert [1, 3] == kept(tmp_path)


def test_room_is_left_to_what_may_not_be_refused(tmp_path: Path) -> None:
    """Beyond the bound nothing is appended, however much room the disk has."""
    (tmp_path / "traces").mkdir()
    free = os.statvfs(tmp_path)
    job = JobTraces(tmp_path / "traces", JOB, leave_bytes=free.f_blocks * free.f_frsize)
    job.append(pieces(1))  # at most a twentieth is left free

    class Full:
        f_blocks, f_frsize, f_bavail = 1_000, 4_096, 40

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CoordError) as refused:
        patch.setattr(os, "statvfs", lambda path: Full)
        job.append(pieces(2))
    assert Code.STORE_FULL is refused.value.code


def test_damage_is_told_by_the_check_and_costs_only_itself(tmp_path: Path) -> None:
    """One flipped byte in a sealed segment: the check names the file, the rest is read."""
    home = DiskHome(tmp_path)
    home.run(lambda store: store.commit([Put(a_job(JOB, WorkState.RUNNING))]))
    job = JobTraces(home.data.traces, JOB)
    job.append(pieces(1))
    name = job.seal(pieces(1), [INCOMING])
    job.append(pieces(2))
    clean = check_files(home.data.path)
    assert () == clean.problems
    data = bytearray((job.path / name).read_bytes())
    data[-1] ^= 1
    data[-8] ^= 1
    (job.path / name).write_bytes(data)
    report = check_files(home.data.path)
    assert [f"traces/4/{JOB}/{name} is damaged: column n is not what was written"] == list(report.problems)
    assert clean.files == report.files


def test_a_backup_brings_them_back(tmp_path: Path) -> None:
    """Segments and what is incoming, in a new directory, as they were when it was made."""
    home = DiskHome(tmp_path)

    async def save(store: DiskStore) -> Path:
        await store.commit([Put(a_job(JOB, WorkState.RUNNING))])
        job = JobTraces(store.data.traces, JOB)
        job.append(pieces(1))
        job.seal(pieces(1), [INCOMING])
        job.append(pieces(2))
        return await store.backup(home.data.backups)

    backup = home.run(save)
    JobTraces(home.data.traces, JOB).append(pieces(3))
    assert [1, 2] == kept(backup / "traces")
    elsewhere = tmp_path / "elsewhere"
    restore(backup, elsewhere)
    assert [1, 2] == kept(DataDir(elsewhere).traces)
    JobTraces(DataDir(elsewhere).traces, JOB).append(pieces(4))
    assert [1, 2] == kept(backup / "traces")


def test_a_copy_misses_nothing_that_is_sealed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was listed is gone, the segment that took its rows is new: the copy has it."""
    root = tmp_path / "traces"
    root.mkdir()
    job = JobTraces(root, JOB)
    job.append(pieces(1))
    first = job.seal(pieces(1), [INCOMING])
    job.append(pieces(2))
    real = os.link
    sealed: list[str] = []

    def sealing(source: Path, target: Path) -> None:
        if not sealed:
            sealed.append(job.seal(pieces(12), [first, INCOMING]))
        real(source, target)

    monkeypatch.setattr(os, "link", sealing)
    copy_traces(root, tmp_path / "copy")
    assert 12 in kept(tmp_path / "copy")


def test_they_go_with_their_job_and_orphans_at_the_next_start(tmp_path: Path) -> None:
    """A job past its retention takes its traces along; those of a job that never was are swept; others stay."""
    settings = StoreSettings(jobs_keep_ms=DAY_MS)
    home = DiskHome(tmp_path)
    old, live, never = JobId(1), JobId(2), JobId(3)

    async def prune() -> list[JobId]:
        store = await DiskStore.open(home.data, settings)
        try:
            rows = (a_job(old, WorkState.COMPLETED, ended_at_ms=NOON_MS), a_job(live, WorkState.RUNNING))
            await store.commit([Put(row) for row in rows])
            for job_id in (old, live, never):
                JobTraces(home.data.traces, job_id).append(pieces(job_id))
            await store.maintain(NOON_MS + DAY_MS // 2)
            early = jobs_kept(home.data.traces)
            await store.maintain(NOON_MS + 2 * DAY_MS)
            return early
        finally:
            await store.close()

    assert [old, live] == asyncio.run(prune())
    assert [live] == jobs_kept(home.data.traces)
