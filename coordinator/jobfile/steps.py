"""One step of a job file as a StepSpec. What it needs is still told by name: `graph` makes numbers of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from coordinator.core.errors import CoordError
from coordinator.core.ids import PoolName, check_name
from coordinator.core.work.jobspec import (
    Arrangement,
    Heed,
    Input,
    Isolation,
    LogFull,
    OnLost,
    Overlap,
    RetryRule,
    StepSpec,
    When,
)
from coordinator.jobfile import arrays, resources
from coordinator.jobfile.inputs import Wish, inputs
from coordinator.jobfile.model import RETRY
from coordinator.jobfile.problems import shown
from coordinator.jobfile.saving import OUTPUTS_MAX, SIGNALS, checkpoint, outputs, stall_ms
from coordinator.jobfile.table import Found, Table, is_plain
from coordinator.jobfile.values import length, length_ms, size
from coordinator.runtimes.placeholders import names
from coordinator.timetext import DAY_MS, HOUR_MS, SECOND_MS

ARGUMENTS_MAX = 10_000
TEXT_BYTES_MAX = 131_071
"""Of one argument or one variable: the kernel takes no more (MAX_ARG_STRLEN)."""
LAUNCH_BYTES_MAX = 1_500_000
"""Of a command and its environment together: under the kernel's bound at the usual stack limit."""
ENV_MAX = 1_000
LABELS_MAX = 64
POOLS_MAX = 64
NEEDS_MAX = 1_000
NODES_MAX = 1_024
WAIT_MAX_MS = DAY_MS
"""An agent gives a frozen attempt up after a day."""
LONG_MS = 3_650 * DAY_MS
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CAUSE = re.compile(
    r"exit:(\d{1,3})(?:-(\d{1,3}))?|signal:([A-Z0-9+]{1,16})|timeout|oom|log_full|stalled|output|start|any"
)


class Draft(NamedTuple):
    """A step whose needs are names yet."""

    spec: StepSpec
    """Its needs and inputs are empty."""
    needs: tuple[Found, ...]
    inputs: tuple[Input | Wish, ...]
    path: str


