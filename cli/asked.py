"""The flags of `coord submit` as a job's body, in the words of the job file."""

from __future__ import annotations

import json
from typing import Any

import click

from cli.data_flags import checkpoint_of, inputs_of
from cli.jobtext import Body, environment_of, lines_of, read_text
from coordinator.core.errors import Code, CoordError

ONLY_A_COMMAND = {
    "cpus": "resources.cpus", "gpus": "resources.gpus", "memory": "resources.memory", "needs": "resources.named",
    "array": "array", "array_file": "array", "matrix": "matrix", "time_limit": "time_limit",
    "expected": "expected_runtime", "pools": "pools", "labels": "labels", "directory": "directory", "stdin": "stdin",
    "max_running": "max_running", "retry": "retry.limit", "on_lost": "on_lost",
    "isolation": "isolation", "nodes": "nodes", "max_fails": "max_fails",
    "min_forecast": "min_forecast", "min_score": "min_score", "spread": "arrangement",
    "inputs": "inputs", "outputs": "outputs", "checkpoint": "checkpoint", "stall_after": "stall_after",
}  # fmt: skip
"""Flags that describe the one step of a command -> where a job file says the same."""


_SPELLED = {
    "needs": "need", "pools": "pool", "labels": "label", "directory": "dir", "inputs": "input", "outputs": "collect",
}  # fmt: skip


def body_of(command: tuple[str, ...], flags: dict[str, Any]) -> Body:
    """The job that runs `command`. CoordError(BAD_JOB) where a flag's form is wrong; what it means is judged later."""
    asked: Body = {"command": list(command)}
    resources = _present({
        "cpus": flags["cpus"], "gpus": flags["gpus"], "memory": flags["memory"],
        "named": {name: _amount(text, "--need") for name, text in pairs(flags["needs"], "--need").items()} or None,
    })  # fmt: skip
    if resources:
        asked["resources"] = resources
    asked |= _present({
        "name": flags["name"],
        "array": lines_of(flags["array_file"]) if flags["array_file"] else flags["array"],
        "matrix": {
            axis: text.split(",") for axis, text in pairs(flags["matrix"], "--matrix").items()
        } or None,
        "time_limit": flags["time_limit"], "expected_runtime": flags["expected"], "deadline": flags["deadline"],
        "pools": list(flags["pools"]) or None,
        "labels": pairs(flags["labels"], "--label") or None,
        "env": environment(flags) or None,
        "directory": _from_here(flags["directory"]),
        "stdin": read_text(flags["stdin"], "an input") if flags["stdin"] else None,
        "retry": {"limit": flags["retry"]} if flags["retry"] is not None else None,
        "on_lost": flags["on_lost"], "isolation": flags["isolation"], "nodes": flags["nodes"],
        "max_fails": flags["max_fails"], "max_running": flags["max_running"], "min_forecast": flags["min_forecast"],
        "min_score": flags["min_score"], "arrangement": "spread" if flags["spread"] else None,
        "priority": flags["priority"], "estimate": _estimate({}, flags),
        "inputs": inputs_of(flags["inputs"]), "outputs": list(flags["outputs"]) or None,
        "checkpoint": checkpoint_of(flags["checkpoint"]), "stall_after": flags["stall_after"],
    })  # fmt: skip
    return asked


def over_a_file(body: Body, flags: dict[str, Any]) -> Body:
    """The job of a file with the flags that go beside one. The others are refused: they are the file's to say."""
    for flag, field in ONLY_A_COMMAND.items():
        if flags[flag] not in (None, ()):
            option = _SPELLED.get(flag, flag)
            raise click.UsageError(
                f"--{option.replace('_', '-')} describes a command; a job file says it itself: {field} = ..."
            )
    changed = body | _present({
        "name": flags["name"], "deadline": flags["deadline"], "priority": flags["priority"],
        "estimate": _estimate(body.get("estimate"), flags),
    })  # fmt: skip
    if extra := environment(flags):
        defaults = changed.get("defaults", {})
        before = defaults.get("env", {}) if isinstance(defaults, dict) else {}
        if isinstance(defaults, dict) and isinstance(before, dict):
            changed["defaults"] = defaults | {"env": before | extra}
    return changed


def _estimate(before: object, flags: dict[str, Any]) -> Body | None:
    """The declaration with what a flag says of it; None where no flag does. Text keeps money exact."""
    if flags["estimate_cost"] is None:
        return None
    return (before if isinstance(before, dict) else {}) | {"cost": flags["estimate_cost"]}


def environment(flags: dict[str, Any]) -> dict[str, str]:
    """Variables of --env-file, then of --env: the later one counts. `--env NAME` takes the value that it has here."""
    import os

    found: dict[str, str] = {}
    for name in flags["env_files"]:
        found |= environment_of(name)
    for text in flags["env"]:
        name, equals, value = text.partition("=")
        if not equals and name in os.environ:
            value = os.environ[name]
        elif not equals or not name:
            raise CoordError(Code.BAD_JOB, f"--env {text!a}: no such variable here", "write --env NAME=VALUE")
        found[name] = value
    return found


def pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """NAME=VALUE of each."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CoordError(Code.BAD_JOB, f"{option} {text!a} is no NAME=VALUE", f"write {option} name=value")
        if name in found:
            raise CoordError(Code.BAD_JOB, f"{option} names {name} twice", "say it once")
        found[name] = value
    return found


def _from_here(directory: str | None) -> str | None:
    """A directory on the provider is told from the root; a relative one is meant from here."""
    from pathlib import Path

    return directory if directory is None or directory[:1] in ("/", "{") else str(Path(directory).absolute())


def _amount(text: str, option: str) -> float:
    try:
        amount = json.loads(text)
    except ValueError:
        amount = None
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise CoordError(Code.BAD_JOB, f"{option}: {text!a} is no number", f"write {option} licence=1")
    return amount


def _present(fields: Body) -> Body:
    return {name: value for name, value in fields.items() if value is not None}
