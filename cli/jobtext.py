"""A job as people hand it over: a TOML or JSON file, lines for an array, an environment in a file. Read here, sent as
one body; what it means is `coordinator.jobfile`'s.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from coordinator.core.errors import Code, CoordError
from coordinator.core.work.jobspec import SPEC_BYTES_MAX

STDIN = "-"
A_JOB = "a job"
Body = dict[str, Any]


class JobText(NamedTuple):
    """A job file as it was read. `text` is there to say on which line something stands; empty for JSON."""

    body: Body
    text: str
    name: str
    beside: Path = Path()
    """The directory that paths in it are relative to."""


def read_job(name: str) -> JobText:
    """The job in this file, or on stdin for `-`; its arrays' files are read, too. CoordError(BAD_JOB) says where."""
    text = read_text(name, A_JOB)
    shown = "stdin" if name == STDIN else name
    is_json = name.endswith(".json") or (name == STDIN and text.lstrip().startswith("{"))
    body = _json(text, shown) if is_json else _toml(text, shown)
    beside = Path() if name == STDIN else Path(name).parent
    for part in parts(body):
        _read_array(part, beside)
    return JobText(body, "" if is_json else text, shown, beside)


def read_text(name: str, what: str) -> str:
    """The text of a file, or of stdin for `-`. CoordError when it cannot be read, is too large, or is no text."""
    try:
        if name == STDIN:
            data = sys.stdin.buffer.read(SPEC_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(SPEC_BYTES_MAX + 1)
    except OSError as wrong:
        hint = f"name the file of {what}, or - for stdin"
        if what == A_JOB and shutil.which(name) is not None:
            hint = f"a command stands behind --: coord submit -- {shlex.quote(name)}"
        raise CoordError(Code.NOT_FOUND, f"{name} cannot be read: {wrong.strerror}", hint) from wrong
    if len(data) > SPEC_BYTES_MAX:
        raise CoordError(
            Code.TOO_LARGE,
            f"{name} is larger than {SPEC_BYTES_MAX} bytes",
            f"is it {what}? A job holds at most so much",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        raise CoordError(
            Code.BAD_JOB, f"{name} is no text: byte {wrong.start} is not UTF-8", "a job and what it is fed are UTF-8"
        ) from wrong


def lines_of(name: str) -> list[str]:
    """The items of an array: a line each, empty ones left out."""
    lines = [line.removesuffix("\r") for line in read_text(name, "lines").split("\n")]
    items = [line for line in lines if line.strip()]
    if not items:
        raise CoordError(Code.BAD_JOB, f"{name} has no lines", "an array has a task for each line that is not empty")
    return items


def environment_of(name: str) -> dict[str, str]:
    """`NAME=VALUE` a line; empty lines and those that begin with # are left out. Nothing is unquoted or expanded."""
    found = {}
    for number, line in enumerate(read_text(name, "an environment").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        variable, equals, value = line.removeprefix("export ").partition("=")
        if not equals or not variable.strip():
            raise CoordError(
                Code.BAD_JOB, f"{name}, line {number}: no NAME=VALUE", "write one variable a line, without quotes"
            )
        found[variable.strip()] = value
    return found


def _toml(text: str, shown: str) -> Body:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        hint = "a job file is TOML (docs/reference/jobfile.md); JSON files end in .json"
        if text.startswith("#!"):
            hint = f'it is a script: coord submit -- sh -c "$(cat {shlex.quote(shown)})"'
        raise CoordError(Code.BAD_JOB, f"{shown}: {wrong}", hint) from wrong


def _json(text: str, shown: str) -> Body:
    import json

    try:
        body = json.loads(text)
    except json.JSONDecodeError as wrong:
        raise CoordError(
            Code.BAD_JOB, f"{shown}: {wrong.msg} (at line {wrong.lineno}, column {wrong.colno})", "it is not JSON"
        ) from wrong
    except RecursionError as wrong:
        raise CoordError(Code.BAD_JOB, f"{shown} is nested too deep", "it is not a job") from wrong
    if not isinstance(body, dict):
        raise CoordError(Code.BAD_JOB, f"{shown} holds no job but {_kind(body)}", "a job is a table: name, step, ...")
    return body


def _kind(value: object) -> str:
    return {list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")


def parts(body: Body) -> list[Body]:
    """Every table that describes a step: the job itself, its defaults and its steps."""
    steps = body.get("step")
    defaults = body.get("defaults")
    above = [defaults] if isinstance(defaults, dict) else []
    return [body, *above, *(step for step in (steps if isinstance(steps, list) else []) if isinstance(step, dict))]


def _read_array(part: Body, beside: Path) -> None:
    """`array = { file = "lines.txt" }` becomes the file's lines: the coordinator cannot see our files."""
    array = part.get("array")
    if not isinstance(array, dict) or "file" not in array:
        return
    if set(array) != {"file"} or not isinstance(array["file"], str):
        _refuse_array(part)
    name = array["file"]
    part["array"] = lines_of(name if name == STDIN else str(beside / name))


def _refuse_array(part: Body) -> NoReturn:
    what = f"step {part['name']}: " if isinstance(part.get("name"), str) else ""
    raise CoordError(
        Code.BAD_JOB, f"{what}array = {part['array']!r} is none", 'write array = "1-100", or array = { file = "FILE" }'
    )


def located(message: str, told: JobText) -> str:
    """A refusal's lines, each with the line of the file that its path leads to."""
    from coordinator.jobfile import line_of

    if not told.text:
        return message
    found = []
    for line in message.splitlines():
        path, colon, _ = line.partition(": ")
        at = line_of(told.text, path) if colon else None
        found.append(f"{told.name}:{at}: {line}" if at else line)
    return "\n".join(found)
