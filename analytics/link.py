"""The coordinator's side of analytics: starts and watches the worker, asks it, and remembers what it said.

Implements `ports.analytics.Analytics` and `ports.attribution.Attribution`. The worker's death costs fresh figures and
nothing else: remembered answers are served with the time they were computed at until a new worker is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from analytics import sqlbox
from analytics.attribution.following.settings import AttributionSettings
from analytics.child import Child
from analytics.framing import (
    FRAME_BYTES_MAX,
    Answered,
    Ask,
    AskDesk,
    Desked,
    Done,
    FiguresHead,
    FiguresPart,
    Follow,
    Following,
    Judge,
    Ping,
    Pong,
    Refresh,
    Refused,
    ToParent,
    ToWorker,
    Verdicts,
    encode,
    for_parent,
)
from analytics.watch import Watch
from coordinator.core.commands import VerdictWanted
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import FiguresPublished, ProviderFigures
from coordinator.core.ids import Ms
from coordinator.ports.analytics import AnalyticsHealth, Answer, AnyQuestion, AskBacktest, AskSql
from coordinator.ports.attribution import Followable, Hearer, LauncherAnswer, LauncherCall
from coordinator.ports.clock import Clock
from store.layout import DataDir


class LinkSettings(Struct, frozen=True, kw_only=True):
    """How patient we are with the worker, and how much it may take."""

    memory: str = "512MB"
    """DuckDB's memory cap in the worker."""
    threads: int = 2
    nice: int = 10
    timeout_s: float = 30.0
    """Of a question, once a worker is there."""
    backtest_timeout_s: float = 600.0
    pending_max: int = 256
    """Questions under way; a further one is refused."""
    remembered_bytes_max: int = 16 * 1024 * 1024
    """Of answers that are served when there is no worker; the least recently used go first."""
    backoff_first_s: float = 0.5
    backoff_max_s: float = 60.0
    healthy_s: float = 60.0
    """A worker that lived so long starts the back-off anew."""
    ping_s: float = 10.0
    """The worker is asked so often whether it is there; its listening thread answers whatever it computes."""
    silent_s: float = 60.0
    """A worker that says nothing for so long is killed and started again."""
    stuck_s: float = 1_200.0
    """The same of one that is at one piece of work for so long, if that is more than backtest_timeout_s."""
    still_s: float = 120.0
    """The same of one that is at work for so long and has used no CPU meanwhile: its threads wait for each other."""
    sql_memory: str = "512MB"
    sql_at_once_max: int = 2


DESK_S = 90.0
"""A launcher waits so long for an answer; the desk says TIMEOUT before."""
FIRST_VIEWS_S = 5.0
"""A query that comes before the first views were published waits so long for them, then it is refused."""


