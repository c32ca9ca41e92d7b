"""What machine this is, and what it offers: read once at the start of a daemon."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import psutil

from coordinator.agent.state_dir import StateDir

_APP_KEY = b"coord provider machine id v1"
_SOURCES = ("etc/machine-id", "var/lib/dbus/machine-id", "sys/class/dmi/id/product_uuid")


def machine_id(state: StateDir, root: Path = Path("/")) -> str:
    """32 hex digits that stay with this machine and tell nothing about it.

    HMAC-SHA-256, under a key of this program's own, of the first of /etc/machine-id, D-Bus's copy of it, or the
    board's UUID (root only), as machine-id(5) asks. Where none exists (some containers) a random one is kept in the
    state directory: then only the coordinator can tell a copied directory from the original, by two of them at once.
    """
    for source in _SOURCES:
        try:
            text = (root / source).read_text().strip().lower()
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) >= 32 and text != "uninitialized":
            return hmac.new(_APP_KEY, text.encode(), hashlib.sha256).hexdigest()[:32]
    kept = state.read("machine_id")
    if kept is None:
        kept = secrets.token_hex(16).encode()
        state.write("machine_id", kept)
    return hmac.new(_APP_KEY, kept.strip(), hashlib.sha256).hexdigest()[:32]


def boot_id(root: Path = Path("/")) -> str:
    """Changes with every boot of the machine; empty where the system gives none."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()[:128]
    except OSError:
        return ""


def cgroup_dirs(root: Path = Path("/")) -> list[Path]:
    """The cgroup v2 directories that bound this process, innermost first; empty without cgroup v2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    inner = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), None)
    top = root / "sys/fs/cgroup"
    if inner is None or ".." in inner:
        return []
    here = top / inner
    return [here, *(parent for parent in here.parents if parent.is_relative_to(top))]


def cpus(root: Path = Path("/")) -> float:
    """Cores this process may use: its affinity, cut by the smallest quota of its cgroups (cpu.max)."""
    found = float(len(os.sched_getaffinity(0)))
    for directory in cgroup_dirs(root):
        try:
            quota, period = (directory / "cpu.max").read_text().split()
            if quota != "max" and int(period) > 0:
                found = min(found, int(quota) / int(period))
        except (OSError, ValueError):
            continue
    return round(found, 3)


def memory_limit(root: Path = Path("/")) -> tuple[int, Path] | None:
    """The smallest memory.max of this process's cgroups, in bytes, and whose it is; None when nothing limits."""
    best: tuple[int, Path] | None = None
    for directory in cgroup_dirs(root):
        try:
            limit = int((directory / "memory.max").read_text())
        except (OSError, ValueError):
            continue
        if best is None or limit < best[0]:
            best = (limit, directory)
    return best


def memory_gb(root: Path = Path("/")) -> float:
    """Memory this process may use, in GB (10^9 bytes): the machine's, cut by its cgroups' memory.max."""
    total = int(psutil.virtual_memory().total)
    limit = memory_limit(root)
    return round(min(total, limit[0] if limit is not None else total) / 1e9, 3)
