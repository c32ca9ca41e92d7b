"""What a running attempt asks of the agent beside it: for programs that coord started, and for `coord` inside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from coordinator.client.requests import decoded
from coordinator.client.transport import Transport
from coordinator.core.errors import Code, CoordError

URL, TOKEN_FILE = "COORD_ATTEMPT_URL", "COORD_ATTEMPT_TOKEN_FILE"  # the name of a variable
WAIT_S = 3_600.0
"""For a checkpoint that is waited for: a large one takes its time."""
_TOKEN_BYTES_MAX = 4096


class CheckpointTaken(Struct, frozen=True, kw_only=True):
    """One that is stored. `sent`: bytes that had to travel for it."""

    number: int
    size: int = 0
    sent: int = 0


class Attempt:
    """The attempt that this process belongs to. CoordError(CONFLICT) when it belongs to none."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        found = os.environ if environ is None else environ
        url, file = found.get(URL), found.get(TOKEN_FILE)
        if not url or not file:
            raise CoordError(
                Code.CONFLICT, "this is no job's: no agent has started it", "run it by coord submit -- COMMAND"
            )
        try:
            with Path(file).open() as opened:
                token = opened.read(_TOKEN_BYTES_MAX).strip()
        except OSError as wrong:
            raise CoordError(
                Code.CONFLICT, f"{TOKEN_FILE} cannot be read: {wrong.strerror}", "is this still the attempt's own user?"
            ) from wrong
        self._transport = Transport(url, token)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._transport.close()

    def progress(self, fraction: float | None = None, values: Mapping[str, str] | None = None, text: str = "") -> None:
        """Say how far it is: 0..1, values by name, words. The newest one counts."""
        self._post("progress", {"fraction": fraction, "values": dict(values or {}), "text": text}, 30.0)

    def checkpoint(self, label: str = "", *, wait: bool = False) -> CheckpointTaken | None:
        """Have the checkpoint directory saved as it is now; its files have to be complete.

        The agent has its own copy of them when this returns; with `wait` that is stored, and what it became is told.
        """
        body = self._post("checkpoints", {"label": label, "wait": wait}, WAIT_S)
        return decoded(body, CheckpointTaken) if wait else None

    def _post(self, what: str, request: object, timeout_s: float) -> bytes:
        body = msgspec.json.encode(request)
        return self._transport.send(
            "POST", f"/v1/attempt/{what}", lambda: iter((body,)), len(body), "application/json", timeout_s,
            fine=(200, 201, 202, 204),
        )  # fmt: skip
