"""The state directory: private, one agent's, and whole after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.state_dir import Identity, StateDir

IDENTITY = Identity(
    provider_id="p1", machine_id="m" * 32, pool="lab", coordinator="http://127.0.0.1:7070", credential="secret"
)


def test_identity_survives_and_is_private(tmp_path: Path) -> None:
    """What was saved is loaded by the next; directory 0700, file 0600, whatever the umask."""
    old = os.umask(0)
    try:
        state = StateDir(tmp_path / "a" / "state")
        assert state.load_identity() is None
        state.save_identity(IDENTITY)
    finally:
        os.umask(old)
    state.close()
    assert StateDir(tmp_path / "a" / "state").load_identity() == IDENTITY
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "state" / "identity.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    """The message names the mode and the remedy."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(AgentStop, match="may be read by others") as stop:
        StateDir(path)
    assert stop.value.exit_code is Exit.CONFIG
    assert "chmod 700" in stop.value.hint


def test_a_credential_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Also when only the file is open."""
    state = StateDir(tmp_path / "state")
    state.save_identity(IDENTITY)
    (tmp_path / "state" / "identity.json").chmod(0o644)
    with pytest.raises(AgentStop, match="may be read by others"):
        state.load_identity()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Neither the directory nor the file may be a link to somewhere else."""
    real = StateDir(tmp_path / "real")
    real.save_identity(IDENTITY)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(AgentStop):
        StateDir(tmp_path / "link")
    other = StateDir(tmp_path / "other")
    (tmp_path / "other" / "identity.json").symlink_to(tmp_path / "real" / "identity.json")
    with pytest.raises(AgentStop):
        other.load_identity()


@pytest.mark.parametrize("content", [b"", b"{", b'{"provider_id": 3}', b"\xff\xfe"])
def test_a_damaged_identity_is_refused_not_replaced(tmp_path: Path, content: bytes) -> None:
    """The credential is not in the message, the file is left as it is."""
    state = StateDir(tmp_path / "state")
    state.write("identity.json", content)
    with pytest.raises(AgentStop, match="damaged") as stop:
        state.load_identity()
    assert stop.value.exit_code is Exit.CONFIG
    assert state.read("identity.json") == content


def test_an_identity_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """An old agent does not guess."""
    state = StateDir(tmp_path / "state")
    state.save_identity(IDENTITY)
    file = tmp_path / "state" / "identity.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(AgentStop, match="format 2"):
        state.load_identity()


def test_the_lock_is_held_once_and_ends_with_its_holder(tmp_path: Path) -> None:
    """A second holder is refused and told who the first is; after a close it is free."""
    first, second = StateDir(tmp_path / "state"), StateDir(tmp_path / "state")
    first.lock()
    with pytest.raises(AgentStop, match=str(os.getpid())) as stop:
        second.lock()
    assert stop.value.exit_code is Exit.CLASH
    first.close()
    second.lock()
    second.close()
