"""One thread that owns the one writing connection of a database; everybody else hands it work.

Work is done in the order it was handed over, each piece in one call of the thread. The queue needs no bound of
its own: every caller waits for its answer, and each of them (engine, heartbeat writer, maintenance, import,
backup) has one piece in hand at a time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from coordinator.core.errors import Code, CoordError
from store.sqlite import broken, sqlite3, translated
from store.waiting import answer

T = TypeVar("T")
PAUSE_S_MAX = 30.0
"""A pause that was forgotten ends by itself: a writer that stands still for good loses everything."""


class Writer:
    """The writer of one file. Raises CoordError; once STORE_BROKEN, it refuses everything afterwards."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.broken: CoordError | None = None
        self._connection = connection
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        # A daemon: a process that ends without `close` must not wait for it.
        self._thread = threading.Thread(target=self._serve, name=f"write {path.name}", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in the thread, outside any transaction. A caller that is cancelled does not stop it."""
        return await self.hand_over(work)

    def hand_over(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """The same, begun when this returns and not when somebody awaits it: a turn of the loop sooner."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.broken is not None:
            future.set_exception(self.broken)
        else:
            self._work.put((lambda: work(self._connection), future))
        return future

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction: all of it is committed when this returns, none when it raises."""
        return await self.run(lambda connection: in_transaction(connection, work))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """While this is held (at most 30 s) nothing is written."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        release = threading.Event()

        def stand_still(connection: sqlite3.Connection) -> None:
            answer(reached, None)
            release.wait(PAUSE_S_MAX)

        standing = asyncio.ensure_future(self.run(stand_still))
        try:
            await asyncio.wait((reached, standing), return_when=asyncio.FIRST_COMPLETED)
            if not reached.done():
                await standing  # refused: says why
            yield
        finally:
            release.set()
            await standing

    async def close(self) -> None:
        """Finish what was handed over, then close the connection. Safe to call twice."""
        if self._thread.is_alive():
            self._work.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _serve(self) -> None:
        while True:
            item = self._work.get()
            if item is None:
                break
            work, future = item
            result: Any = None
            failure: BaseException | None = None
            try:
                if self.broken is not None:
                    raise self.broken
                result = work()
            except BaseException as error:  # handed to the caller, who is told or has gone
                failure = translated(error, self.path)
                if failure is not error:
                    failure.__cause__ = error
                if isinstance(failure, CoordError) and failure.code is Code.STORE_BROKEN:
                    self.broken = failure
            answer(future, result, failure)
        # If the last checkpoint fails, what was committed lies in the log and is found at the next start.
        with suppress(sqlite3.Error):
            self._connection.close()


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work` in one immediate transaction: committed when this returns, rolled back when it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    return result


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction, if the failure did not end it already. STORE_BROKEN where even that fails."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise broken(f"a transaction could not be rolled back: {error}") from error
