"""One attempt's inputs, and the checkpoint that it resumes from: fetched, and laid beneath the program's directories.

The program has not begun, and never began here: whatever lies there was laid by us, or by a daemon before us. Where
the directories are the attempt's own they are reached through ours (`beneath`); another working directory is written to
only where the program has the rights that we have.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from coordinator import manifest, wire, wire_data
from coordinator.agent import beneath, channel
from coordinator.agent.asking import Asking, Whose
from coordinator.agent.beneath import Unsafe
from coordinator.agent.cache import NoRoom, free_bytes
from coordinator.agent.fetching import Blob, Damaged, Fetcher, Gone
from coordinator.agent.laying import lay
from coordinator.agent.log import logger
from coordinator.agent.parts import DiskFailed, disk
from coordinator.agent.places import place_at
from coordinator.agent.stillness import Motion
from coordinator.agent.trace_rows import Traced, Value, timed
from coordinator.core.errors import CoordError
from coordinator.core.ids import check_name
from coordinator.core.work.jobspec import Isolation

TRACED_MAX = 100
"""More files of an attempt have no span each."""
AT_ONCE = 8
"""Files of one attempt that are brought at a time."""
Item = TypeVar("Item")


class CannotStage(Exception):
    """It ends before it began. `code` is an errno: of our full disk, or of what will be missing everywhere (ENOENT)."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Order(NamedTuple):
    """One attempt that is to be staged: as the keeper holds it, and what is to run."""

    now: channel.Now
    launch: wire.Launch

    @property
    def whose(self) -> Whose:
        return Whose(self.now.attempt, self.now.rank, self.now.token)


class Wanted(NamedTuple):
    """One file, and where it goes."""

    path: str
    blob: Blob
    executable: bool


class Bringing:
    """Of one attempt. `work` is where programs have their directories, `level` what keeps them apart."""

    def __init__(
        self,
        order: Order,
        asking: Asking,
        fetcher: Fetcher,
        work: Path,
        level: Isolation,
        motion: Motion,
        traced: Traced,
    ) -> None:
        self._whose = order.whose
        self._user = order.now.user
        self._plan = order.launch.plan
        self._place = place_at(order.now.directory, str(work))
        self._asking = asking
        self._fetcher = fetcher
        self._work = work
        self._level = level
        self._motion = motion
        self._traced = traced
        self._tenant = ""
        self._stopped = False

    async def bring(self) -> int:
        """Everything into its place. The number of the checkpoint that was restored; 0: none.

        Raises CannotStage, what `Fetcher.having` raises, and Unsafe. Cancelled: nothing of it goes on.
        """
        self._tenant = tenant_named(self._plan.tenant)
        answer = await self._asking.staging(self._whose)
        files = [wanted(file) for file in answer.files]
        home = await self._in_thread(self._open_home)
        try:
            await self._lay_all(home, files)
            if self._plan.checkpoint is None or not self._plan.checkpoint.restore:
                return 0
            saved = await self._in_thread(partial(self._open_saved, home))
            try:
                return await self._restore(saved, answer.checkpoints, home, files)
            finally:
                os.close(saved)
        finally:
            os.close(home)

    async def _in_thread(self, work: Callable[[], Item]) -> Item:
        return await self._fetcher.in_thread(work, self._stop)

    def _stop(self) -> None:
        self._stopped = True

    # ---- the program's directories

    def _open_home(self) -> int:
        """The working directory."""
        name = PurePosixPath(self._plan.directory)
        if not name.is_absolute():
            return self._open_own("HOME", _text(name))
        if self._level is not Isolation.NONE:
            raise CannotStage(f"inputs cannot be laid into {name}: it is not the attempt's own", errno.ENOENT)
        try:
            return beneath.open_root(str(name))
        except OSError as error:
            raise CannotStage(f"directory {name}: {error.strerror}", errno.ENOENT) from error

    def _open_saved(self, home: int) -> int:
        """The directory that is saved and restored."""
        assert self._plan.checkpoint is not None
        name = PurePosixPath(self._plan.checkpoint.path)
        if not name.parts:
            return self._open_own("COORD_CHECKPOINT_DIR", "")
        with disk(Path(name)):
            return beneath.make_directories(home, _text(name), self._user)

    def _open_own(self, variable: str, name: str) -> int:
        """One of the attempt's own directories, or `name` beneath it, which is made."""
        own = Path(self._place.variables[variable])
        with disk(own):
            root = beneath.open_root(self._work)
            try:
                inner = beneath.open_directory(root, own.relative_to(self._work).as_posix())
            finally:
                os.close(root)
            try:
                return beneath.make_directories(inner, name, self._user)
            finally:
                os.close(inner)

    # ---- files

    async def _lay_all(self, target: int, files: Sequence[Wanted]) -> None:
        self._stopped = False  # by the failure of a file, the others of its checkpoint were; none of them goes on

        async def one(number: int, file: Wanted) -> None:
            async with self._fetcher.having(self._tenant, file.blob, self._whose, self._motion) as source:
                await self._lay(source, target, file, f"{self._whose.attempt}-{number}")
            self._motion.moved()

        async def traced_one(number: int, file: Wanted) -> None:
            said: dict[str, Value] = {"coord.file": file.path, "coord.bytes": file.blob.size}
            with timed(self._traced, self._whose, f"fetch {file.path}", "fetch", "network", said):
                await one(number, file)

        await each(files, traced_one if len(files) <= TRACED_MAX else one, AT_ONCE)

    async def _lay(self, source: Path, target: int, file: Wanted, mark: str) -> None:
        """A copy into its place. Where the disk is full, what only the cache keeps goes for it."""
        work = partial(self._lay_now, source, target, file, mark)
        try:
            await self._in_thread(work)
        except DiskFailed as failed:
            if not failed.full:
                raise
            if not self._shares_disk(target) or not await self._fetcher.cache.make_room(file.blob.size):
                raise NoRoom(file.blob.size, free_bytes(target), self._place.work) from None
            try:
                await self._in_thread(work)
            except DiskFailed as again:
                if not again.full:
                    raise
                raise NoRoom(file.blob.size, free_bytes(target), self._place.work) from None

    def _lay_now(self, source: Path, target: int, file: Wanted, mark: str) -> None:
        with disk(source), source.open("rb") as opened:
            lay(
                opened.fileno(),
                target,
                file.path,
                mark=mark,
                executable=file.executable,
                user=self._user,
                wanted=self._still_wanted,
            )

    def _still_wanted(self) -> bool:
        """Asked by the copying thread with every piece."""
        self._motion.moved()
        return not self._stopped

    def _shares_disk(self, target: int) -> bool:
        return os.fstat(target).st_dev == self._fetcher.cache.root.stat().st_dev

    # ---- the checkpoint

    async def _restore(
        self, target: int, states: Sequence[wire_data.SavedState], home: int, inputs: Sequence[Wanted]
    ) -> int:
        """The newest one that is whole; each that is not is said to be damaged. None: it starts from nothing."""
        for state in states:
            try:
                files = await self._files_of(state)
            except (Damaged, Gone) as error:
                await self._is_damaged(state, str(error))
                continue
            try:
                await self._lay_all(target, files)
            except (Damaged, Gone, Unsafe) as error:  # unsafe: an input's directory has the name of one of its files
                await self._is_damaged(state, str(error))
                for file in files:
                    with contextlib.suppress(Unsafe, IsADirectoryError):
                        await self._in_thread(partial(beneath.remove_file, target, file.path))
                await self._lay_all(home, inputs)  # it may have lain over some
                continue
            await self._asking.restored(self._whose, state.number)
            logger.info("%s resumes from checkpoint %d", self._whose.attempt, state.number)
            return state.number
        if states:
            logger.warning("%s starts from nothing: no checkpoint of it can be restored", self._whose.attempt)
        return 0

    async def _is_damaged(self, state: wire_data.SavedState, why: str) -> None:
        logger.warning("checkpoint %d of %s cannot be restored: %s", state.number, self._whose.attempt, why)
        await self._asking.damaged(self._whose, state.number, why)

    async def _files_of(self, state: wire_data.SavedState) -> list[Wanted]:
        files = await files_of(state, self._tenant, self._whose, self._asking, self._fetcher)
        self._motion.moved()
        return files