def draft(table: Table, name: str, graph: bool) -> Draft:
    """The step that `table` describes, as far as it can be understood; what cannot is told to its problems."""
    places, items, length_of_array = arrays.array(table)
    axes, product = arrays.matrix(table)
    command = _command(table)
    env = _env(table)
    needs = (table.texts("needs", NEEDS_MAX, "a list of steps") or ()) if graph else ()
    directory = _directory(table)
    stdin = table.text("stdin") or ""
    filled = {"index", "rank", "nodes", *(axis for axis, _ in axes)}
    if places or items:
        filled.add("item")
    declared = table.texts("outputs", OUTPUTS_MAX, "a list of patterns") or ()
    _check_filled(table, (*command, *declared), env, filled)
    if sum(len(text.value.encode()) + 9 for text in (*command, *env.values())) > LAUNCH_BYTES_MAX:
        table.problems.add(
            table.at("command"), "command and environment are too large", f"at most {LAUNCH_BYTES_MAX} bytes; use stdin"
        )
    spec = StepSpec(
        name=name,
        command=tuple(part.value for part in command),
        tasks=arrays.count(table, length_of_array, product),
        array=places,
        items=items,
        matrix=axes,
        when=(table.choice("when", When) if graph else None) or When.SUCCEEDED,
        asks=resources.asks(table),
        nodes=table.integer("nodes", 1, NODES_MAX, "a number of nodes") or 1,
        pools=_pools(table),
        labels=_labels(table),
        isolation=table.choice("isolation", Isolation) or Isolation.NONE,
        min_score=table.number("min_score", 0, 1, "a score"),
        min_forecast=table.number("min_forecast", 0, 1, "a probability"),
        time_limit_ms=length(table, "time_limit", SECOND_MS, LONG_MS),
        expected_ms=length(table, "expected_runtime", 1, LONG_MS),
        grace_ms=_or(length(table, "grace", 0, HOUR_MS), 10_000),
        env=tuple((key, value.value) for key, value in env.items()),
        directory=directory,
        stdin=stdin,
        retry=_retry(table),
        on_lost=_on_lost(table),
        overlap=table.choice("overlap", Overlap) or Overlap.FORBID,
        log_full=table.choice("log_full", LogFull) or LogFull.TRUNCATE,
        log_bytes_max=size(table, "log_max", 65_536, 1 << 50) or 0,
        max_fails=table.integer("max_fails", 0, 10**9, "a number of tasks"),
        max_running=table.integer("max_running", 1, 10**9, "a number of tasks"),
        runtime=_runtime(table),
        arrangement=table.choice("arrangement", Arrangement) or Arrangement.PACK,
        outputs=outputs(table),
        checkpoint=checkpoint(table),
        stall_ms=stall_ms(table),
    )
    if spec.when is not When.SUCCEEDED and not needs:
        table.problems.add(table.at("when"), f"{spec.when} of which steps?", "name them in needs")
    return Draft(spec, needs, inputs(table, filled), table.path)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _command(table: Table) -> tuple[Found, ...]:
    """The argument list. Of `command` and `shell` the layer above decides, and says one of them."""
    for data, path in table.layers:
        both = [key for key in ("command", "shell") if key in data]
        if len(both) == 2:
            table.problems.add(f"{path}.shell".lstrip("."), "command and shell are both there", "one of them says it")
            return ()
        if both:
            break
    else:
        table.problems.add(table.path, "there is no command", 'write command = ["python", "train.py"]')
        return ()
    if both == ["shell"]:
        found = table.find("shell")
        text = table.text("shell", "a text for /bin/sh")
        if found is None or text is None:
            return ()
        if not text.strip() or len(text.encode()) > TEXT_BYTES_MAX:
            table.problems.add(found.path, "the text is empty or too long", f"at most {TEXT_BYTES_MAX} bytes")
            return ()
        return Found("/bin/sh", found.path), Found("-c", found.path), Found(text, found.path)
    found = table.find("command")
    if found is not None and isinstance(found.value, str):
        table.wrong(found, "an argument list", 'write a list, as ["python", "train.py"], or shell = "..." for a shell')
        return ()
    parts = table.texts("command", ARGUMENTS_MAX, "an argument list") or ()
    if found is not None and isinstance(found.value, list | tuple) and not (parts and parts[0].value):
        table.problems.add(found.path, "it names no program", 'write a list, as ["python", "train.py"]')
    for part in parts:
        if len(part.value) > TEXT_BYTES_MAX or len(part.value.encode()) > TEXT_BYTES_MAX:
            table.problems.add(part.path, "the argument is too long", f"at most {TEXT_BYTES_MAX} bytes")
    return parts


def _env(table: Table) -> dict[str, Found]:
    env: dict[str, Found] = {}
    for name, found in table.entries("env", ENV_MAX).items():
        value = found.value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            table.wrong(found, "a variable's value", "write text")
            continue
        try:
            text = str(value)
        except ValueError:
            text = "\0"
        if not _VARIABLE.fullmatch(name):
            table.problems.add(found.path, f"{shown(name)} is no name for a variable", "letters, digits and _")
        elif name.startswith("COORD_"):
            table.problems.add(found.path, "variables that begin with COORD_ are coord's own", "choose another name")
        elif not is_plain(text) or len(name) + len(text.encode()) >= TEXT_BYTES_MAX:
            table.problems.add(
                found.path, "the value is too long or no text", f"at most {TEXT_BYTES_MAX} bytes of UTF-8"
            )
        else:
            env[name] = Found(text, found.path)
    return env


def _directory(table: Table) -> str:
    found = table.find("directory")
    text = table.text("directory", "a directory on the provider")
    if found is None or text is None:
        return ""
    if len(text) > 4_096 or (text and text[0] not in "/{"):
        table.wrong(found, "a directory on the provider", "write it from the root: /data/run; empty: the attempt's own")
        return ""
    return text


def _check_filled(table: Table, command: tuple[Found, ...], env: dict[str, Found], filled: set[str]) -> None:
    """Every placeholder stands for something."""
    for part in (*command, *env.values(), *(found for key in ("directory", "stdin") if (found := table.find(key)))):
        if not isinstance(part.value, str):
            continue
        for name in names(part.value):
            if name in filled:
                continue
            near = table.problems.nearest(name, filled)
            name = name if len(name) <= 60 else name[:60] + "..."
            hint = f"did you mean {{{near}}}? " if near else f"there are: {', '.join(sorted(filled))}; "
            table.problems.add(
                part.path, f"nothing fills {{{name}}}", hint + f"write {{{{{name}}}}} where the braces are meant"
            )


