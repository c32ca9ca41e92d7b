"""`coord` as a user runs it: one process a command, what it said, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from coordinator.client import Client
from tests.acceptance.processes import Head, clean_environment


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Coord:
    """Runs commands against one data directory (or whatever `env` names)."""

    def __init__(self, data: Path, env: Mapping[str, str] = {}) -> None:
        self.env = clean_environment({"COORD_DATA": str(data), "COLUMNS": "80", "HOME": str(data.parent), **env})

    def __call__(self, *argv: str, stdin: bytes = b"", env: Mapping[str, str] = {}, within_s: float = 60.0) -> Done:
        done = subprocess.run(
            (sys.executable, "-m", "cli", *argv),
            env=self.env | dict(env),
            input=stdin,
            capture_output=True,
            timeout=within_s,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Server(Head):
    """A Head whose clients are closed with it."""

    def __init__(self, directory: Path, *arguments: str, env: Mapping[str, str] = {}) -> None:
        super().__init__(directory, *arguments, env=env)
        self._clients: list[Client] = []

    def spawn(self) -> None:
        if self._file is not None:
            self._file.close()
        super().spawn()

    def client(self) -> Client:
        self._clients.append(self.connect())
        return self._clients[-1]

    def connect(self) -> Client:
        """A client of this server; the caller closes it."""
        pin = self.token("join").partition(".")[2] or None
        return Client(self.url, self.token("admin"), pin=pin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        super().__exit__(kind, error, trace)

    def __enter__(self) -> Server:
        return self
