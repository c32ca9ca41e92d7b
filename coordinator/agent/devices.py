"""Who may use the GPUs of this machine: the groups that own their device files."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

_PLACES = ("dri/*", "kfd", "nvidia*", "nvidia-caps/*", "accel/*")


def gpu_groups(devices: Path = Path("/dev")) -> tuple[int, ...]:
    """Groups that have rights to a GPU's device file and are nobody's all: never root's."""
    found: set[int] = set()
    for pattern in _PLACES:
        for path in devices.glob(pattern):
            with contextlib.suppress(OSError):
                node = path.stat()
                if stat.S_ISCHR(node.st_mode) and node.st_mode & stat.S_IRWXG:
                    found.add(node.st_gid)
    return tuple(sorted(found - {0}))