def _pools(table: Table) -> tuple[PoolName, ...]:
    pools = list(table.texts("pools", POOLS_MAX, "a list of pools") or ())
    one = table.find("pool")
    if one is not None and isinstance(one.value, str):
        pools.append(one)
    elif one is not None:
        table.wrong(one, "a pool")
    named = []
    for pool in pools:
        try:
            named.append(PoolName(check_name(pool.value, "pool")))
        except CoordError as error:
            table.problems.add(pool.path, error.message, error.hint)
    return tuple(dict.fromkeys(named))


def _labels(table: Table) -> tuple[tuple[str, str], ...]:
    labels = []
    for name, found in table.entries("labels", LABELS_MAX).items():
        value = found.value
        fits = isinstance(value, str) and 0 < len(name) <= 128 and len(value) <= 128
        if fits and name.isprintable() and value.isprintable():
            labels.append((name, value))
        else:
            table.wrong(found, "a label", "name and value are printable text of at most 128 characters")
    return tuple(sorted(labels))


def _retry(table: Table) -> RetryRule:
    plain = RetryRule()
    found = table.find("retry")
    if found is not None and isinstance(found.value, int) and not isinstance(found.value, bool):
        table.wrong(found, "a table", f"write retry = {{ limit = {shown(found.value)} }}")
        return plain
    beneath = table.table("retry")
    if beneath is None:
        return plain
    beneath.only(RETRY, "retry")
    factor = beneath.number("factor", 1, 100, "a factor")
    return RetryRule(
        limit=_or(beneath.integer("limit", 0, 1_000, "a number of failures"), plain.limit),
        losses=_or(beneath.integer("losses", 0, 10_000, "a number of losses"), plain.losses),
        delay_ms=_or(length(beneath, "delay", 0, 7 * DAY_MS), plain.delay_ms),
        factor=plain.factor if factor is None else factor,
        delay_max_ms=_or(length(beneath, "delay_max", 0, 30 * DAY_MS), plain.delay_max_ms),
        on=_causes(beneath, "on"),
        never=_causes(beneath, "never"),
        elsewhere=beneath.flag("elsewhere") or False,
        verdict=beneath.choice("verdict", Heed) or Heed.OBEY,
    )


def _causes(table: Table, key: str) -> tuple[str, ...]:
    causes = []
    for found in table.texts(key, 64, "a list of causes") or ():
        match = _CAUSE.fullmatch(found.value)
        fits = match is not None
        if match is not None and match[1]:
            low, high = int(match[1]), int(match[2] or match[1])
            fits = 1 <= low <= high <= 255
        elif match is not None and match[3]:
            fits = match[3].removeprefix("SIG") in SIGNALS
        if fits:
            causes.append(found.value.replace("signal:SIG", "signal:"))
        else:
            table.wrong(
                found,
                "a cause",
                "exit:75, exit:1-9, signal:KILL, timeout, oom, log_full, stalled, output, start or any",
            )
    return tuple(causes)


def _on_lost(table: Table) -> OnLost:
    found = table.find("on_lost")
    if found is None:
        return OnLost()
    text = found.value
    if text in ("retry", "auto"):
        return OnLost(mode=text)
    hint = "write retry, auto, or wait and for how long: wait:20m"
    if isinstance(text, str) and text.startswith("wait:"):
        ms = length_ms(text.removeprefix("wait:"))
        if ms is not None and SECOND_MS <= ms <= WAIT_MAX_MS:
            return OnLost(mode="wait", wait_ms=ms)
        hint = "write wait and for how long, from 1s to 1d: wait:20m"
    table.wrong(found, "what to do about a lost provider", hint)
    return OnLost()


def _runtime(table: Table) -> str:
    found = table.find("runtime")
    if found is not None and found.value != "plain":
        if isinstance(found.value, str):
            table.problems.add(
                found.path, f"runtime {shown(found.value)}: not built yet", "leave it away, or say plain"
            )
        else:
            table.wrong(found, "a runtime", "leave it away, or say plain")
    return "plain"
