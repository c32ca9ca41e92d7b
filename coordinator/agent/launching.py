"""From a plan to a process: environment, streams, limits, and a start at the isolation that this agent gives."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pwd
import resource
import shutil
from pathlib import Path

import msgspec

from coordinator.agent.attempt import Attempt
from coordinator.agent.cgroup import CgroupHome, CgroupTree
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig
from coordinator.agent.devices import gpu_groups
from coordinator.agent.isolation import Program, Started, Walls, start_isolated
from coordinator.agent.journal import USERS
from coordinator.agent.places import Place
from coordinator.agent.progress import FILE as PROGRESS_FILE
from coordinator.agent.pump import Pump
from coordinator.agent.secret import FILE as TOKEN
from coordinator.agent.secret import write_secret
from coordinator.agent.spawn import NOT_STARTED, PATH, PROCESSES_MAX, CannotStart, start_beside, stdin_of
from coordinator.agent.starters import Starters
from coordinator.agent.starting import Order, Setup
from coordinator.agent.tree import MARK, Tree, Walk
from coordinator.core.amounts import UNIT
from coordinator.core.rows import EndCause, Promises
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.launch_plan import LaunchPlan

PLAN_BYTES_MAX = 8 << 20
OVER_AT_ONCE = "it used more memory than it was given as it began"
OURS = ("COORD_OUTPUT_DIR", "COORD_CHECKPOINT_DIR", "COORD_TRACE_DIR")
"""A job cannot say otherwise."""
USERS_FROM = 1_900_000_000
"""The first user id that is given to attempts: above what distributions, containers and systemd give out."""
BLOCKS = 3_000
"""Of ids: each agent of this machine has one of its own, as a rule, chosen by its state directory."""
ORDER = tuple(Isolation)
_PLAN = msgspec.json.Decoder(LaunchPlan)


class Launcher:
    """Starts attempts at `level`. What it promises was tried before (`probing`)."""

    def __init__(
        self, config: AgentConfig, level: Isolation, home: CgroupHome | None, work: Path, files: tuple[int, int]
    ) -> None:
        self.level = level
        self._home = home
        self._work = work
        self._files = files
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._log_bytes_max = config.log_bytes_max
        state = Path(config.state_dir).resolve()
        self._mark = state.as_posix()
        self._users_from = users_from(state)
        self._hidden = (str(state), str(work), *(str(Path(path).resolve()) for path in config.hide))
        self._user = user_name()
        self._path = _told(os.environ.get("PATH") or PATH)
        self._lang = _told(os.environ.get("LANG") or "C.UTF-8")
        self.gives_users = level is not Isolation.NONE and os.geteuid() == 0
        """Whether each attempt is a user of its own."""
        self.starters: Starters | None = None
        """Who starts programs; None: this process does."""
        self._orders = 0
        self.promises = Promises(
            work=True,
            isolation=level,
            kills_all=home is not None or level is Isolation.SANDBOX,
            freezes_all=home is not None,
            memory_limit=home is not None and home.limits_memory,
            cpu_limit=home is not None and home.cap is not None,
        )

    def launched(self) -> None:
        """After one `launch`, or a row of them: this process is where it belongs."""
        if self._home is not None:
            self._home.come_back()

    def setup(self) -> Setup | None:
        """What starters have to know. None: there are to be none, as programs cannot be found again without groups,
        and a sandbox is built by a copy of this process."""
        if self._home is None or self.level is Isolation.SANDBOX:
            return None
        return Setup(self._home.backs, self._files, PROCESSES_MAX if self.gives_users else 0)

    def may_wait(self, attempt: Attempt) -> bool:
        """Whether it may wait at a starter for its room: all that bounds it can be there before it begins."""
        plan = attempt.plan
        if plan is None or self._home is None or self.starters is None or not self.starters.possible:
            return False
        return not plan.limits.memory and self._home.caps_ahead(plan.limits.cpus)

    def launch(self, attempt: Attempt, kind: int = 0, taker: int = 0) -> int:
        """Start it, or order that: then the number of the order is returned, else 0. Raises CannotStart, with nothing
        left running. `launched` has to be called before anything else is done: this process may be inside of the
        attempt's group, and orders are not on their way before.

        `kind`: of its room (`LineUp.kind`); `taker`: the starter that has it wait for room (`Starters.taker`)."""
        plan = self._plan(attempt)
        place = attempt.place
        starters = self.starters if self.starters is not None and self.starters.possible else None
        tree = self._tree(place, plan, starters is not None)
        pumps: list[Pump] = []
        ends: list[int] = []
        stdin = self._nothing
        try:
            if attempt.secret:
                write_secret(place.kept, attempt.secret)
            if plan.stdin:
                stdin = stdin_of(plan.stdin)  # before this process is in the attempt's group, and counted there
                ends.append(stdin)
            for path in place.streams:
                pump = Pump(path, plan.limits.log_bytes or self._log_bytes_max, plan.log_full)
                pumps.append(pump)
                ends.append(pump.connect())
            if starters is not None:
                assert isinstance(tree, CgroupTree)
                order = self._order(attempt, plan, tree, kind, taker > 0)
                fds, ends = tuple(ends), []
                if taker:
                    starters.put_ahead(taker, order, fds)
                else:
                    starters.put(order, fds)
                attempt.expect(order.number, plan, tree, tuple(pumps))
                return order.number
            tree.enter()
            started = self._start(attempt, plan, stdin, (ends[-2], ends[-1]))
            tree.main = started.pid
        except (CannotStart, OSError) as error:
            for pump in pumps:
                pump.close()
            self.launched()
            tree.close()
            if isinstance(error, OSError):
                raise CannotStart(NOT_STARTED, f"{error.filename or 'no room'}: {error.strerror}") from None
            raise
        finally:
            for end in ends:
                os.close(end)
        attempt.begin(plan, tree, tuple(pumps), started.status, boot_s())
        if plan.limits.memory and isinstance(tree, CgroupTree):
            self.launched()
            if not tree.bound_memory():
                attempt.end(EndCause.OOM, OVER_AT_ONCE, 0.0, boot_s())
        return 0

    def _order(self, attempt: Attempt, plan: LaunchPlan, tree: CgroupTree, kind: int, waits: bool) -> Order:
        place, user = attempt.place, attempt.user
        if user:
            self._give(place, user)
        self._orders += 1
        return Order(
            number=self._orders,
            argv=plan.argv,
            env=self._environment(attempt, plan, user),
            directory=place.directory(plan.directory),
            entrances=tree.entrances(),
            user=user,
            groups=gpu_groups() if plan.gpus and user else (),
            limits=self._memory_limits(plan),
            stdin=bool(plan.stdin),
            apart=plan.limits.memory > 0,
            kind=kind,
            waits=waits,
            until_s=attempt.freeze_at_s if waits else math.inf,
        )

    def _start(self, attempt: Attempt, plan: LaunchPlan, stdin: int, outputs: tuple[int, int]) -> Started:
        place, user = attempt.place, attempt.user
        env = self._environment(attempt, plan, user)
        directory = place.directory(plan.directory)
        limits = self._limits(plan, user)
        if self.level is Isolation.NONE:
            pid = start_beside(plan.argv, env, directory, stdin, outputs)
            for kind, soft, hard in limits:
                with contextlib.suppress(OSError):  # it has ended already
                    resource.prlimit(pid, kind, (soft, hard))
            return Started(pid=pid)
        self._give(place, user)
        walls = None
        if self.level is Isolation.SANDBOX:
            walls = Walls(work=place.work, tmp=place.variables["TMPDIR"], hidden=self._hidden)
        return start_isolated(
            Program(
                argv=plan.argv,
                env=env,
                directory=directory,
                stdin=stdin,
                outputs=outputs,
                user=user,
                groups=gpu_groups() if plan.gpus else (),
                limits=limits,
                walls=walls,
            )
        )

    @staticmethod
    def _give(place: Place, user: int) -> None:
        """The program's directories and its token are its own, and nobody else's. 0: it stays who we are."""
        names = [place.work, *place.variables.values()]
        with contextlib.suppress(FileNotFoundError):  # an agent of another making may give its attempts none
            token = f"{place.work}/{TOKEN}"
            shutil.copyfile(f"{place.kept}/{TOKEN}", token)
            os.chmod(token, 0o600)  # noqa: PTH101  # strings: a Path for each would cost what the call does
            names.append(token)
        for name in names if user else ():
            os.chown(name, user, user)

    def user_id(self, number: int) -> int:
        """The user of the n-th attempt that got one of its own; 0: none."""
        return self._users_from + (number - 1) % USERS if number else 0

    @staticmethod
    def _plan(attempt: Attempt) -> LaunchPlan:
        plan = attempt.plan
        if plan is None:
            try:
                with Path(attempt.place.kept, "plan.json").open("rb") as file:
                    plan = _PLAN.decode(file.read(PLAN_BYTES_MAX))
            except (OSError, msgspec.DecodeError) as error:
                raise CannotStart(NOT_STARTED, f"the plan cannot be read: {error}") from None
        if not plan.argv:
            raise CannotStart(NOT_STARTED, "the command is empty")
        return plan

    def _tree(self, place: Place, plan: LaunchPlan, visited: bool) -> Tree:
        if ORDER.index(plan.isolation) > ORDER.index(self.level):
            raise CannotStart(NOT_STARTED, f"isolation {plan.isolation} is asked for, this agent gives {self.level}")
        if self._home is not None:
            try:
                # who is a user of its own has the bound of its user; a group beside it would cost a move more
                processes = 0 if self.gives_users else PROCESSES_MAX
                return self._home.group(plan.limits.memory, processes, plan.limits.cpus, visited)
            except OSError as error:
                raise CannotStart(NOT_STARTED, f"no cgroup could be made: {error.strerror}") from None
        return Walk(f"{self._mark}/{place.number}")

    def _limits(self, plan: LaunchPlan, user: int) -> tuple[tuple[int, int, int], ...]:
        limits = [(resource.RLIMIT_NOFILE, *self._files)]  # no cores: the keeper has none to hand down
        if user:
            limits.append((resource.RLIMIT_NPROC, PROCESSES_MAX, PROCESSES_MAX))
        return (*limits, *self._memory_limits(plan))

    def _memory_limits(self, plan: LaunchPlan) -> tuple[tuple[int, int, int], ...]:
        if not plan.limits.memory or self.promises.memory_limit:
            return ()
        # of what it may write to, each process by itself: address space alone is no measure, GPUs reserve terabytes
        return ((resource.RLIMIT_DATA, plan.limits.memory, plan.limits.memory),)

    def _environment(self, attempt: Attempt, plan: LaunchPlan, user: int) -> dict[str, str]:
        """From scratch: the agent's own ends here, but for PATH and LANG."""
        name = f"coord{user}" if user else self._user
        place = attempt.place
        env = {"PATH": self._path, "LANG": self._lang, "USER": name, "LOGNAME": name, **place.variables}
        if self.level is Isolation.SANDBOX:
            env["TMPDIR"] = "/tmp"  # noqa: S108  # its own
        if plan.limits.cpus:
            env["OMP_NUM_THREADS"] = str(max(1, plan.limits.cpus // UNIT))
        env.update(plan.env)
        env.update(place.always or self._tell_always(place))
        if plan.checkpoint is not None and plan.checkpoint.path:
            env["COORD_CHECKPOINT_DIR"] = f"{place.directory(plan.directory)}/{plan.checkpoint.path}"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, plan.gpus))
        return env

    def _tell_always(self, place: Place) -> dict[str, str]:
        place.always = {variable: place.variables[variable] for variable in OURS}
        place.always |= {
            "COORD_PROGRESS_FILE": f"{place.work}/{PROGRESS_FILE}",
            "COORD_ATTEMPT_TOKEN_FILE": f"{place.kept if self.level is Isolation.NONE else place.work}/{TOKEN}",
            MARK: f"{self._mark}/{place.number}",
        }
        return place.always


def users_from(state: Path) -> int:
    """The first user id of the agent on this state directory."""
    block = int.from_bytes(hashlib.sha256(os.fsencode(state)).digest()[:8], "big") % BLOCKS
    return USERS_FROM + block * (USERS + 1)  # one is left for `probing`


def _told(text: str) -> str:
    """As a starter can be told: what is in another encoding is replaced."""
    return os.fsencode(text).decode("utf-8", "replace")


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
