"""What `coord submit` does before it submits: files of ours are hashed, and stored where they are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli import humane, terminal
from cli.jobtext import Body, parts
from cli.moving import Moving, round_size

if TYPE_CHECKING:
    from coordinator.client import Client
    from coordinator.client.inputs import Staged


class Ready:
    """A job whose inputs are known by their digests. Nothing of it is sent yet."""

    def __init__(self, client: Client, body: Body, beside: Path, tenant: str | None) -> None:
        """Hashes its local files; paths are relative to `beside`. CoordError(BAD_JOB): what cannot be taken."""
        named = body.get("tenant")
        self._client = client
        self._asked = tenant
        self._tenant = tenant or (named if isinstance(named, str) else None)
        self._staged: Staged | None = None
        self.body = body
        if any("inputs" in part for part in parts(body)):
            with Moving(sys.stderr) as moving:
                self._staged = client.artifacts.prepare(body, beside, tenant=self._tenant, begin=moving.begin)
            self.body = self._staged.job

    def send(self) -> None:
        """Store what is missing; a job that would be refused is, before its bytes travel."""
        staged = self._staged
        if staged is None or not staged.files:
            return
        self._client.jobs.preview(self.body, tenant=self._asked)
        with Moving(sys.stderr) as moving:
            self._client.artifacts.send(staged, tenant=self._tenant, begin=moving.begin)
        terminal.say(f"uploaded {humane.count(len(staged.files), 'file')}, {round_size(staged.size)}")

    def tell(self) -> None:
        """What `send` would do."""
        if self._staged is not None:
            files = self._staged.files
            terminal.say(
                f"{humane.count(len(files), 'file')}, {round_size(self._staged.size)}, would be uploaded"
                if files
                else "no file would have to be uploaded"
            )
