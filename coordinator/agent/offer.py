"""What this machine offers to attempts, and whether a share of it can be had at all."""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.agent import machine
from coordinator.agent.config import AgentConfig
from coordinator.core.amounts import UNIT, Share
from coordinator.core.rows import Resources


def offered(config: AgentConfig, gpus: tuple[str, ...]) -> Resources:
    """As declared, else as detected; `gpus` are the detected ones."""
    return Resources(
        cpus=config.cpus if config.cpus is not None else machine.cpus(),
        memory_gb=config.memory_gb if config.memory_gb is not None else machine.memory_gb(),
        gpus=config.gpus if config.gpus is not None else gpus,
        named=config.named,
    )


def disk_bytes(*directories: Path) -> int:
    """The size of the smallest of the file systems that these are on; 0: it cannot be told. Blocks for a moment."""
    try:
        found = [os.statvfs(next(one for one in (path, *path.parents) if one.exists())) for path in directories]
    except OSError:
        return 0
    return min(one.f_blocks * one.f_frsize for one in found)


def exceeds(share: Share, offer: Resources) -> str:
    """What of a share this machine does not have, in words; empty: it has all of it."""
    ask = share.ask
    counted = [("cpus", ask.cpus, offer.cpus), *((name, n, offer.named.get(name, 0.0)) for name, n in ask.named)]
    for name, asked, has in counted:
        if asked > round(has * UNIT):
            return f"it is to have {asked / UNIT:g} of {name}, {has:g} are offered here"
    if ask.memory > round(offer.memory_gb * 1e9):
        return f"it is to have {ask.memory / 1e9:g} GB of memory, {offer.memory_gb:g} are offered here"
    for index, part in share.gpus:
        if not 0 <= index < len(offer.gpus) or not 0 <= part <= UNIT:
            return f"it is to have GPU {index}, {len(offer.gpus)} are offered here"
    return ""
