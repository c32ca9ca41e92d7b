"""Where something stands in the text of a TOML file: `tomllib` does not say."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_OTHER = re.compile(r"[^\s,\]\}#]+(?: [0-9][^\s,\]\}#]*)?")
_STEP = re.compile(r"""\[(\d+)\]|\.?([A-Za-z0-9_-]+)|\.?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")

Path = tuple[str | int, ...]


class _Stop(Exception):
    """The text is no TOML from here on: what was found so far counts."""


def line_of(text: str, path: str) -> int | None:
    """The line (1 is the first) of `path`, as `step[1].resources.cpu`, or of the nearest table around it that is there.

    None when nothing of it is there. `text` is TOML that could be read.
    """
    wanted = _parsed(path)
    places = _places(text)
    while wanted:
        if wanted in places:
            return text.count("\n", 0, places[wanted]) + 1
        wanted = wanted[:-1]
    return None


def _parsed(path: str) -> Path:
    parts: list[str | int] = []
    for found in _STEP.finditer(path):
        index, bare, quoted = found.groups()
        parts.append(int(index) if index is not None else bare if bare is not None else quoted[1:-1])
    return tuple(parts)


def _places(text: str) -> dict[Path, int]:
    """Every key and list item -> where it begins."""
    scan = _Scan(text)
    with contextlib.suppress(_Stop):
        scan.document()
    return scan.places


class _Key(NamedTuple):
    parts: tuple[str, ...]
    at: int


class _Scan:
    """A walk over the text. It trusts that the text is TOML, and needs to know no values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, int] = {}
        self.lists: dict[Path, int] = {}
        """Arrays of tables -> how many of their tables were seen."""

    def document(self) -> None:
        table: Path = ()
        while True:
            self.skip(_SPACE)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        began = self.at
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        parts = self.key().parts
        self.expect("]]" if double else "]")
        path: Path = ()
        for i, part in enumerate(parts):
            path = (*path, part)
            last = i == len(parts) - 1
            if last and double:
                self.lists[path] = self.lists.get(path, -1) + 1
                self.places.setdefault(path, began)
            if path in self.lists:
                path = (*path, self.lists[path])
            if last:
                self.places.setdefault(path, began)
        return path

    def pair(self, table: Path) -> None:
        key = self.key()
        path = table
        for part in key.parts:
            path = (*path, part)
            self.places.setdefault(path, key.at)
        self.expect("=")
        self.skip(_BLANK)
        self.value(path)

    def value(self, path: Path) -> None:
        match self.text[self.at : self.at + 1]:
            case "{":
                self.at += 1
                while not self.closed("}"):
                    self.pair(path)
                    self.comma()
            case "[":
                self.at += 1
                i = 0
                while not self.closed("]"):
                    self.places.setdefault((*path, i), self.at)
                    self.value((*path, i))
                    self.comma()
                    i += 1
            case '"' | "'":
                self.take(_STRING)
            case _:
                self.take(_OTHER)

    def key(self) -> _Key:
        self.skip(_BLANK)
        began = self.at
        parts = [self.word()]
        while True:
            self.skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return _Key(tuple(parts), began)
            self.at += 1
            self.skip(_BLANK)
            parts.append(self.word())

    def word(self) -> str:
        if self.text[self.at : self.at + 1] in ('"', "'"):
            return self.take(_STRING)[1:-1]
        return self.take(_BARE)

    # ---- single signs

    def closed(self, sign: str) -> bool:
        self.skip(_SPACE)
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def comma(self) -> None:
        self.skip(_SPACE)
        if self.text.startswith(",", self.at):
            self.at += 1
            self.skip(_SPACE)

    def expect(self, sign: str) -> None:
        self.skip(_BLANK)
        if not self.text.startswith(sign, self.at):
            raise _Stop
        self.at += len(sign)

    def skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        assert found is not None, "it matches nothing, too"
        self.at = found.end()

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None or found.end() == self.at:
            raise _Stop
        self.at = found.end()
        return found[0]
