"""Where the files of an attempt lie, and how the agent gets at them: its program owns the directories in between.

At `uid` and `sandbox` nothing is read for an attempt but what lies beneath its own place: an absolute working directory
is the machine's, and the agent may read there what the program may not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from coordinator.agent import beneath
from coordinator.agent.places import VARIABLES, Place


class Ground(NamedTuple):
    """A directory: `path` beneath `root`, which is the agent's own or, without walls, whatever the job named."""

    root: str
    path: str

    def open(self) -> int:
        """A descriptor, without following links beneath the root. OSError, beneath.Unsafe."""
        root = beneath.open_root(self.root)
        try:
            return beneath.open_directory(root, self.path)
        finally:
            os.close(root)

    def open_file(self, path: str, user: int) -> int:
        """A descriptor of a file in it, to read. OSError, beneath.Unsafe. `user`: who has to be able to; 0: we are."""
        directory = self.open()
        try:
            return beneath.open_file(directory, path, user)
        finally:
            os.close(directory)


def part(place: Place, variable: str) -> Ground:
    """The directory that the program knows by this variable, such as COORD_OUTPUT_DIR."""
    above, _, number = place.work.rpartition("/")
    return Ground(above, f"{number}/{VARIABLES[variable]}")


def working(place: Place, directory: str, walled: bool) -> Ground | None:
    """The working directory, as a plan names it; None where it is none of the attempt's own and that is not enough."""
    if not walled and directory:
        return Ground(place.directory(directory), "")
    if Path(directory).is_absolute():
        return None
    home = part(place, "HOME")
    return home if not directory else Ground(home.root, f"{home.path}/{directory}")


def checkpoints(place: Place, directory: str, path: str, walled: bool) -> Ground | None:
    """The directory whose state is saved: COORD_CHECKPOINT_DIR, or one beneath the working directory."""
    if not path:
        return part(place, "COORD_CHECKPOINT_DIR")
    ground = working(place, directory, walled)
    if ground is None:
        return None
    return Ground(ground.root, f"{ground.path}/{path}" if ground.path else path)
