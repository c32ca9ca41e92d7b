"""GPUs as nvidia-smi tells them: asked seldom, with a limit, never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil

from msgspec import Struct

from coordinator import wire
from coordinator.agent.log import logger

EVERY_S = 30.0
TIMEOUT_S = 5.0
KILL_S = 0.5
OUTPUT_BYTES_MAX = 64 * 1024
_MIB = 1024 * 1024
_QUERY = ("--query-gpu=name,memory.used", "--format=csv,noheader,nounits")


class Gpus(Struct, frozen=True, kw_only=True):
    """The GPUs in index order, and how much of their memory is in use together (None when unknown)."""

    names: tuple[str, ...] = ()
    memory_used_gb: float | None = None


def parse(output: str) -> Gpus:
    """What nvidia-smi printed; lines that say nothing of the kind are left out."""
    names: list[str] = []
    used = 0.0
    known = True
    for row in csv.reader(output.splitlines(), skipinitialspace=True):
        if len(row) != 2:
            continue
        names.append("".join(c for c in row[0].strip() if c.isprintable())[:128])
        try:
            used += float(row[1]) * _MIB / 1e9
        except ValueError:
            known = False
    del names[wire.GPUS_MAX :]
    return Gpus(names=tuple(names), memory_used_gb=round(used, 3) if names and known else None)


async def ask(timeout_s: float = TIMEOUT_S) -> Gpus:
    """Run nvidia-smi once. No GPUs when it is missing, fails, or takes longer (it is killed then, not waited for)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Gpus()
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            *_QUERY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=OUTPUT_BYTES_MAX,
        )
    except OSError as error:
        logger.warning("nvidia-smi cannot be run: %s", error.strerror)
        return Gpus()
    assert child.stdout is not None
    output = b""
    try:
        async with asyncio.timeout(timeout_s):
            while len(output) < OUTPUT_BYTES_MAX and (part := await child.stdout.read(OUTPUT_BYTES_MAX)):
                output += part
            status = await child.wait()
    except TimeoutError:
        logger.warning("nvidia-smi did not answer within %.0f s", timeout_s)
        return Gpus()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                child.kill()
                async with asyncio.timeout(KILL_S):  # one that hangs in the driver is left to its fate
                    await child.wait()
    return parse(output.decode("utf-8", "replace")) if status == 0 else Gpus()
