"""What a step is given before it starts: stored bytes, and outputs of other steps.

A file of the submitter is told apart here and refused: the coordinator cannot see it. `coord submit` uploads it first
and writes what it became.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest, digest_named
from coordinator.core.work.jobspec import Input
from coordinator.jobfile.model import INPUT
from coordinator.jobfile.patterns import normal
from coordinator.jobfile.problems import shown
from coordinator.jobfile.table import Found, Layer, Table, is_plain
from coordinator.manifest import check_path
from coordinator.runtimes.placeholders import names

INPUTS_MAX = 4_096
SIZE_MAX = 1 << 42
ARTIFACT = "artifact:"
LOCAL = ("./", "../", "/", "~/")
"""How the path of a file of one's own begins: no name of a step or an artifact does."""
FORMS = 'write "./FILE" or "./DIR/" of your own, "STEP:FILES" of a step before it, or "artifact:NAME"'


class Wish(NamedTuple):
    """Outputs of a step, which is still named by its text."""

    text: str
    """`STEP:PATTERN`. A name of a step may hold colons, too."""
    into: str
    path: str


def is_local(text: str) -> bool:
    """Whether an input is a file or a directory of whoever submits."""
    return text.startswith(LOCAL) or text in (".", "..", "~")


def inputs(table: Table, filled: set[str]) -> tuple[Input | Wish, ...]:
    """What `inputs` lists, as far as it can be understood. `filled`: placeholders that patterns may hold."""
    found = table.find("inputs")
    if found is None:
        return ()
    if not isinstance(found.value, list | tuple) or len(found.value) > INPUTS_MAX:
        table.wrong(found, "a list of inputs", f"at most {INPUTS_MAX}; more belong into an archive")
        return ()
    made = []
    places: dict[str, Input] = {}
    for i, one in enumerate(found.value):
        at = Found(one, f"{found.path}[{i}]")
        taken = _input(table, at, filled)
        if isinstance(taken, Input) and not _fits(table, at, taken, places):
            continue
        if taken is not None:
            made.append(taken)
    return tuple(made)


def _input(table: Table, at: Found, filled: set[str]) -> Input | Wish | None:
    if isinstance(at.value, Mapping):
        beneath = Table(table.problems, Layer(at.value, at.path))
        beneath.only(INPUT, "an input")
        source = beneath.find("from")
        if source is None:
            table.problems.add(at.path, "the input has no from", FORMS)
            return None
    else:
        beneath = Table(table.problems)
        source = at
    if not isinstance(source.value, str) or not is_plain(source.value):
        table.wrong(source, "an input", FORMS)
        return None
    text = source.value
    if is_local(text):
        table.problems.add(
            source.path,
            "the coordinator cannot see your files",
            "coord submit uploads them; over HTTP upload them (POST /v1/uploads) and write artifact:DIGEST",
        )
        return None
    if text.startswith(ARTIFACT):
        return _stored(beneath, source, text.removeprefix(ARTIFACT))
    if ":" not in text:
        table.wrong(source, "an input", FORMS)
        return None
    return _wish(beneath, source, filled)


def _stored(table: Table, source: Found, text: str) -> Input | None:
    try:
        kind, digest = digest_named(text)
    except CoordError:
        kind = "name"
    if kind != "blake3":
        table.problems.add(
            source.path,
            f"{shown(text)} is no BLAKE3 digest",
            "coord submit looks names up; over HTTP ask GET /v1/artifacts/NAME and write artifact:DIGEST",
        )
        return None
    place = table.find("to")
    if place is None:
        table.problems.add(source.path, "it does not say where it goes", 'write { from = "...", to = "data.csv" }')
        return None
    path = beneath_there(table, place)
    if not path:
        return None
    return Input(
        path=path,
        digest=Digest(digest),
        size=table.integer("size", 0, SIZE_MAX, "a number of bytes") or 0,
        executable=table.flag("executable") or False,
    )


def _wish(table: Table, source: Found, filled: set[str]) -> Wish | None:
    for key in ("size", "executable"):
        if (found := table.find(key)) is not None:
            table.problems.add(found.path, f"{key} is known of outputs", "leave it away")
    for name in names(source.value):
        if name not in filled:
            table.problems.add(source.path, f"nothing fills {{{name[:60]}}}", f"there are: {', '.join(sorted(filled))}")
    place = table.find("to")
    into = beneath_there(table, place) if place is not None and place.value not in ("", ".", "./") else ""
    return Wish(source.value, into, source.path) if into is not None else None


def beneath_there(table: Table, found: Found) -> str | None:
    """A path beneath the working directory, in its one form; what is none is told."""
    if not isinstance(found.value, str) or not is_plain(found.value):
        table.wrong(found, "a path beneath the working directory")
        return None
    text = found.value
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    try:
        path = check_path(text.rstrip("/") if text != "/" else text)
    except CoordError as error:
        table.problems.add(found.path, error.message, error.hint)
        return None
    if names(path):
        table.problems.add(found.path, "no placeholder is filled here", "each task has a directory of its own")
        return None
    return path


def _fits(table: Table, at: Found, one: Input, places: dict[str, Input]) -> bool:
    """Whether nothing else goes there; the very same thing twice is there once."""
    before = places.get(one.path)
    if before is not None:
        if before != one:
            table.problems.add(at.path, f"two inputs go to {shown(one.path)}", "give one of them another place: to")
        return False
    parents = one.path.split("/")
    for deep in range(1, len(parents)):
        if (parent := "/".join(parents[:deep])) in places:
            table.problems.add(
                at.path, f"{shown(one.path)} lies beneath {shown(parent)}, which is a file", "give it another place: to"
            )
            return False
    places[one.path] = one
    return True


def wished(wish: Wish, step: int, name: str) -> Input:
    """The input that `wish` stands for, of the step of this number and name. CoordError(BAD_REQUEST): no pattern."""
    return Input(path=wish.into, step=step, pattern=normal(wish.text.removeprefix(f"{name}:")))


def step_of(wish: Wish, known: Mapping[str, int]) -> str | None:
    """The longest name of a step that its text begins with."""
    text = wish.text
    at = text.rfind(":")
    while at > 0:
        if text[:at] in known:
            return text[:at]
        at = text.rfind(":", 0, at)
    return None