class WorkerLink:
    """One worker at a time. Run `run()` in a task group; everything is for the loop that runs it."""

    def __init__(
        self,
        data: Path,
        on_figures: Callable[[FiguresPublished], None] = lambda event: None,
        settings: LinkSettings = LinkSettings(),  # noqa: B008 frozen
        *,
        clock: Clock | None = None,
        lost_after_ms: Ms = 30_000,
        attribution: AttributionSettings = AttributionSettings(),  # noqa: B008 frozen
    ) -> None:
        """`on_figures` is called in the loop with each publication; it must not block or raise.

        `clock` says what "now" is to the worker too; without one it goes by the wall clock. `lost_after_ms` is the
        gap that ends a stay.
        """
        self._data = DataDir(data)
        self._on_figures = on_figures
        self._settings = settings
        self._clock = clock
        self._lost_after_ms = lost_after_ms
        self._attribution = attribution
        self._hearer: Hearer | None = None
        self._child: Child | None = None
        self._up = asyncio.Event()
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._at_the_desk: dict[int, asyncio.Future[LauncherAnswer]] = {}
        self._next = 0
        self._remembered: OrderedDict[bytes, Answer] = OrderedDict()
        self._remembered_bytes = 0
        self._computed_at_ms: Ms | None = None
        self._starts = 0
        self._last_error = ""
        self._killed = ""
        """Why this worker was killed by us; empty while it was not."""
        self._sql_slots = asyncio.Semaphore(settings.sql_at_once_max)
        self._sql_waiting = 0

    # ---- ports.analytics.Analytics

    async def ask(self, question: AnyQuestion) -> Answer:
        """The worker's answer, or the remembered one to the same question. Raises CoordError as the port says."""
        if isinstance(question, AskSql):
            return await self._sql(question)
        key = msgspec.json.encode(question)
        patience = self._settings.backtest_timeout_s if isinstance(question, AskBacktest) else self._settings.timeout_s
        try:
            answer = await self._exchange(lambda n: Ask(n, question), patience)
        except CoordError as error:
            old = self._remembered.get(key)
            if old is not None and error.code in (Code.ANALYTICS_UNAVAILABLE, Code.TIMEOUT):
                self._remembered.move_to_end(key)
                return old
            raise
        self._remember(key, answer)
        return answer

    def health(self) -> AnalyticsHealth:
        """How the worker is now."""
        return AnalyticsHealth(
            up=self._up.is_set(),
            restarts=max(self._starts - 1, 0),
            computed_at_ms=self._computed_at_ms,
            last_error=self._last_error,
        )

    async def refresh(self) -> None:
        """Have the worker read what is new, compute and publish; returns when it has. Raises CoordError.

        A worker that is being started is waited for: its first publication may have read the store already.
        """
        patience_s = self._settings.backtest_timeout_s
        try:
            async with asyncio.timeout(patience_s):
                await self._up.wait()
        except TimeoutError:
            raise self._unavailable() from None
        await self._exchange(Refresh, patience_s)

    @property
    def pid(self) -> int | None:
        """Of the worker, for `coord doctor` and tests; None when there is none."""
        return self._child.pid if self._child is not None else None

    # ---- ports.attribution.Attribution

    def hear(self, hearer: Hearer) -> None:
        self._hearer = hearer

    def follow(self, running: Sequence[Followable]) -> bool:
        return self._told(Follow(tuple(running)))

    def judge(self, wanted: VerdictWanted) -> bool:
        return self._told(Judge(wanted))

    # ---- ports.attribution.Launchers

    async def launcher(self, call: LauncherCall) -> LauncherAnswer:
        """What the desk says. Raises CoordError as the port says."""
        if len(self._at_the_desk) >= self._settings.pending_max:
            raise CoordError(Code.TOO_MANY, f"{len(self._at_the_desk)} launchers wait", "ask again in a moment")
        self._next += 1
        n = self._next
        waiting: asyncio.Future[LauncherAnswer] = asyncio.get_running_loop().create_future()
        self._at_the_desk[n] = waiting
        try:
            if not self._told(AskDesk(n, call)):
                raise self._unavailable()
            async with asyncio.timeout(DESK_S):
                return await waiting
        except TimeoutError:
            raise CoordError(Code.TIMEOUT, f"no answer within {DESK_S:.0f} s", "ask again with wait=false") from None
        finally:
            self._at_the_desk.pop(n, None)

    def _told(self, message: ToWorker) -> bool:
        return self._child is not None and self._child.say(encode(message))

    # ---- the life of workers

    async def run(self) -> None:
        """Keep a worker alive until cancelled; then end it."""
        pause_s = self._settings.backoff_first_s
        while True:
            began = time.monotonic()
            try:
                await self._live()
            finally:
                self._up.clear()
                self._child = None
                self._fail_pending()
            if time.monotonic() - began >= self._settings.healthy_s:
                pause_s = self._settings.backoff_first_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._settings.backoff_max_s)

    async def _live(self) -> None:
        """One worker, from its start to its end."""
        s = self._settings
        self._starts += 1
        try:
            child = await Child.start(
                *("analytics.worker", "--data", str(self._data.path)),
                *("--memory", s.memory, "--threads", str(s.threads), "--nice", str(s.nice)),
                *("--lost-after-ms", str(self._lost_after_ms), *self._clock_arguments()),
                *("--attribution", msgspec.json.encode(self._attribution).decode()),
            )
        except OSError as error:
            self._last_error = f"the worker could not be started: {error}"
            return
        self._child = child
        if self._hearer is not None:
            self._hearer.began()
        watch = Watch(s.ping_s, s.silent_s, max(s.stuck_s, s.backtest_timeout_s), s.still_s)
        self._killed = ""
        await child.live(lambda: self._listen(child, watch), lambda: self._keep_watch(child, watch))
        self._last_error = f"the worker was killed: {self._killed}" if self._killed else f"the worker {child.end()}"

    async def _keep_watch(self, child: Child, watch: Watch) -> None:
        """Ask the worker whether it is there; kill it when it hangs. That ends its output, and so its life."""
        before = time.monotonic()
        while not self._killed:
            child.say(encode(Ping()))
            await asyncio.sleep(self._settings.ping_s)
            now = time.monotonic()
            self._killed = watch.step(now - before)
            before = now
        self._up.clear()
        child.kill()

    def _clock_arguments(self) -> tuple[str, ...]:
        """How the worker finds our time: both of us read one monotonic clock."""
        if self._clock is None:
            return ()
        return ("--boot-at-ms", str(self._clock.now_ms() - int(self._clock.monotonic_s() * 1_000)))

    async def _listen(self, child: Child, watch: Watch) -> None:
        """Take what the worker says until it ends. What is no message ends it too: it cannot be trusted further."""
        head: FiguresHead | None = None
        providers: list[ProviderFigures] = []
        while (body := await child.frame(FRAME_BYTES_MAX)) is not None:
            try:
                message: ToParent = for_parent(body)
            except msgspec.DecodeError as error:
                self._last_error = f"the worker said what is no message: {error}"
                return
            watch.heard()
            match message:
                case Pong(reading=reading, slow=slow, following=following, cpu_s=cpu_s):
                    watch.at_work(reading, slow, following, cpu_s=cpu_s)
                case Answered(n=n, computed_at_ms=computed_at_ms):
                    text = await child.frame(FRAME_BYTES_MAX)
                    if text is None:
                        return
                    self._settle(n, Answer(json=text, computed_at_ms=computed_at_ms))
                case Done(n=n):
                    self._settle(n, Answer(json=b"", computed_at_ms=self._computed_at_ms or 0))
                case Refused(n=n, code=code, message=text_of, hint=hint):
                    refused = self._pending.pop(n, None) or self._at_the_desk.pop(n, None)
                    if refused is not None and not refused.done():
                        refused.set_exception(CoordError(Code(code), text_of, hint))
                case Desked(n=n, answer=answer):
                    asked = self._at_the_desk.pop(n, None)
                    if asked is not None and not asked.done():
                        asked.set_result(answer)
                case Verdicts(judged=judged) if self._hearer is not None:
                    for one in judged:
                        self._hearer.judged(one)
                case Following(figures=figures) if self._hearer is not None:
                    self._hearer.figures(figures)
                case FiguresHead():
                    head, providers = message, []
                case FiguresPart(providers=some, last=last):
                    providers.extend(some)
                    if last and head is not None:
                        self._publish(head, tuple(providers))
                        head, providers = None, []

    def _publish(self, head: FiguresHead, providers: tuple[ProviderFigures, ...]) -> None:
        self._computed_at_ms = head.computed_at_ms
        self._up.set()
        self._on_figures(
            FiguresPublished(
                at_ms=head.at_ms,
                computed_at_ms=head.computed_at_ms,
                horizons_ms=head.horizons_ms,
                delays_ms=head.delays_ms,
                providers=providers,
                fleet_stays=head.fleet_stays,
                fleet_returns=head.fleet_returns,
            )
        )

    # ---- questions

    async def _exchange(self, make: Callable[[int], ToWorker], patience_s: float) -> Answer:
        if len(self._pending) >= self._settings.pending_max:
            raise CoordError(Code.TOO_MANY, f"{len(self._pending)} questions are under way", "ask again in a moment")
        self._next += 1
        n = self._next
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[n] = waiting
        try:
            if not self._told(make(n)):
                raise self._unavailable()
            async with asyncio.timeout(patience_s):
                return await waiting
        except TimeoutError:
            message = f"analytics did not answer within {patience_s:.0f} s"
            raise CoordError(Code.TIMEOUT, message, "ask for less, or wait until it is through") from None
        except (ConnectionError, RuntimeError) as error:
            raise self._unavailable() from error
        finally:
            self._pending.pop(n, None)

    def _settle(self, n: int, answer: Answer) -> None:
        waiting = self._pending.pop(n, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail_pending(self) -> None:
        pending: list[asyncio.Future[Any]] = [*self._pending.values(), *self._at_the_desk.values()]
        self._pending, self._at_the_desk = {}, {}
        for waiting in pending:
            if not waiting.done():
                waiting.set_exception(self._unavailable())

    def _unavailable(self) -> CoordError:
        why = f" ({self._last_error})" if self._last_error else ""
        return CoordError(
            Code.ANALYTICS_UNAVAILABLE,
            f"the analytics worker is not there{why}",
            "it is being started again; providers and sessions are served meanwhile",
        )

    def _remember(self, key: bytes, answer: Answer) -> None:
        old = self._remembered.pop(key, None)
        if old is not None:
            self._remembered_bytes -= len(old.json) + len(key)
        if len(answer.json) + len(key) > self._settings.remembered_bytes_max // 4:
            return
        self._remembered[key] = answer
        self._remembered_bytes += len(answer.json) + len(key)
        while self._remembered_bytes > self._settings.remembered_bytes_max:
            gone_key, gone = self._remembered.popitem(last=False)
            self._remembered_bytes -= len(gone.json) + len(gone_key)

    async def _sql(self, question: AskSql) -> Answer:
        """A query of a person's: a process of its own, a few at once, a few more waiting."""
        if self._sql_waiting >= 4 * self._settings.sql_at_once_max:
            raise CoordError(Code.TOO_MANY, f"{self._sql_waiting} queries wait already", "ask again in a moment")
        self._sql_waiting += 1
        try:
            async with self._sql_slots:
                try:
                    return await self._boxed(question)
                except CoordError as error:
                    if error.code is not Code.ANALYTICS_UNAVAILABLE:
                        raise
                # Nothing is published yet: the worker does so before it is up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(question.timeout_s, FIRST_VIEWS_S)):
                        await self._up.wait()
                return await self._boxed(question)
        finally:
            self._sql_waiting -= 1

    async def _boxed(self, question: AskSql) -> Answer:
        return await sqlbox.run(
            self._data.views,
            self._data.segments,
            question.statement,
            timeout_s=question.timeout_s,
            rows_max=question.rows_max,
            memory=self._settings.sql_memory,
        )
