"""What opens an attempt's endpoint: where it lies, who may read it, and which of two it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.agent.secret import FILE, Secret, new_secret, read_secret, write_secret
from tests.unit.agent.daemon_side import a_keeper, a_shell


def test_a_secret_is_written_over_the_one_before(tmp_path: Path) -> None:
    """Nothing of a longer one is left, nobody else may read it, and the next daemon knows it with its nodes."""
    write_secret(str(tmp_path), "x" * 100)
    text = new_secret("12")
    write_secret(str(tmp_path), text)
    assert Secret(text, 12) == read_secret(str(tmp_path))
    assert 0o600 == stat.S_IMODE((tmp_path / FILE).stat().st_mode)
    assert text != new_secret("12") and new_secret("a lot").endswith(".1") and new_secret("1000000").endswith(".1")


def test_a_secret_follows_no_link(tmp_path: Path) -> None:
    """Wherever one leads; where there is no secret there is none to read."""
    kept, elsewhere = tmp_path / "kept", tmp_path / "elsewhere"
    kept.mkdir()
    assert read_secret(str(kept)) is None
    (kept / FILE).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        write_secret(str(kept), new_secret("1"))
    assert not elsewhere.exists()


def test_a_disk_without_room_leaves_no_half_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails; a program with the half of one would be refused later."""
    monkeypatch.setattr(os, "write", lambda fd, data: 7)
    with pytest.raises(OSError, match="No space left"):
        write_secret(str(tmp_path), new_secret("1"))


def test_what_the_first_daemon_told_stands(tmp_path: Path) -> None:
    """The secret that is in its plan is the one in the file, though the next daemon ordered it to run again."""
    with a_keeper(tmp_path / "state") as side:
        token = side.hold(for_s=-1.0)
        side.phase("leased")
        for number in (1, 2):
            plan = a_shell('echo "$SAID $(cat "$COORD_ATTEMPT_TOKEN_FILE")"', env=(("SAID", f"secret{number}.1"),))
            run = channel.Run(attempt="1.0.0.1", rank=0, token=token, secret=f"secret{number}.1", plan=plan)
            side.say(run)
        side.renew(token, 600)
        assert 0 == side.exit_of().code
        assert "secret1.1 secret1.1\n" == side.file("stdout").read_text()
