"""Opening beneath a directory that a program may write to: nothing outside is ever reached, whatever lies there."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.agent import beneath, syscalls
from coordinator.agent.beneath import Unsafe

TRAVERSALS = (
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../secret",
    "./file",
    "a/../../secret",
    "a/./file",
    "a//file",
    "a/",
    "a/..",
    "...//../secret",
    "file\0",
    "\0",
    "a/\0/../secret",
    "file\n",
    "\x1b[2J",
    "a" * 256,
    "/".join(["d"] * 600),
    "\udcff",
    "/proc/self/root/etc/passwd",
)
USER = 54_321


@pytest.fixture(params=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A directory, open, beside a secret; with the kernel's own way to open beneath it, and as without that."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "home" / "a").mkdir(parents=True)
    (tmp_path / "home" / "a" / "file").write_text("inside")
    if request.param == "walk":

        def missing(*_: object) -> int:
            raise OSError(errno.ENOSYS, "no such call")

        monkeypatch.setattr(syscalls, "openat2", missing)
    fd = beneath.open_root(tmp_path / "home")
    yield fd
    os.close(fd)


def content(fd: int) -> str:
    with os.fdopen(fd) as file:
        return file.read()


@pytest.mark.parametrize("path", TRAVERSALS)
def test_a_path_that_leads_anywhere_else_is_refused(root: int, path: str) -> None:
    """As text already, for files, for directories that would be made, and for what would be removed."""
    with pytest.raises(Unsafe):
        beneath.open_file(root, path)
    with pytest.raises(Unsafe):
        beneath.remove_file(root, path)
    if path:
        with pytest.raises(Unsafe):
            os.close(beneath.make_directories(root, path))


def test_a_plain_file_is_opened(root: int) -> None:
    assert content(beneath.open_file(root, "a/file")) == "inside"


@pytest.mark.parametrize("link", ["/etc", "../", ".", "a", "loop", "/proc/self/root", "/proc/self/fd/0"])
def test_no_link_is_followed(root: int, tmp_path: Path, link: str) -> None:
    """Neither at the end of a path nor on its way, wherever it leads; nor for what is made."""
    (tmp_path / "home" / "loop").symlink_to(link)
    for path in ("loop", "loop/file", "loop/a/file"):
        with pytest.raises(Unsafe):
            beneath.open_file(root, path)
    with pytest.raises(Unsafe):
        os.close(beneath.make_directories(root, "loop/new"))
    with pytest.raises(Unsafe):
        os.close(beneath.open_directory(root, "loop"))
    assert not (tmp_path / "new").exists()


def test_what_is_no_file_is_refused_at_once(root: int, tmp_path: Path) -> None:
    """A FIFO does not hang, a device is not opened for use, a socket is none; a directory is no file."""
    home = tmp_path / "home"
    os.mkfifo(home / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fsencode(os.path.relpath(home / "socket")))
        names = ["fifo", "socket", "a"]
        if os.geteuid() == 0:
            os.mknod(home / "null", 0o666 | 0o020000, os.makedev(1, 3))
            names.append("null")
        for name in names:
            with pytest.raises(Unsafe):
                beneath.open_file(root, name)


def test_what_is_missing_is_missing(root: int) -> None:
    """Not unsafe: whoever looked may look again."""
    for path in ("none", "a/none", "none/file"):
        with pytest.raises(FileNotFoundError):
            beneath.open_file(root, path)
    beneath.remove_file(root, "none/file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_the_user_could_not_read_is_refused(root: int, tmp_path: Path) -> None:
    """A hard link into the directory lends nobody our rights; its own files and those for everybody are fine."""
    home, secret = tmp_path / "home", tmp_path / "secret"
    secret.chmod(0o600)
    os.link(secret, home / "linked")
    (home / "own").write_text("own")
    os.chown(home / "own", USER, USER)
    (home / "own").chmod(0o600)
    (home / "open").write_text("open")
    with pytest.raises(Unsafe, match="another user"):
        beneath.open_file(root, "linked", USER)
    assert content(beneath.open_file(root, "own", USER)) == "own"
    assert content(beneath.open_file(root, "open", USER)) == "open"
    assert content(beneath.open_file(root, "linked")) == "secret"


def test_directories_are_made_where_they_are_missing(root: int, tmp_path: Path) -> None:
    for _ in range(2):
        os.close(beneath.make_directories(root, "a/b/c"))
    assert (tmp_path / "home" / "a" / "b" / "c").is_dir()
    with pytest.raises(Unsafe):
        os.close(beneath.make_directories(root, "a/file/c"))


def test_a_link_itself_is_removed_never_what_it_names(root: int, tmp_path: Path) -> None:
    (tmp_path / "home" / "link").symlink_to(tmp_path / "secret")
    beneath.remove_file(root, "link")
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "home" / "link").is_symlink()


def test_a_walk_tells_everything_and_follows_nothing(root: int, tmp_path: Path) -> None:
    """In order, links as links, within its bounds of number and depth."""
    home = tmp_path / "home"
    (home / "z").write_text("")
    (home / "link").symlink_to("..")
    os.mkfifo(home / "fifo")
    (home / os.fsdecode(b"\xff")).write_text("")
    found = {entry.path: entry.is_file for entry in beneath.walk(root, 10)}
    assert found == {"a/file": True, "fifo": False, "link": False, "z": True, "\udcff": True}
    assert list(found) == sorted(found)
    with pytest.raises(Unsafe, match="more than 4"):
        list(beneath.walk(root, 4))
    deep = home
    for _ in range(beneath.DEPTH_MAX):
        deep /= "d"
    deep.mkdir(parents=True)
    with pytest.raises(Unsafe, match="deep"):
        list(beneath.walk(root, 100))


def test_a_directory_swapped_for_a_link_is_never_followed(root: int, tmp_path: Path) -> None:
    """A thread swaps directory and link as fast as it can: what is read is inside or an error, what is made is inside;
    and both happen."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    (home / "x").mkdir()
    (home / "x" / "file").write_text("inside")
    (home / "link").symlink_to(outside)
    seen = {"inside": 0, "refused": 0}

    def try_both() -> None:
        for open_one in (read, make, remove):
            try:
                open_one()
                seen["inside"] += 1
            except (Unsafe, FileNotFoundError):
                seen["refused"] += 1

    def read() -> None:
        assert content(beneath.open_file(root, "x/file")) == "inside"

    def make() -> None:
        fd = beneath.make_directories(root, "x/made/by/us")
        os.close(fd)

    def remove() -> None:
        beneath.remove_file(root, "x/nothing")

    with swapping(home / "x", home / "link"):
        until_s = time.monotonic() + 60
        while min(seen.values()) < 3_000:
            try_both()
            assert time.monotonic() < until_s, seen
    assert sorted(path.name for path in outside.iterdir()) == ["file"]


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Two names are exchanged, in one step each time, as often as a thread can, while the block runs."""
    libc, exchange, here = ctypes.CDLL(None, use_errno=True), 2, -100
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            assert libc.renameat2(here, bytes(one), here, bytes(other), exchange) == 0, os.strerror(ctypes.get_errno())

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_directories_count_in_a_walk_and_what_is_too_much_is_not_read(root: int, tmp_path: Path) -> None:
    """A program may make millions of either: no more of them are looked at than are wanted."""
    for number in range(20):
        (tmp_path / "home" / f"d{number:02}" / "inner").mkdir(parents=True)
    with pytest.raises(Unsafe, match="more than 30"):
        list(beneath.walk(root, 30))
    assert [] == [found for found in beneath.walk(root, 100) if "d" in found.path]
    opened = os.open(tmp_path / "home" / "d00", os.O_RDONLY)
    try:
        assert [] == list(beneath.walk(opened, 1))
        with pytest.raises(Unsafe):
            list(beneath.walk(opened, 0))
    finally:
        os.close(opened)


def test_a_directory_that_another_thread_makes_at_that_moment_is_used(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of one attempt are laid by several threads: whoever comes second finds the directory, and goes on."""
    made = os.mkdir

    def beaten(name: str, mode: int, *, dir_fd: int) -> None:
        made(name, mode, dir_fd=dir_fd)  # by the other one
        made(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", beaten)
    os.close(beneath.make_directories(root, "deep/data"))
    os.close(beneath.open_directory(root, "deep/data"))
