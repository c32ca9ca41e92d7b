"""The agent's state directory: who it is, that it is alone, and that nobody else can read it.

    identity.json  0600  provider id, machine, coordinator, credential, pinned key
    machine_id     0600  only where the system has none
    lock           0600  held by the keeper as long as it lives
    control        0600  socket for `coord agent` commands on this machine

The resume key is never here: it proves that a process is the one that was connected, and lives in memory alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.agent.exits import AgentStop, Exit

IDENTITY_FORMAT = 1
FILE_BYTES_MAX = 64 * 1024


class Identity(Struct, frozen=True, kw_only=True):
    """Fixed at enrolment. `credential` is secret."""

    format: int = IDENTITY_FORMAT
    provider_id: str
    machine_id: str
    pool: str
    coordinator: str
    credential: str
    pin: str = ""
    """SHA-256 of the coordinator's public key, base64url; empty: certificates are checked by authority."""


class StateDir:
    """The directory, open: made if missing (0700), refused if others may read it. Raises AgentStop(CONFIG)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise AgentStop(Exit.CONFIG, f"state directory {path}: {error.strerror}") from None
        try:
            self._check_private(os.fstat(self._fd), str(path), "chmod 700")
        except AgentStop:
            os.close(self._fd)
            raise
        self._lock_fd: int | None = None

    def close(self) -> None:
        """Let go of the directory, and of the lock if it is held."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        os.close(self._fd)

    @staticmethod
    def _check_private(found: os.stat_result, name: str, remedy: str) -> None:
        if found.st_uid != os.geteuid():
            raise AgentStop(
                Exit.CONFIG, f"{name} belongs to user {found.st_uid}, this agent runs as {os.geteuid()}", "chown it"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise AgentStop(
                Exit.CONFIG, f"{name} may be read by others (mode {mode:03o}), it holds a secret", f"{remedy} {name}"
            )

    def lock(self) -> None:
        """Be the one agent of this directory until `close`. Raises AgentStop(CLASH)."""
        fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise AgentStop(
                Exit.CLASH,
                f"another agent (process {holder}) runs on {self.path}",
                "stop it, or give this one a --state directory of its own",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None when there is none. A link, or a file that others may read, is refused."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AgentStop(Exit.CONFIG, f"{self.path / name}: {error.strerror}") from None
        with os.fdopen(fd, "rb") as file:
            self._check_private(os.fstat(fd), str(self.path / name), "chmod 600")
            return file.read(FILE_BYTES_MAX)

    def write(self, name: str, content: bytes) -> None:
        """Replace the file as a whole, durably; a crash leaves the old one or the new one."""
        fresh = f".{name}.new"
        try:
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd
            )
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o600)
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(fresh, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)
        except OSError as error:
            raise AgentStop(Exit.DISK, f"{self.path / name} cannot be written: {error.strerror}") from None

    def load_identity(self) -> Identity | None:
        """Who this agent is; None before enrolment."""
        content = self.read("identity.json")
        if content is None:
            return None
        try:
            identity = msgspec.json.decode(content, type=Identity)
        except msgspec.DecodeError as error:
            raise AgentStop(
                Exit.CONFIG,
                f"{self.path / 'identity.json'} is damaged: {error}",
                "have an admin forget this provider, remove the file, and enrol again",
            ) from None
        if identity.format != IDENTITY_FORMAT:
            raise AgentStop(
                Exit.CONFIG,
                f"{self.path / 'identity.json'} has format {identity.format}, this agent knows {IDENTITY_FORMAT}",
                "use the newer agent",
            )
        return identity

    def save_identity(self, identity: Identity) -> None:
        """Keep who this agent is, durably, before it is used."""
        self.write("identity.json", msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")