async def files_of(
    state: wire_data.SavedState, tenant: str, whose: Whose, asking: Asking, fetcher: Fetcher
) -> list[Wanted]:
    """The files of a checkpoint, with URLs of those that are not in the cache. Damaged, Gone: it cannot be restored."""
    blob = Blob(state.manifest, manifest.BYTES_MAX, state.url)
    try:
        listed = manifest.decode(await fetcher.read(blob, whose)).files
    except CoordError as error:
        raise Damaged(error.message) from None
    missing = dict.fromkeys(entry.digest for entry in listed if not fetcher.cache.has((tenant, entry.digest)))
    urls = await asking.urls(whose, list(missing)) if missing else {}
    gone = [digest for digest in missing if digest not in urls]
    if gone:
        raise Gone(f"{len(gone)} of its {len(listed)} files are not there any more")
    return [
        Wanted(entry.path, Blob(entry.digest, entry.size, urls.get(entry.digest, "")), entry.executable)
        for entry in listed
    ]


async def each(items: Sequence[Item], work: Callable[[int, Item], Awaitable[None]], at_once: int) -> None:
    """`work(number, item)` of every item, so many at a time. The first failure ends the others and is raised."""
    left = iter(enumerate(items))

    async def worker() -> None:
        for number, item in left:
            await work(number, item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def wanted(file: wire_data.StagedFile) -> Wanted:
    """An input as the coordinator named it."""
    return Wanted(file.path, Blob(file.digest, file.size, file.url), file.executable)


def tenant_named(text: str) -> str:
    """`text`, if a directory may be called so."""
    try:
        return check_name(text, "tenant")
    except CoordError as error:
        raise CannotStage(f"whose it is was not said: {error.message}") from None


def _text(path: PurePosixPath) -> str:
    return path.as_posix() if path.parts else ""
