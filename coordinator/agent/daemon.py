"""The daemon: the agent's second process, which owns the network. Started by the keeper, never by hand.

It enrols once, then stays connected: one connection after the other, with jittered waits between them. What it must
not lose when it dies goes to the keeper: the resume key with every pulse, leases and stored logs as they come. It
does not outlive the keeper, and neither does anything that the keeper started.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import aiohttp
import msgspec

from coordinator import wire
from coordinator.agent import channel, cleanup, control, log, machine
from coordinator.agent.asking import Asking
from coordinator.agent.attempts import Attempts
from coordinator.agent.backoff import Backoff
from coordinator.agent.cache import Cache
from coordinator.agent.clock import boot_s
from coordinator.agent.closing import Ended, Then, on_http_status
from coordinator.agent.config import AgentConfig
from coordinator.agent.connection import FRAME_BYTES_MAX, Connection
from coordinator.agent.endpoint import AttemptEndpoint
from coordinator.agent.enrol import EnrolFailed, enrol
from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.fetching import Fetcher
from coordinator.agent.keeper_line import KeeperLine
from coordinator.agent.log import logger
from coordinator.agent.memory import collect_seldom
from coordinator.agent.offer import disk_bytes, offered
from coordinator.agent.places import work_of
from coordinator.agent.plans import Plans
from coordinator.agent.racing import first_of
from coordinator.agent.reaching import hint_for
from coordinator.agent.staging import Stager
from coordinator.agent.standing import AgentStatus, Standing, Wish
from coordinator.agent.state_dir import Identity, StateDir
from coordinator.agent.tending import Tending
from coordinator.agent.tls import (
    Endpoint,
    PinMismatch,
    Trust,
    decode_pin,
    parse_join_token,
    parse_url,
)
from coordinator.agent.tracing import Tracing
from coordinator.agent.vitals import Vitals

PREFETCH = 512
"""Leases that are taken ahead at a time: what is on its way between us and the coordinator's disk at 5,000 tasks a
second and 100 ms; half of what an agent may hold."""
AWAY_LOOK_S = 30.0
"""How often the wall clock is looked at while away: it may be set."""


class Daemon:
    """One daemon's work. `to_keeper` takes every message at once; the keeper's own come in by `hear`."""

    def __init__(
        self,
        start: channel.Start,
        state: StateDir,
        to_keeper: Callable[[channel.ToKeeper], None],
        listener: socket.socket,
        draw: Callable[[], float] = random.random,
        vitals: Vitals | None = None,
    ) -> None:
        self.standing = Standing(process_id=start.process_id, daemon=start.daemon, resume_key=start.resume_key)
        self._config: AgentConfig = start.config
        config = start.config
        self._patience = start.patience
        self._state = state
        self._to_keeper = to_keeper
        self._promises = start.promises
        self._told = asyncio.Event()
        self._listener = listener
        self._asking = Asking(draw)
        self._tracing = Tracing(self._asking, Path(config.state_dir), work_of(config), self.standing, on=config.trace)
        self._plans = Plans(to_keeper, f"http://127.0.0.1:{listener.getsockname()[1]}", self._tracing.environment)
        self.cache = Cache(Path(config.state_dir) / "cache", config.cache_bytes_max, machine.boot_id())
        fetcher = Fetcher(self._asking, self.cache, config.fetch_at_once, draw)
        self._stager = Stager(
            self._asking,
            fetcher,
            work_of(config),
            start.promises.isolation,
            to_keeper,
            self._plans.put,
            config.stage_still_s,
            self._tracing.traced,
        )
        self._tending = Tending(
            self._asking,
            fetcher,
            Path(config.state_dir),
            work_of(config),
            start.promises.isolation,
            to_keeper,
            self._tracing.traced,
        )
        self.attempts = Attempts(to_keeper, self._plans.put, self._stager, self._tending, self._tracing, draw)
        self._draw = draw
        self._vitals = vitals or Vitals()
        self._backoff = Backoff(self._patience.retry_ceilings_s, draw)

    def leave(self) -> None:
        """Say good-bye and end, from any state."""
        self.standing.ask(Wish())

    def hear(self, message: channel.ToDaemon) -> None:
        """The keeper says something."""
        match message:
            case channel.Now():
                self.attempts.on_now(message)
            case channel.No():
                self.attempts.on_no(message)
            case channel.Told():
                self._told.set()
            case channel.Leave():
                self.leave()
            case channel.Start():
                logger.error("a second start was ignored")

    def status(self) -> AgentStatus:
        return self.standing.status(
            keeper_pid=os.getppid(),
            daemon_pid=os.getpid(),
            attempts=self.attempts.status(),
            promises=self._promises,
            cache=self.cache.status(),
            traces=self._tracing.spool.status(),
        )

    async def run(self) -> Exit:
        """Until it was asked to leave. Raises AgentStop when it cannot go on."""
        timeout = aiohttp.ClientTimeout(total=self._patience.connect_s)
        try:
            async with (
                asyncio.TaskGroup() as group,
                aiohttp.ClientSession(timeout=timeout) as http,
                self._asking.open(),
                control.serve(self._state.path, self.standing.ask, self.status),
                AttemptEndpoint(self.attempts, self._tending, self._tracing).serve(self._listener),
            ):
                helpers = [
                    group.create_task(self._pulse_forever()),
                    group.create_task(self._vitals.watch_gpus()),
                    group.create_task(self._plans.run()),
                    group.create_task(self._stager.run()),
                    group.create_task(self._tending.run()),
                    group.create_task(self._tracing.run()),
                ]
                try:
                    return await self._serve(http)
                finally:
                    for helper in helpers:
                        helper.cancel()
        except BaseExceptionGroup as group_error:
            stop = _stop_in(group_error)
            if stop is None:
                raise
            raise stop from None
        finally:
            self._vitals.close()

    async def _pulse_forever(self) -> None:
        while True:
            self._keep_key(self.standing.resume_key)
            await asyncio.sleep(self._patience.pulse_s)

    def _keep_key(self, resume_key: str) -> None:
        self._to_keeper(channel.Pulse(resume_key=resume_key, sending=self._tending.sends()))

    # ---- who we are

    async def _serve(self, http: aiohttp.ClientSession) -> Exit:
        machine_id = machine.machine_id(self._state)
        identity = self._state.load_identity()
        if identity is None:
            identity = await self._enrol(http, machine_id)
            if identity is None:
                return Exit.STOPPED
        self._check_identity(identity, machine_id)
        url = self._config.coordinator or identity.coordinator
        endpoint = parse_url(url, self._config.insecure)
        self.standing.provider_id, self.standing.coordinator = identity.provider_id, endpoint.url()
        hello = await self._hello(identity)
        trust = Trust(
            endpoint,
            ca=self._config.ca,
            pin=decode_pin(identity.pin) if identity.pin else None,
            timeout_s=self._patience.connect_s,
        )
        self._asking.aim(endpoint, trust, identity.credential)
        await self._told.wait()  # a hello without what is held here would end it
        while True:
            ended = await self._connect(http, endpoint, trust, identity, hello)
            if (exit_code := await self._after(ended)) is not None:
                return exit_code

    async def _enrol(self, http: aiohttp.ClientSession, machine_id: str) -> Identity | None:
        """Become known. None when it was asked to leave before."""
        self.standing.phase = "enrolling"
        if not self._config.join_token:
            raise AgentStop(
                Exit.CONFIG,
                f"this agent is not enrolled ({self._state.path} holds no identity) and was given no join token",
                "an admin makes one with: coord token create --role join",
            )
        if not self._config.coordinator:
            raise AgentStop(Exit.CONFIG, "the coordinator's URL is not known", "name it once, to enrol")
        token = parse_join_token(self._config.join_token)
        endpoint = parse_url(self._config.coordinator, self._config.insecure)
        self.standing.coordinator = endpoint.url()
        trust = Trust(endpoint, ca=self._config.ca, pin=token.pin, timeout_s=self._patience.connect_s)
        while True:
            try:
                identity = await enrol(http, endpoint, trust, token, machine_id, self._config)
            except EnrolFailed as failed:
                if (exit_code := await self._after(failed.ended)) is not None:
                    assert exit_code is Exit.STOPPED
                    return None
                continue
            self._state.save_identity(identity)
            self._backoff.reset()
            logger.info("enrolled at %s as %s in pool %s", identity.coordinator, identity.provider_id, identity.pool)
            return identity

    def _check_identity(self, identity: Identity, machine_id: str) -> None:
        if identity.machine_id != machine_id:
            raise AgentStop(
                Exit.CLASH,
                f"the identity {identity.provider_id} in {self._state.path} was made on another machine",
                "a copied state directory is no identity: give this machine a state directory and an id of its own",
            )
        if self._config.provider_id not in ("", identity.provider_id):
            raise AgentStop(
                Exit.CONFIG,
                f"{self._state.path} is enrolled as {identity.provider_id}, not as {self._config.provider_id}",
                "an id is fixed at enrolment: leave --provider-id away, or use another --state directory",
            )

    async def _hello(self, identity: Identity) -> wire.Hello:
        config = self._config
        self.attempts.offered = offered(config, await self._vitals.gpu_names() if config.gpus is None else ())
        room = await asyncio.to_thread(disk_bytes, work_of(config), self.cache.root)
        return wire.Hello(
            versions=wire.VERSIONS,
            provider_id=identity.provider_id,
            machine_id=identity.machine_id,
            boot_id=machine.boot_id(),
            process_id=self.standing.process_id,
            agent_version=f"coord {metadata.version('coord')}",
            resources=self.attempts.offered,
            promises=msgspec.structs.replace(self._promises, prefetch=PREFETCH, data=True, disk_bytes=room),
            labels=config.labels,
        )

    # ---- connections, and the time between them

    async def _connect(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, trust: Trust, identity: Identity, hello: wire.Hello
    ) -> Ended:
        standing = self.standing
        if standing.wish is not None:
            return Ended(then=Then.RETRY, why="asked to leave")
        self.attempts.stay()
        standing.phase = "connecting"
        opened = await first_of(self._open(http, endpoint, trust, identity.credential), self._unwanted())
        if isinstance(opened, Ended):
            return opened
        hello = msgspec.structs.replace(hello, resume_key=standing.resume_key)
        connection = Connection(
            opened, hello, standing, self._vitals, self.attempts, self.cache, self._patience, self._keep_key
        )
        ended = await connection.attend()
        if connection.welcomed_at_s is not None and boot_s() - connection.welcomed_at_s >= self._patience.steady_s:
            self._backoff.reset()
        if ended.forget_key:
            standing.resume_key = ""
        if connection.welcomed_at_s is not None and identity.coordinator != endpoint.url():
            self._state.save_identity(msgspec.structs.replace(identity, coordinator=endpoint.url()))
        return ended

    async def _open(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, trust: Trust, credential: str
    ) -> aiohttp.ClientWebSocketResponse | Ended:
        try:
            async with asyncio.timeout(self._patience.connect_s):
                return await http.ws_connect(
                    endpoint.url(wire.CONNECT_PATH),
                    headers={"Authorization": f"Bearer {credential}"},
                    ssl=await trust.for_aiohttp(),
                    max_msg_size=FRAME_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=self._patience.close_s),
                )
        except aiohttp.WSServerHandshakeError as error:
            return on_http_status(error.status, "")
        except PinMismatch as error:
            return Ended(then=Then.LATER, why=str(error))
        except (aiohttp.ClientError, OSError) as error:
            trust.forget_certificate()
            why, hint = str(error) or type(error).__name__, hint_for(error, endpoint.url())
            return Ended(then=Then.RETRY, why=why, hint=hint)

    async def _after(self, ended: Ended) -> Exit | None:
        """Do what the end of a connection asks for: stop, wait, or stay away. None: connect again."""
        standing = self.standing
        wish = standing.wish
        if wish is not None:
            await self.attempts.leave(self._patience)
        if wish is not None and wish.until_ms is None:
            standing.disconnected("leaving", "")
            logger.info("left")
            return Exit.STOPPED
        if ended.then is Then.STOP:
            raise AgentStop(ended.exit_code, ended.why, ended.hint)
        if wish is not None:
            await self._be_away()
            return None
        wait_s = self._backoff.next_s() + (self._patience.later_s if ended.then is Then.LATER else 0.0)
        standing.disconnected("waiting", ended.why)
        standing.try_at_s = boot_s() + wait_s
        hint = f" ({ended.hint})" if ended.hint else ""
        logger.warning("not connected to %s: %s%s; next try in %.1f s", standing.coordinator, ended.why, hint, wait_s)
        await first_of(asyncio.sleep(wait_s), standing.changed())
        standing.try_at_s = None
        return None

    async def _unwanted(self) -> Ended:
        await self.standing.wish_made()
        return Ended(then=Then.RETRY, why="asked to leave")

    async def _be_away(self) -> None:
        standing = self.standing
        standing.disconnected("away", "")
        logger.info("away for %.0f s", standing.away_for_s())
        while (left_s := standing.away_for_s()) > 0:
            await first_of(asyncio.sleep(min(left_s, AWAY_LOOK_S)), standing.changed())
        if standing.wish is not None and standing.wish.until_ms is not None:
            standing.wish = None
        self._backoff.reset()


def _stop_in(error: BaseException) -> AgentStop | None:
    if isinstance(error, BaseExceptionGroup):
        return next((stop for inner in error.exceptions if (stop := _stop_in(inner)) is not None), None)
    return error if isinstance(error, AgentStop) else None


# ---- the process


async def _main(end: socket.socket, listener: socket.socket, start: channel.Start, state: StateDir) -> Exit:
    loop = asyncio.get_running_loop()
    keeper_pid = os.getppid()

    def orphaned() -> NoReturn:
        _orphaned(state)

    def on_continue(_signum: int, _frame: object) -> None:
        if os.getppid() != keeper_pid:
            orphaned()

    def hear(message: channel.ToDaemon) -> None:
        daemon.hear(message)

    line = KeeperLine(end, hear, orphaned)
    daemon = Daemon(start, state, line.send, listener)
    # Three ways to notice the keeper's death: the channel's end, this signal while the loop is busy, and because it
    # is this one, also while we are stopped. SIGKILL would be simpler, and leave no moment to end what must not go on.
    signal.signal(signal.SIGCONT, on_continue)
    channel.hear_of_parents_death(signal.SIGCONT)
    signal.signal(signal.SIGTERM, lambda _signum, _frame: loop.call_soon_threadsafe(daemon.leave))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line.open()
    collect_seldom()
    try:
        return await daemon.run()
    finally:
        line.close()


def _orphaned(state: StateDir) -> NoReturn:
    """The keeper is dead: nothing that it started may go on without it, and nobody is left to report to."""
    logger.error("the keeper died; its attempts are killed and the daemon ends")
    try:
        cleanup.kill_attempts(state.path)
    finally:
        os._exit(Exit.FAULT)


def main() -> NoReturn:
    """Be the daemon of the keeper at the other end of the inherited channel."""
    try:
        end = socket.socket(fileno=channel.DAEMON_FD)
        listener = socket.socket(fileno=channel.ENDPOINT_FD)
        for fd in (channel.DAEMON_FD, channel.ENDPOINT_FD):
            os.set_inheritable(fd, False)
        end.setblocking(True)
        heard = channel.hear_keeper(end)
    except OSError:
        sys.exit("the daemon is started by the keeper: coord agent")
    start = heard[0] if heard else None
    if not isinstance(start, channel.Start):
        os._exit(Exit.FAULT)
    end.setblocking(False)
    log.start(start.config.log_level)
    try:
        state = StateDir(Path(start.config.state_dir))
        status = asyncio.run(_main(end, listener, start, state))
    except AgentStop as stop:
        logger.error("%s", stop)
        status = stop.exit_code
    # not sys.exit: a thread that hangs in a driver must not keep the process
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
