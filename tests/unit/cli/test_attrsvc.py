"""`coord attrsvc` before it serves: where it may listen, what it reads its policy from."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from analytics.attribution.following.settings import AttributionSettings
from cli import exits
from cli.attrsvc import bound_to
from cli.config import Config
from cli.main import main
from coordinator.core.errors import Code, CoordError


@pytest.mark.parametrize("listen", (
    "0.0.0.0:0", "[::]:0", "attrsvc.example:80", "50050", "unix://relative", "127.0.0.1", "127.0.0.1:99999", "",
))  # fmt: skip
def test_only_this_machine_is_listened_to(listen: str) -> None:
    """Nothing here asks for a token."""
    with pytest.raises(CoordError) as caught:
        bound_to(listen)
    assert Code.BAD_CONFIG == caught.value.code and "unix:///" in caught.value.hint


@pytest.mark.parametrize("listen", ("127.0.0.1:0", "localhost:0"))
def test_port_0_is_any_free_one(listen: str) -> None:
    """And it is told which."""
    bound, address = bound_to(listen)
    with bound:
        assert address == f"http://{listen.removesuffix(':0')}:{bound.getsockname()[1]}"


def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """From its first moment: it is made so. Whatever the caller's own mask is, it is kept."""
    path = tmp_path / "s"
    before = os.umask(0o000)
    try:
        bound, _ = bound_to(f"unix://{path}")
        with bound:
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert 0 == os.umask(0)
    finally:
        os.umask(before)


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    """A file, a link, a socket that somebody listens at; one that nobody does is taken over."""
    file, link, path = tmp_path / "file", tmp_path / "link", tmp_path / "s"
    file.write_text("kept")
    link.symlink_to(file)
    for taken in (file, link):
        with pytest.raises(CoordError) as caught:
            bound_to(f"unix://{taken}")
        assert Code.CONFLICT == caught.value.code
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(CoordError) as caught:
            bound_to(f"unix://{path}")
        assert "somebody listens" in caught.value.message
    bound, _ = bound_to(f"unix://{path}")
    bound.close()
    assert "kept" == link.read_text()


@pytest.mark.parametrize(("environ", "policy"), [
    ({}, "all_explicit"),
    ({"COORD_ATTRIBUTION_PROGRESSIVE": "off"}, "off"),
    ({"NVRX_ATTRSVC_PROGRESSIVE_ANALYSIS": "off"}, "off"),
    ({"NVRX_ATTRSVC_PROGRESSIVE_ANALYSIS": "off", "COORD_ATTRIBUTION_PROGRESSIVE": "all_explicit"}, "all_explicit"),
    ({"COORD_ATTRIBUTION_PROGRESSIVE": "all_explicit", "NVRX_ATTRSVC_PROGRESSIVE_ANALYSIS": "off"}, "all_explicit"),
])  # fmt: skip
def test_the_policy_is_read_under_both_names(environ: dict[str, str], policy: str) -> None:
    """Ours wins, in whichever order they stand."""
    assert policy == Config(environ=environ).section("attribution", AttributionSettings).progressive


def test_another_policy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is listened to."""
    monkeypatch.setenv("COORD_ATTRIBUTION_PROGRESSIVE", "sometimes")
    path = tmp_path / "s"
    assert 78 == main(("attrsvc", "--root", str(tmp_path), "--listen", f"unix://{path}"))
    assert "all_explicit or off" in capsys.readouterr().err and not path.exists()


def test_a_root_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is listened to."""
    path = tmp_path / "s"
    assert 78 == main(("attrsvc", "--root", str(tmp_path / "none"), "--listen", f"unix://{path}"))
    assert "none" in capsys.readouterr().err and not path.exists()
    assert exits.USAGE == main(("attrsvc",))
