"""The result of an attempt: found, sent, and published together with its end, in one request by the current token.

Whatever is in the way of that and is the job's own (a pattern that matches nothing, a quota) becomes the end: cause
`output`. What is in the way and passes is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from coordinator import wire, wire_data
from coordinator.agent import heavy
from coordinator.agent.asking import Asking, Refused, Stale, Whose
from coordinator.agent.beneath import Unsafe
from coordinator.agent.collecting import Collected, NoOutput, collecting
from coordinator.agent.grounds import Ground
from coordinator.agent.keeping import Keeping
from coordinator.agent.log import logger
from coordinator.agent.sending import Changed, Parcel, Sending
from coordinator.core.errors import Code
from coordinator.core.rows import EndCause, ExitInfo

TRIES = 3
"""Outputs that change after their program has ended are collected anew so often."""
TEXT_CHARS_MAX = 1_000


async def publish(
    whose: Whose,
    end: ExitInfo,
    said: wire.Exit,
    grounds: Sequence[Ground],
    patterns: Sequence[str],
    user: int,
    sending: Sending,
    asking: Asking,
    keeping: Keeping,
) -> ExitInfo:
    """Have the result counted; how the attempt ended then: as it did, or with cause `output` and why. `said` is `end`
    for the wire. Raises Stale."""
    why = ""
    for _ in range(TRIES):
        try:
            files = await heavy.by_turns(collecting(grounds, patterns, user, wire_data.OUTPUTS_MAX))
            sent, kept = await _sent_and_kept(whose, files, sending, keeping)
            await asking.outputs(whose, [_told(file) for file in files], said, kept)
            logger.info("%s: %d outputs are published, %d bytes were sent", whose.attempt, len(files), sent)
            return end
        except Stale:
            raise
        except (Changed, OSError, Unsafe) as error:
            why = f"the outputs changed while they were sent: {error}"
        except NoOutput as error:
            return _failed(end, str(error))
        except Refused as error:
            why = f"the outputs are refused: {error.detail or error.code or error}"
            if error.code != Code.INCOMPLETE:
                break
    return _failed(end, why)


async def _sent_and_kept(
    whose: Whose, files: Sequence[Collected], sending: Sending, keeping: Keeping
) -> tuple[int, list[str]]:
    """How many bytes had to travel, and the digests of what the cache has. Raises what `Sending.send` raises."""
    try:
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(sending.send(whose, [Parcel(file.digest, file.size, file) for file in files]))
            kept = group.create_task(keeping.keep(files))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return sent.result(), kept.result()


def _told(file: Collected) -> wire_data.File:
    return wire_data.File(path=file.path, digest=file.digest, size=file.size, executable=file.executable)


def _failed(end: ExitInfo, why: str) -> ExitInfo:
    logger.warning("the attempt succeeded, its outputs did not: %s", why)
    return msgspec.structs.replace(end, cause=EndCause.OUTPUT, text=why[:TEXT_CHARS_MAX])
