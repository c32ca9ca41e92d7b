"""Job files that are wrong: everything at once, where it stands, and what was meant."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.core.work.jobspec import SPEC_BYTES_MAX, JobSpec
from coordinator.jobfile import JobError, line_of, parse_job, tenant_of
from coordinator.jobfile.model import JOB, SHARED, STEP
from tests.unit.jobfile.examples import DIGEST, EVERYTHING
from tests.unit.jobfile.test_parse import NOW

BAD = """
name = "x y"
tenent = "physics"
[defaults]
retry = { limt = 2 }
[[step]]
name = "prep"
needs = ["train"]
command = "python prep.py"
array = "5-1"
[[step]]
name = "train"
needs = ["prep", "perp"]
command = ["python", "train.py", "--lr", "{lrr}"]
matrix = { lr = [0.1, 0.01] }
resources = { cpu = 8, memory = 16 }
deadline = "5h"
runtime = "torchrun"
"""


def stored(to: str, **fields: Any) -> dict[str, Any]:
    """An input that names bytes by their digest."""
    return {"from": f"artifact:{DIGEST}", "to": to} | fields


def refusal(data: Any) -> JobError:
    with pytest.raises(JobError) as caught:
        parse_job(data, now_ms=NOW)
    assert Code.BAD_JOB is caught.value.code
    return caught.value


def problem_of(**fields: Any) -> tuple[str, str, str]:
    """The only problem of a job of one step with these fields."""
    (part,) = refusal({"command": ["true"]} | fields).problems
    return part.path, part.detail, part.hint


def test_everything_that_is_wrong_is_told_at_once_with_its_place_and_what_was_meant() -> None:
    """Paths, the line of the text, and a suggestion for each slip."""
    error = refusal(tomllib.loads(BAD))
    told = {part.path: (line_of(BAD, part.path), part.detail, part.hint) for part in error.problems}
    assert {
        "name",
        "tenent",
        "defaults.retry.limt",
        "step[0].needs",
        "step[0].command",
        "step[0].array",
        "step[1].needs[1]",
        "step[1].command[3]",
        "step[1].resources.cpu",
        "step[1].resources.memory",
        "step[1].deadline",
        "step[1].runtime",
    } == set(told)
    assert (3, "did you mean tenant?") == (told["tenent"][0], told["tenent"][2])
    assert (5, "did you mean limit?") == (told["defaults.retry.limt"][0], told["defaults.retry.limt"][2])
    assert (8, "steps wait for each other: prep -> train -> prep") == told["step[0].needs"][:2]
    assert (13, "did you mean prep?") == (told["step[1].needs[1]"][0], told["step[1].needs[1]"][2])
    assert "did you mean {lr}?" in told["step[1].command[3]"][2]
    assert (16, "did you mean cpus?") == (told["step[1].resources.cpu"][0], told["step[1].resources.cpu"][2])
    assert "not built yet" in told["step[1].runtime"][1]
    assert "whole job" in told["step[1].deadline"][2]
    assert f"{len(told)} things" in error.message and all(path in error.message for path in told)


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"command": []}, "command", "names no program"),
        ({"command": [""]}, "command", "names no program"),
        ({"command": ["x", 1]}, "command[1]", "1 is not text"),
        ({"command": ["x", "a\0b"]}, "command[1]", "is not text"),
        ({"command": ["x", "\ud800"]}, "command[1]", "is not text"),
        ({"shell": "x"}, "shell", "both there"),
        ({"command": ["x", "{item}"]}, "command[1]", "nothing fills {item}"),
        ({"array": "x"}, "array", "is not an array"),
        ({"array": {"file": "x"}}, "array", "cannot see your files"),
        ({"array": []}, "array", "no items"),
        ({"array": "1-10000001"}, "array", "10000001 tasks"),
        ({"array": "1-10000", "matrix": {"a": ["x"] * 2_000}}, "array", "20000000 tasks"),
        ({"matrix": {"index": [1]}}, "matrix.index", "means something already"),
        ({"matrix": {"a b": [1]}}, "matrix.'a b'", "no name for an axis"),
        ({"matrix": {"a": []}}, "matrix.a", "is not the values of an axis"),
        ({"matrix": [1]}, "matrix", "is not a table"),
        ({"resources": {"gpus": float("nan")}}, "resources.gpus", "is not an amount"),
        ({"resources": {"memory": "16"}}, "resources.memory", "is not a size"),
        ({"resources": []}, "resources", "is not a table of amounts"),
        ({"resources": {"named": {"x": 0}}}, "resources.named.x", "is not an amount"),
        ({"nodes": 0}, "nodes", "0 is not a number of nodes"),
        ({"nodes": True}, "nodes", "true is not a number of nodes"),
        ({"pools": ["x y"]}, "pools[0]", "cannot be the name of a pool"),
        ({"labels": {"a": "\x1b[31m"}}, "labels.a", "is not a label"),
        ({"isolation": "sandbx"}, "isolation", "is not one of none, uid, sandbox"),
        ({"min_forecast": 1.1}, "min_forecast", "is not a probability"),
        ({"time_limit": 90}, "time_limit", "is not a length of time"),
        ({"time_limit": "30m1h"}, "time_limit", "is not a length of time"),
        ({"time_limit": "0s"}, "time_limit", "out of range"),
        ({"env": {"COORD_X": "1"}}, "env.COORD_X", "coord's own"),
        ({"env": {"A=B": "1"}}, "env.'A=B'", "no name for a variable"),
        ({"env": {"A": ["x"]}}, "env.A", "is not a variable's value"),
        ({"directory": "data"}, "directory", "is not a directory on the provider"),
        ({"retry": 3}, "retry", "is not a table"),
        ({"retry": {"on": ["exit:0"]}}, "retry.on[0]", "is not a cause"),
        ({"retry": {"on": ["signal:NONSENSE"]}}, "retry.on[0]", "is not a cause"),
        ({"retry": {"verdict": "obeyy"}}, "retry.verdict", "is not one of obey, advise, off"),
        ({"retry": {"factor": 0.5}}, "retry.factor", "is not a factor"),
        ({"on_lost": "wait"}, "on_lost", "what to do about a lost provider"),
        ({"on_lost": "wait:2d"}, "on_lost", "what to do about a lost provider"),
        ({"log_max": "1KB"}, "log_max", "out of range"),
        ({"needs": ["x"]}, "needs", "does not stand here"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline", "does not lie ahead"),
        ({"deadline": "2027-01-31T18:00:00"}, "deadline", "is not a time"),
        ({"deadline": tomllib.loads("d = 2027-01-31")["d"]}, "deadline", "is not a time"),
        ({"name": "-"}, "name", "cannot be the name of a job"),
        ({"priority": 101}, "priority", "is not a priority"),
        ({"priority": "high"}, "priority", "is not a priority"),
        ({"arrangement": "tight"}, "arrangement", "is not one of pack, spread"),
        ({"estimate": 12}, "estimate", "is not a table"),
        ({"estimate": {"price": 1}}, "estimate.price", "an estimate has no field"),
        ({"estimate": {"cost": -1}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"cost": 0.0000001}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"cost": "1e3"}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"cost": float("inf")}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"cost": 10**30}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"cost": True}}, "estimate.cost", "is not an amount of money"),
        ({"estimate": {"storage": 5}}, "estimate.storage", "is not a size"),
        ({"tenant": 7}, "tenant", "is not the name of a tenant"),
        ({"inputs": "./x"}, "inputs", "is not a list of inputs"),
        ({"inputs": ["x.csv"]}, "inputs[0]", "is not an input"),
        ({"inputs": [7]}, "inputs[0]", "is not an input"),
        ({"inputs": ["./x.csv"]}, "inputs[0]", "cannot see your files"),
        ({"inputs": [{"from": "~/x"}]}, "inputs[0].from", "cannot see your files"),
        ({"inputs": ["prep:x.csv"]}, "inputs[0]", "there is no step 'prep'"),
        ({"inputs": ["main:x.csv"], "outputs": ["x.csv"]}, "inputs[0]", "outputs of its own"),
        ({"inputs": [{"to": "x"}]}, "inputs[0]", "has no from"),
        ({"inputs": [stored("x", too="x")]}, "inputs[0].too", "an input has no field 'too'"),
        ({"inputs": ["artifact:model"]}, "inputs[0]", "'model' is no BLAKE3 digest"),
        ({"inputs": [f"artifact:sha256:{DIGEST}"]}, "inputs[0]", "is no BLAKE3 digest"),
        ({"inputs": [f"artifact:{DIGEST}"]}, "inputs[0]", "does not say where it goes"),
        ({"inputs": [stored("../x")]}, "inputs[0].to", "names no file beneath"),
        ({"inputs": [stored("/etc/x")]}, "inputs[0].to", "names no file beneath"),
        ({"inputs": [stored("")]}, "inputs[0].to", "names no file beneath"),
        ({"inputs": [stored("a\0b")]}, "inputs[0].to", "is not a path"),
        ({"inputs": [stored("{index}")]}, "inputs[0].to", "no placeholder is filled here"),
        ({"inputs": [stored("a", size=-1)]}, "inputs[0].size", "is not a number of bytes"),
        ({"inputs": [stored("a"), stored("a", size=2)]}, "inputs[1]", "two inputs go to 'a'"),
        ({"inputs": [stored("a"), stored("a/b")]}, "inputs[1]", "lies beneath 'a'"),
        ({"outputs": ["/tmp/x"]}, "outputs[0]", "names no file beneath"),
        ({"outputs": ["a/../../x"]}, "outputs[0]", "names no file beneath"),
        ({"outputs": ["a**"]}, "outputs[0]", "stands beside other characters"),
        ({"outputs": ["{item}.pt"]}, "outputs[0]", "nothing fills {item}"),
        ({"outputs": "*.pt"}, "outputs", "is not a list of patterns"),
        ({"checkpoint": "10m"}, "checkpoint", "is not a table"),
        ({"checkpoint": {"evry": "10m"}}, "checkpoint.evry", "checkpoint has no field"),
        ({"checkpoint": {"every": "often"}}, "checkpoint.every", "is not a length of time"),
        ({"checkpoint": {"every": "10ms"}}, "checkpoint.every", "out of range"),
        ({"checkpoint": {"path": "/data"}}, "checkpoint.path", "names no file beneath"),
        ({"checkpoint": {"path": "{index}"}}, "checkpoint.path", "no placeholder is filled here"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep", "is not a number of checkpoints"),
        ({"checkpoint": {"signal": "KILL"}}, "checkpoint.signal", "a signal that a program can hear"),
        ({"checkpoint": {"signal": 10}}, "checkpoint.signal", "a signal that a program can hear"),
        ({"stall_after": 90}, "stall_after", "is not a length of time"),
    ],
)
def test_each_slip_is_told_once_where_it_is(fields: dict[str, Any], path: str, said: str) -> None:
    """One problem, its path, and words that name it."""
    found = problem_of(**fields)
    assert path == found[0] and said in found[1], found


def test_a_slip_in_the_defaults_counts_once() -> None:
    """However many steps lie above it."""
    steps = [{"name": f"s{i}", "command": ["x"]} for i in range(5)]
    (part,) = refusal({"defaults": {"nodes": "two"}, "step": steps}).problems
    assert "defaults.nodes" == part.path


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a job is a table"),
        ({}, "there is no command"),
        ({"step": []}, "a list of steps"),
        ({"step": {}}, "a list of steps"),
        ({"step": [1]}, "is not a step"),
        ({"step": [{"command": ["x"]}]}, "the step has no name"),
        ({"step": [{"name": "a", "command": ["x"]}] * 2}, "two steps are called a"),
        ({"step": [{"name": "a", "command": ["x"], "needs": ["a"]}]}, "a -> a"),
        ({"step": [{"name": "a", "command": ["x"], "when": "failed"}]}, "failed of which steps?"),
        ({"command": ["x"], "step": [{"name": "a", "command": ["x"]}]}, "command does not stand here"),
        ({"step": [{"name": f"s{i}", "command": ["x"]} for i in range(1_001)]}, "it has 1001 steps"),
        ({"command": ["x"], "array": ["y" * 4_000] * 1_100}, "bytes long"),
        ({"command": ["x", "y" * 200_000]}, "too long"),
        ({"command": ["x", *["y" * 100_000] * 20]}, "command and environment are too large"),
    ],
)
def test_a_job_as_a_whole_can_be_wrong(data: Any, said: str) -> None:
    """Shapes, names, graphs and bounds."""
    assert said in refusal(data).message


def test_a_thousand_slips_are_counted_and_not_all_listed() -> None:
    """The answer is bounded."""
    error = refusal({"command": ["x"], **{f"no_{i}": 1 for i in range(1_000)}})
    assert 50 == len(error.problems) and "and 950 more" in error.message and "1000 things" in error.message


def test_long_chains_are_ordered_and_long_cycles_are_printed() -> None:
    """A thousand steps the wrong way round; the same ones in a ring."""
    steps = [{"name": f"s{i}", "command": ["x"], "needs": [f"s{i + 1}"]} for i in range(999)]
    last: dict[str, Any] = {"name": "s999", "command": ["x"]}
    job = parse_job({"step": [*steps, last]}, now_ms=NOW)
    assert [f"s{i}" for i in range(999, -1, -1)] == [step.name for step in job.steps]
    assert all(max(step.needs, default=-1) < number for number, step in enumerate(job.steps))
    ring = refusal({"step": [*steps, last | {"needs": ["s0"]}]}).message
    assert "s0 -> s999 -> s998" in ring and ring.rstrip().endswith("s1 -> s0")


# ---- anything at all

_words = st.sampled_from(sorted(JOB | STEP | SHARED | {"cpus", "gpus", "memory", "limit", "file"}))
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1-9", "2h", "wait:1m", "auto", "1GiB", "{lr}", "{{x}}", "exit:1", "a", "\ud800", "\0"])
    | st.datetimes()
)
_anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words | st.text(max_size=8), inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(_words | st.text(max_size=8), _anything, max_size=8))
@settings(max_examples=400, deadline=None)
def test_whatever_is_decoded_is_a_job_or_a_refusal(data: dict[str, Any]) -> None:
    """Never anything but a JobSpec within bounds or a CoordError that can be said over HTTP."""
    try:
        job = parse_job(data, now_ms=NOW)
    except CoordError as error:
        assert Code.BAD_JOB is error.code and error.message
        error.message.encode()
    else:
        assert isinstance(job, JobSpec) and job.steps
    try:
        tenant_of(data)
    except CoordError as error:
        assert Code.BAD_JOB is error.code


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_right_job_with_one_thing_turned_to_nonsense_never_breaks(data: st.DataObject) -> None:
    """Deep in a file that is otherwise right."""
    job: Any = tomllib.loads(EVERYTHING)
    node = job
    while isinstance(node, dict | list) and node:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(_anything)
            break
        node = node[key]
    try:
        parse_job(job, now_ms=NOW)
    except CoordError as error:
        assert Code.BAD_JOB is error.code


def test_the_bound_on_a_job_is_that_of_its_specification() -> None:
    """Just under it passes."""
    items = ["y" * 4_000] * (SPEC_BYTES_MAX // 4_010)
    assert len(items) == parse_job({"command": ["x"], "array": items}, now_ms=NOW).steps[0].tasks


@pytest.mark.parametrize(
    "job",
    [
        {f"comand{n}": 1 for n in range(100_000)},
        {"command": ["x"], "stdin": "".join(f"{{indx{n}}}" for n in range(100_000))},
        {"step": [{"name": f"s{n}", "command": ["x"], "needs": [f"z{n}{m}" for m in range(200)]} for n in range(500)]},
    ],
    ids=["fields", "placeholders", "needs"],
)
def test_a_hundred_thousand_wrong_names_cost_little_more_than_fifty(job: dict[str, Any]) -> None:
    """What was probably meant is looked for while it is told, and no longer: a thread of the coordinator stands still
    for it, which took minutes."""
    began_s = time.process_time()
    with pytest.raises(JobError) as refused:
        parse_job(job, now_ms=NOW)
    assert 50 == len(refused.value.problems)
    assert time.process_time() - began_s < 5


def test_what_is_told_of_a_placeholder_does_not_grow_with_it() -> None:
    """It is shown to the length of a name."""
    with pytest.raises(JobError) as refused:
        parse_job({"command": ["x"], "stdin": "{" + "a" * 1_000_000 + "}"}, now_ms=NOW)
    assert len(str(refused.value)) < 1_000
