"""One table of a job file: each value read as what it should be, or a problem told and the default taken.

A table may lie above others: what it does not say, the one beneath does (a step above `defaults`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from coordinator.jobfile.problems import Problems, shown

E = TypeVar("E", bound=StrEnum)

_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ABSENT: Any = object()


class Layer(NamedTuple):
    """A table as it stands somewhere."""

    data: Mapping[str, Any]
    path: str


class Found(NamedTuple):
    """A value, and where it stands."""

    value: Any
    path: str


class Table:
    """Layers of the same table, the one that counts first."""

    def __init__(self, problems: Problems, *layers: Layer) -> None:
        self.problems = problems
        self.layers = layers

    @property
    def path(self) -> str:
        """Where the table itself stands."""
        return self.layers[0].path if self.layers else ""

    def only(self, known: Collection[str], what: str, elsewhere: Mapping[str, str] | None = None) -> None:
        """Tell of every key that is not known. `elsewhere`: keys that are known at another place, and where."""
        for data, path in self.layers:
            for key in data:
                if key in known:
                    continue
                at = below(path, key)
                if elsewhere and key in elsewhere:
                    self.problems.add(at, f"{key} does not stand here", elsewhere[key])
                else:
                    near = self.problems.nearest(key, known)
                    hint = f"did you mean {near}?" if near else f"there are: {', '.join(sorted(known))}"
                    self.problems.add(at, f"{what} has no field {shown(key)}", hint)

    def find(self, key: str) -> Found | None:
        """The value that counts, and its path; None when nobody says it."""
        for data, path in self.layers:
            value = data.get(key, _ABSENT)
            if value is not _ABSENT:
                return Found(value, below(path, key))
        return None

    def at(self, key: str) -> str:
        """Where `key` stands, or would stand."""
        found = self.find(key)
        return found.path if found is not None else below(self.path, key)

    def wrong(self, found: Found, wanted: str, hint: str = "") -> None:
        """Tell that this value is not what it should be."""
        self.problems.add(found.path, f"{shown(found.value)} is not {wanted}", hint)

    # ---- single values

    def text(self, key: str, wanted: str = "text") -> str | None:
        """Any text without NUL that is UTF-8."""
        found = self.find(key)
        if found is None:
            return None
        if isinstance(found.value, str) and is_plain(found.value):
            return found.value
        self.wrong(found, wanted)
        return None

    def number(self, key: str, least: float, most: float, wanted: str) -> float | None:
        """A finite number within bounds."""
        found = self.find(key)
        if found is None:
            return None
        value = found.value
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        self.wrong(found, wanted, f"{least:g} to {most:g}")
        return None

    def integer(self, key: str, least: int, most: int, wanted: str) -> int | None:
        """A whole number within bounds."""
        found = self.find(key)
        if found is None:
            return None
        if isinstance(found.value, int) and not isinstance(found.value, bool) and least <= found.value <= most:
            return found.value
        self.wrong(found, wanted, f"a whole number from {least} to {most}")
        return None

    def flag(self, key: str) -> bool | None:
        """True or false."""
        found = self.find(key)
        if found is None:
            return None
        if isinstance(found.value, bool):
            return found.value
        self.wrong(found, "true or false")
        return None

    def choice(self, key: str, kinds: type[E]) -> E | None:
        """One of a closed set."""
        found = self.find(key)
        if found is None:
            return None
        if isinstance(found.value, str):
            for kind in kinds:
                if kind.value == found.value:
                    return kind
        near = self.problems.nearest(found.value, kinds) if isinstance(found.value, str) else None
        self.wrong(found, f"one of {', '.join(kinds)}", f"did you mean {near}?" if near else "")
        return None

    # ---- values of several

    def texts(self, key: str, most: int, wanted: str) -> tuple[Found, ...] | None:
        """A list of texts, each with its path."""
        found = self.find(key)
        if found is None:
            return None
        if not isinstance(found.value, list | tuple) or len(found.value) > most:
            self.wrong(found, wanted, f"a list of at most {most}")
            return None
        items = tuple(Found(value, f"{found.path}[{i}]") for i, value in enumerate(found.value))
        fine = []
        for item in items:
            if isinstance(item.value, str) and is_plain(item.value):
                fine.append(item)
            else:
                self.wrong(item, "text")
        return tuple(fine)

    def table(self, key: str) -> Table | None:
        """The table there, above the same one of the layers beneath; None when there is none or it is another thing."""
        found = self.find(key)
        if found is None:
            return None
        if not isinstance(found.value, Mapping):
            self.wrong(found, "a table", f"write {key} = {{ ... }}")
            return None
        layers = []
        for data, path in self.layers:
            if key not in data:
                continue
            if not isinstance(data[key], Mapping):
                break
            layers.append(Layer(data[key], below(path, key)))
        return Table(self.problems, *layers)

    def entries(self, key: str, most: int) -> dict[str, Found]:
        """A table of free keys: each with its value and path."""
        table = self.table(key)
        if table is None:
            return {}
        merged: dict[str, Found] = {}
        for data, path in reversed(table.layers):
            for name, value in data.items():
                merged[name] = Found(value, below(path, name))
        if len(merged) > most:
            self.problems.add(self.at(key), f"it has {len(merged)} entries", f"at most {most}")
            return {}
        return merged


def below(path: str, key: str) -> str:
    """The path of `key` in the table at `path`."""
    if not _BARE.fullmatch(key):
        key = shown(key)
    return f"{path}.{key}" if path else key


def is_plain(text: str) -> bool:
    """Whether a process can be given it: no NUL, and it can be written as UTF-8."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
