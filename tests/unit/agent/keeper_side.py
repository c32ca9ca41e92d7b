"""The keeper's side of the channel, for a daemon in this process: it keeps what it is asked and answers as a keeper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from coordinator.agent import channel
from coordinator.agent.places import Places
from coordinator.agent.secret import write_secret
from coordinator.core.amounts import Ask, Share
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken

TOKEN = LeaseToken(1, 7)
A_SHARE = Share(ask=Ask())


def a_now(root: Path, phase: str = "running", attempt: str = "1.0.0.1", **changes: Any) -> channel.Now:
    """How an attempt stands whose directory is below `root`."""
    directory = root / attempt
    directory.mkdir(exist_ok=True)
    now = channel.Now(
        attempt=attempt, rank=0, token=TOKEN, phase=phase, directory=str(directory), freeze_at_s=1e9, exit=None
    )
    if phase == "exited" and "exit" not in changes:
        changes["exit"] = ExitInfo(cause=EndCause.EXITED, code=0)
    return msgspec.structs.replace(now, **changes)


class KeeperSide:
    """Answers a `Hold` with a lease and a `Run` with processes that are not there. What it was asked is in `asked`."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.tell: Callable[[channel.ToDaemon], None] = lambda message: None
        self.asked: list[channel.ToKeeper] = []
        self.nows: dict[str, channel.Now] = {}
        self.refuses = ""
        """Why no lease is taken."""
        self.places: Places | None = None
        """Makes real directories for attempts, where one is needed."""

    def of(self, kind: type) -> list[Any]:
        """What was asked of this kind."""
        return [message for message in self.asked if isinstance(message, kind)]

    def take(self, message: channel.ToKeeper) -> None:
        self.asked.append(message)
        match message:
            case channel.Hold() if self.refuses:
                self.tell(channel.No(attempt=message.attempt, rank=message.rank, token=message.token, why=self.refuses))
            case channel.Hold():
                now = a_now(self.root, "leased", message.attempt, rank=message.rank, token=message.token)
                if self.places is not None:
                    now = msgspec.structs.replace(now, directory=self.places.take().kept)
                self.now(now)
            case channel.Run():
                if message.secret and message.attempt in self.nows:
                    write_secret(self.nows[message.attempt].directory, message.secret)
                self.change(message.attempt, phase="running")
            case channel.End():
                self.change(
                    message.attempt,
                    phase="exited",
                    exit=ExitInfo(cause=message.cause, code=message.code, text=message.why),
                )
            case channel.EndAll():
                for now in list(self.nows.values()):
                    if now.phase != "exited":
                        self.change(now.attempt, phase="exited", exit=ExitInfo(cause=EndCause.AGENT, text=message.why))
            case channel.Forget():
                del self.nows[message.attempt]

    def now(self, now: channel.Now) -> None:
        """An attempt stands so from now on."""
        self.nows[now.attempt] = now
        self.tell(now)

    def change(self, attempt: str, **changes: Any) -> None:
        if attempt in self.nows:
            self.now(msgspec.structs.replace(self.nows[attempt], **changes))

    def write(self, attempt: str, name: str, data: bytes) -> None:
        """Its program wrote this to stdout or stderr."""
        now = self.nows[attempt]
        path = Path(now.directory, name)
        with path.open("ab") as file:
            file.write(data)
        field = "out_bytes" if name == "stdout" else "err_bytes"
        self.change(attempt, **{field: path.stat().st_size})
