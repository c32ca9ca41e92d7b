"""Files of whoever submits: which ones an input names, and where each of them goes. Nothing is read of them here."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from coordinator.core.errors import Code, CoordError
from coordinator.manifest import check_path

FILES_MAX = 4_096
"""Of one input; more belong into an archive."""


class Local(NamedTuple):
    """One file here, and its path there."""

    path: Path
    to: str
    size: int
    executable: bool


def found(text: str, base: Path, to: str | None) -> list[Local]:
    """The files that `text` (`./FILE`, `./DIR/`, `../x`, `/x`, `~/x`) names beneath or beside `base`.

    A path that stays beneath `base` is kept; else the file or directory goes under its own name. `to` says otherwise:
    of a directory it is the directory there, with `/` at its end it is the directory that a file goes into. A link that
    is named is followed; one within a directory is refused, and so is what is no file. CoordError(BAD_JOB) says which.
    """
    path = base / Path(text).expanduser()
    try:
        seen = path.stat()
    except OSError as wrong:
        raise _wrong(text, f"cannot be read: {wrong.strerror}", "name a file or a directory that is there") from wrong
    name = path.name or path.resolve().name
    if stat.S_ISDIR(seen.st_mode):
        top = _kept(text, name) if to is None else to.rstrip("/")
        files = _walked(path, "" if top in (".", "./", "") else _beneath(top) + "/", text)
        if not files:
            raise _wrong(text, "holds no files", "directories without files are not kept")
        return files
    if text.endswith("/") or not stat.S_ISREG(seen.st_mode):
        raise _wrong(text, "is no directory" if text.endswith("/") else "is no file", "only files are given to jobs")
    if to is None:
        there = _kept(text, name)
    else:
        there = name if to in ("", ".") else to + name if to.endswith("/") else to
    return [Local(path, _beneath(there), seen.st_size, bool(seen.st_mode & stat.S_IXUSR))]


def _kept(text: str, name: str) -> str:
    """The path there of what nobody gave one."""
    plain = PurePosixPath(text)
    if plain.is_absolute() or ".." in plain.parts or text.startswith("~"):
        return name
    return str(plain)


def _beneath(path: str) -> str:
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    try:
        return check_path(path)
    except CoordError as wrong:
        raise CoordError(Code.BAD_JOB, wrong.message, wrong.hint) from wrong


def _walked(top: Path, prefix: str, text: str) -> list[Local]:
    """Everything beneath a directory, by path."""
    files: list[Local] = []
    left = [(top, prefix)]
    while left:
        directory, before = left.pop()
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as wrong:
            raise _wrong(text, f"cannot be read: {directory}: {wrong.strerror}", "leave it out") from wrong
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                raise _wrong(text, f"holds a link: {path}", "copy what it leads to into its place, or leave it out")
            if entry.is_dir(follow_symlinks=False):
                left.append((path, f"{before}{entry.name}/"))
                continue
            if not entry.is_file(follow_symlinks=False):
                raise _wrong(text, f"holds what is no file: {path}", "only files are given to jobs")
            seen = entry.stat(follow_symlinks=False)
            to = _beneath(before + entry.name)
            files.append(Local(path, to, seen.st_size, bool(seen.st_mode & stat.S_IXUSR)))
            if len(files) > FILES_MAX:
                raise _wrong(text, f"holds more than {FILES_MAX} files", "pack them into an archive")
    return sorted(files, key=lambda file: file.to)


def _wrong(text: str, what: str, hint: str) -> CoordError:
    return CoordError(Code.BAD_JOB, f"{text} {what}", hint)
