"""Copies into place: whole, the program's own, and never a way for it to what they were made of."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent import beneath, laying
from coordinator.agent.beneath import Unsafe
from coordinator.agent.laying import Unwanted, copy_into, lay

USER = 54_321


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "home").mkdir()
    fd = beneath.open_root(tmp_path / "home")
    yield fd
    os.close(fd)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A file as the cache keeps it."""
    (tmp_path / "kept").write_bytes(b"content" * 1_000)
    (tmp_path / "kept").chmod(0o400)
    fd = os.open(tmp_path / "kept", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_copy_is_apart_from_what_it_was_made_of(root: int, source: int, tmp_path: Path) -> None:
    """Whatever its owner does with it, in place too, the original stays as it is; and it can be changed."""
    lay(source, root, "data/in.bin", mark="1")
    copy = tmp_path / "home" / "data" / "in.bin"
    assert copy.read_bytes() == b"content" * 1_000
    assert copy.stat().st_nlink == 1
    with copy.open("r+b") as file:
        file.write(b"CHANGED")
    assert (tmp_path / "kept").read_bytes() == b"content" * 1_000
    assert [path.name for path in copy.parent.iterdir()] == ["in.bin"]


def test_modes_are_what_was_asked_for(root: int, source: int, tmp_path: Path) -> None:
    lay(source, root, "plain", mark="1")
    lay(source, root, "tool", mark="1", executable=True)
    modes = [(tmp_path / "home" / name).stat().st_mode & 0o7777 for name in ("plain", "tool")]
    assert modes == [0o644, 0o755]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_it_belongs_to_the_program_with_the_directories_that_were_made(root: int, source: int, tmp_path: Path) -> None:
    """What was there before keeps its owner."""
    (tmp_path / "home" / "old").mkdir()
    lay(source, root, "old/new/file", mark="1", user=USER)
    owners = {path: (tmp_path / "home" / path).stat().st_uid for path in ("old", "old/new", "old/new/file")}
    assert owners == {"old": 0, "old/new": USER, "old/new/file": USER}


def test_a_link_at_its_place_is_replaced_not_followed(root: int, source: int, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    (tmp_path / "home" / "file").symlink_to(tmp_path / "victim")
    lay(source, root, "file", mark="1")
    assert (tmp_path / "victim").read_text() == "victim"
    assert not (tmp_path / "home" / "file").is_symlink()


def test_it_goes_through_no_link_and_into_no_directory_of_its_name(root: int, source: int, tmp_path: Path) -> None:
    """Nothing half done is left then."""
    (tmp_path / "home" / "link").symlink_to(tmp_path)
    (tmp_path / "home" / "directory").mkdir()
    for path in ("link/file", "directory", "../file", "/etc/coord-test"):
        with pytest.raises(Unsafe):
            lay(source, root, path, mark="1")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["directory", "link"]


def test_what_an_earlier_daemon_left_half_laid_is_replaced(root: int, source: int, tmp_path: Path) -> None:
    (tmp_path / "home" / ".coord-staging-1").write_text("half")
    lay(source, root, "file", mark="1")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["file"]


def test_a_copy_that_nobody_wants_any_more_leaves_nothing(root: int, source: int, tmp_path: Path) -> None:
    with pytest.raises(Unwanted):
        lay(source, root, "file", mark="1", wanted=lambda: False)
    assert list((tmp_path / "home").iterdir()) == []


def test_a_copy_that_would_not_fit_is_not_begun(
    root: int, source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk is not filled to the brim first."""
    monkeypatch.setattr(laying, "free_bytes", lambda where: 6_999)
    with pytest.raises(OSError) as failed:
        lay(source, root, "file", mark="1")
    assert failed.value.errno == errno.ENOSPC
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("call", ["copy_file_range", "neither"])
def test_bytes_are_the_same_however_they_are_copied(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, in pieces; and where it cannot, by us."""
    data = os.urandom(3_000_000)
    (tmp_path / "from").write_bytes(data)
    monkeypatch.setattr(laying, "PIECE_BYTES", 1 << 20)
    if call == "neither":

        def cannot(*_: object) -> int:
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(os, "copy_file_range", cannot)
    with (tmp_path / "from").open("rb") as source, (tmp_path / "to").open("wb") as target:
        assert copy_into(source.fileno(), target.fileno()) == len(data)
    assert (tmp_path / "to").read_bytes() == data


@pytest.fixture(params=["xfs", "btrfs"])
def sharing_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system on which files can share blocks."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    mount.mkdir()
    for command in ([f"mkfs.{request.param}", "-q", str(image)], ["mount", "-o", "loop", str(image), str(mount)]):
        if shutil.which(command[0]) is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"no {request.param} can be made and mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_where_files_can_share_blocks_a_copy_takes_no_room(sharing_disk: Path) -> None:
    """And is a copy all the same: who changes it changes nothing else."""
    original, copy = sharing_disk / "original", sharing_disk / "copy"
    original.write_bytes(os.urandom(20 << 20))
    os.sync()
    before = os.statvfs(sharing_disk).f_bfree
    with original.open("rb") as source, copy.open("wb") as target:
        assert copy_into(source.fileno(), target.fileno()) == 20 << 20
    os.sync()
    assert (before - os.statvfs(sharing_disk).f_bfree) * os.statvfs(sharing_disk).f_frsize < 1 << 20
    kept = original.read_bytes()
    with copy.open("r+b") as file:
        file.write(b"changed")
    assert original.read_bytes() == kept
