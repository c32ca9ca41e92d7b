"""From a plan to a process: directories, environment, streams, and a start at the isolation that this agent gives."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

import msgspec

from coordinator.agent.attempt import STREAMS, Attempt
from coordinator.agent.cgroup import CgroupHome, CgroupTree
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig
from coordinator.agent.pump import Pump
from coordinator.agent.spawn import NOT_STARTED, PATH, CannotStart, open_stdin, start_beside
from coordinator.agent.tree import MARK, Tree, Walk
from coordinator.core.jobspec import Isolation
from coordinator.core.launch_plan import LaunchPlan
from coordinator.core.rows import Promises

PLAN_BYTES_MAX = 4 << 20
PLACES = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "COORD_OUTPUT_DIR": "outputs",
    "COORD_CHECKPOINT_DIR": "checkpoints",
    "COORD_TRACE_DIR": "trace",
}
"""Variables of the program, and the directories of the attempt that they name."""
_PLAN = msgspec.json.Decoder(LaunchPlan)


class Launcher:
    """Starts attempts. `promises` is what it found that this machine lets it do."""

    def __init__(self, config: AgentConfig, home: CgroupHome | None) -> None:
        state = Path(config.state_dir).resolve()
        self.attempts = state / "attempts"
        self.work = Path(config.work_dir).resolve() if config.work_dir else state / "work"
        self.log_bytes_max = config.log_bytes_max
        self._home = home
        self._mark = state.as_posix()
        self._user = user_name()
        self._path = os.environ.get("PATH") or PATH
        self._lang = os.environ.get("LANG") or "C.UTF-8"
        for place in (self.attempts, self.work):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.promises = Promises(
            work=True, isolation=Isolation.NONE, kills_all=home is not None, freezes_all=home is not None
        )

    def directory(self, attempt: str) -> Path:
        """What the agent keeps of an attempt; no program of it can reach it at `uid` and `sandbox`."""
        return self.attempts / attempt

    def launch(self, attempt: Attempt) -> None:
        """Start it. Raises CannotStart, with nothing left running."""
        plan = self._plan(attempt)
        work = self.work / attempt.name
        tree = self._tree(attempt.name)
        pumps: list[Pump] = []
        ends: list[int] = []
        try:
            self._make_places(work)
            directory = str(work / "home" / plan.directory)
            ends.append(open_stdin(plan.stdin, directory))
            for stream in STREAMS:
                pump = Pump(attempt.directory / stream, plan.limits.log_bytes or self.log_bytes_max, plan.log_full)
                pumps.append(pump)
                ends.append(pump.connect())
            env = self._environment(attempt, plan, work)
            with tree.entered() if isinstance(tree, CgroupTree) else contextlib.nullcontext():
                tree.main = start_beside(plan.argv, env, directory, ends[0], ends[1:])
        except (CannotStart, OSError) as error:
            for pump in pumps:
                pump.close()
            tree.close()
            if isinstance(error, OSError):
                raise CannotStart(NOT_STARTED, f"{error.filename or 'no room'}: {error.strerror}") from None
            raise
        finally:
            for end in ends:
                os.close(end)
        attempt.begin(plan, tree, tuple(pumps), boot_s())

    def _plan(self, attempt: Attempt) -> LaunchPlan:
        path = attempt.directory / "plan.json"
        try:
            with path.open("rb") as file:
                plan = _PLAN.decode(file.read(PLAN_BYTES_MAX))
        except (OSError, msgspec.DecodeError) as error:
            raise CannotStart(NOT_STARTED, f"the plan cannot be read: {error}") from None
        if not plan.argv:
            raise CannotStart(NOT_STARTED, "the command is empty")
        return plan

    def _tree(self, name: str) -> Tree:
        if self._home is not None:
            try:
                return self._home.group(name)
            except OSError as error:
                raise CannotStart(NOT_STARTED, f"no cgroup could be made: {error.strerror}") from None
        return Walk(self._mark + "/" + name)

    @staticmethod
    def _make_places(work: Path) -> None:
        work.mkdir(mode=0o700, exist_ok=True)
        for place in PLACES.values():
            (work / place).mkdir(mode=0o700, exist_ok=True)

    def _environment(self, attempt: Attempt, plan: LaunchPlan, work: Path) -> dict[str, str]:
        """From scratch: the agent's own ends here, but for PATH and LANG."""
        env = {"PATH": self._path, "LANG": self._lang, "USER": self._user, "LOGNAME": self._user}
        env |= {name: str(work / place) for name, place in PLACES.items()}
        env |= dict(plan.env)
        for name in ("COORD_OUTPUT_DIR", "COORD_CHECKPOINT_DIR", "COORD_TRACE_DIR"):
            env[name] = str(work / PLACES[name])
        env["COORD_ATTEMPT_TOKEN_FILE"] = str(attempt.directory / "token")
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, plan.gpus))
        env[MARK] = self._mark + "/" + attempt.name
        return env


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
