"""From a plan to a process: directories, environment, streams, and a start at the isolation that this agent gives."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

import msgspec

from coordinator.agent.attempt import Attempt
from coordinator.agent.cgroup import CgroupHome, CgroupTree
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig
from coordinator.agent.places import CHECKPOINTS, HOME, OUTPUTS, TMP, TRACE
from coordinator.agent.pump import Pump
from coordinator.agent.spawn import NOT_STARTED, PATH, CannotStart, open_stdin, start_beside
from coordinator.agent.tree import MARK, Tree, Walk
from coordinator.core.jobspec import Isolation
from coordinator.core.launch_plan import LaunchPlan
from coordinator.core.rows import Promises

PLAN_BYTES_MAX = 4 << 20
VARIABLES = {
    "HOME": HOME,
    "TMPDIR": TMP,
    "COORD_OUTPUT_DIR": OUTPUTS,
    "COORD_CHECKPOINT_DIR": CHECKPOINTS,
    "COORD_TRACE_DIR": TRACE,
}
"""Of the program, and which part of its place they name."""
OURS = ("COORD_OUTPUT_DIR", "COORD_CHECKPOINT_DIR", "COORD_TRACE_DIR")
"""A job cannot say otherwise."""
_PLAN = msgspec.json.Decoder(LaunchPlan)


class Launcher:
    """Starts attempts. `promises` is what it found that this machine lets it do."""

    def __init__(self, config: AgentConfig, home: CgroupHome | None) -> None:
        self.log_bytes_max = config.log_bytes_max
        self._home = home
        self._mark = Path(config.state_dir).resolve().as_posix()
        self._user = user_name()
        self._path = os.environ.get("PATH") or PATH
        self._lang = os.environ.get("LANG") or "C.UTF-8"
        self.promises = Promises(
            work=True, isolation=Isolation.NONE, kills_all=home is not None, freezes_all=home is not None
        )

    def launch(self, attempt: Attempt) -> None:
        """Start it. Raises CannotStart, with nothing left running."""
        plan = self._plan(attempt)
        place = attempt.place
        tree = self._tree(attempt.name)
        pumps: list[Pump] = []
        ends: list[int] = []
        try:
            directory = str(place.parts[HOME] / plan.directory)
            ends.append(open_stdin(plan.stdin, directory))
            for path in place.streams:
                pump = Pump(path, plan.limits.log_bytes or self.log_bytes_max, plan.log_full)
                pumps.append(pump)
                ends.append(pump.connect())
            env = self._environment(attempt, plan)
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

    @staticmethod
    def _plan(attempt: Attempt) -> LaunchPlan:
        plan = attempt.plan
        if plan is None:
            try:
                with (attempt.place.kept / "plan.json").open("rb") as file:
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

    def _environment(self, attempt: Attempt, plan: LaunchPlan) -> dict[str, str]:
        """From scratch: the agent's own ends here, but for PATH and LANG."""
        env = {"PATH": self._path, "LANG": self._lang, "USER": self._user, "LOGNAME": self._user}
        place = attempt.place
        env |= {name: str(place.parts[part]) for name, part in VARIABLES.items()}
        env |= dict(plan.env)
        env |= {name: str(place.parts[VARIABLES[name]]) for name in OURS}
        env["COORD_ATTEMPT_TOKEN_FILE"] = str(place.kept / "token")
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, plan.gpus))
        env[MARK] = self._mark + "/" + attempt.name
        return env


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
