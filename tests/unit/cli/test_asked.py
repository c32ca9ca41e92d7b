"""Flags of `coord submit` say what a job file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from cli.asked import ONLY_A_COMMAND, body_of, environment, over_a_file
from cli.main import main
from cli.submit import submit
from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest
from coordinator.core.work.jobspec import CheckpointRule, Input, OnLost
from coordinator.jobfile import parse_job

DIGEST = "ab" * 32


def flags(*argv: str) -> dict[str, Any]:
    """As the command gets them."""
    context = submit.make_context("submit", [*argv, "--", "true"])
    wanted = set(ONLY_A_COMMAND) | {"name", "deadline", "env", "env_files", "priority", "estimate_cost"}
    return {name: value for name, value in context.params.items() if name in wanted}


def test_every_flag_reaches_the_job(tmp_path: Path) -> None:
    """What the parser makes of the body is what was meant."""
    (tmp_path / "in").write_text("hello")
    (tmp_path / "env").write_text("SECRET=s\nA=file\n")
    body = body_of(
        ("train", "{lr}"),
        flags(
            "--name", "n", "--cpus", "2.5", "--gpus", "0.5", "--memory", "16GiB", "--need", "licence=2", "--array",
            "1-4:2", "--matrix", "lr=0.1,0.01", "--matrix", "seed=1,2,3", "--time-limit", "6h", "--expected", "2h",
            "--pool", "lab", "--pool", "hall", "--label", "gpu=a100", "--env-file", str(tmp_path / "env"), "--env",
            "A=1", "--dir", "/data", "--stdin", str(tmp_path / "in"), "--retry", "0", "--on-lost", "wait:20m",
            "--isolation", "uid", "--nodes", "2", "--max-fails", "5", "--max-running", "7", "--min-forecast", "0.8",
            "--deadline", "8h", "--priority", "7", "--estimate-cost", "0.3", "--spread", "--min-score", "0.4",
            "--input", f"artifact:{DIGEST}:in", "--collect", "*.pt", "--collect", "log/", "--stall-after", "5m",
            "--checkpoint", "every=10m,path=ckpt,keep=3,signal=USR1,grace=2m",
        ),
    )  # fmt: skip
    spec = parse_job(body, now_ms=0)
    (step,) = spec.steps
    (ask,) = step.asks
    assert (spec.name, spec.deadline_ms) == ("n", 8 * 3_600_000)
    assert (ask.cpus, ask.gpus, ask.memory, ask.named) == (2_500_000, 500_000, 16 * 2**30, (("licence", 2_000_000),))
    assert (step.command, step.tasks, step.array) == (("train", "{lr}"), 12, ((1, 4, 2),))
    assert step.matrix == (("lr", ("0.1", "0.01")), ("seed", ("1", "2", "3")))
    assert (step.time_limit_ms, step.expected_ms) == (6 * 3_600_000, 2 * 3_600_000)
    assert (step.pools, dict(step.labels)) == (("lab", "hall"), {"gpu": "a100"})
    assert (dict(step.env), step.directory, step.stdin) == ({"A": "1", "SECRET": "s"}, "/data", "hello")
    assert (spec.priority, spec.estimate.cost) == (7, 300_000)
    assert (step.arrangement, step.min_score) == ("spread", 0.4)
    assert (step.inputs, step.outputs) == ((Input(path="in", digest=Digest(DIGEST)),), ("*.pt", "log/**"))
    rule = CheckpointRule(path="ckpt", every_ms=600_000, keep=3, signal="USR1", grace_ms=120_000)
    assert (step.checkpoint, step.stall_ms) == (rule, 300_000)
    assert (step.retry.limit, step.on_lost) == (0, OnLost(mode="wait", wait_ms=1_200_000))
    assert (step.isolation, step.nodes, step.max_fails, step.max_running, step.min_forecast) == ("uid", 2, 5, 7, 0.8)


def test_nothing_but_the_command_is_asked_for_by_default() -> None:
    """Defaults are the coordinator's."""
    assert body_of(("true",), flags()) == {"command": ["true"]}


def test_lines_of_a_file_are_an_array(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\n")
    assert body_of(("cat", "{item}"), flags("--array-file", str(tmp_path / "lines")))["array"] == ["a", "b"]


def test_a_relative_directory_is_meant_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert body_of(("true",), flags("--dir", "run"))["directory"] == str(tmp_path / "run")


def test_a_variable_alone_takes_the_value_that_it_has_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a secret never stands on the command line; a variable that is not there is told."""
    monkeypatch.setenv("MY_KEY", "s3cret")
    assert environment(flags("--env", "MY_KEY")) == {"MY_KEY": "s3cret"}
    with pytest.raises(CoordError, match="NO_SUCH"):
        environment(flags("--env", "NO_SUCH"))


@pytest.mark.parametrize(
    "argv", [("--label", "x"), ("--matrix", "=1"), ("--need", "gpu=many"), ("--need", "a=1", "--need", "a=2")]
)
def test_a_malformed_pair_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(CoordError):
        body_of(("true",), flags(*argv))


def test_beside_a_file_only_what_is_about_the_whole_job_is_taken() -> None:
    """The rest would contradict it, step by step; the environment goes to all steps."""
    job = {"name": "a", "defaults": {"env": {"A": "1", "B": "1"}}, "step": []}
    changed = over_a_file(job, flags("--name", "b", "--env", "B=2", "--deadline", "8h", "--priority", "3"))
    assert changed == job | {"name": "b", "deadline": "8h", "priority": 3, "defaults": {"env": {"A": "1", "B": "2"}}}
    declared = over_a_file({"estimate": {"cost": 1, "storage": "1GB"}}, flags("--estimate-cost", "2.5"))
    assert declared == {"estimate": {"cost": "2.5", "storage": "1GB"}}
    given = {
        "needs": ("--need", "a=1"), "pools": ("--pool", "a"), "labels": ("--label", "a=1"), "directory": ("--dir", "/"),
        "matrix": ("--matrix", "a=1"), "isolation": ("--isolation", "uid"), "array_file": ("--array-file", "f"),
        "spread": ("--spread",),
    }  # fmt: skip
    for name in ONLY_A_COMMAND:
        option = given.get(name, (f"--{name.replace('_', '-')}", "1"))
        with pytest.raises(click.UsageError, match=option[0]):
            over_a_file(job, flags(*option))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("submit",), "nothing to run"),
        (("submit", "a.toml", "--", "true"), "not both"),
        (("submit", "sleep", "5"), "coord submit -- sleep 5"),
        (("submit", "python", "--lr", "3"), "coord submit -- python --lr 3"),
        (("submit", "--wait", "-o", "name", "--", "true"), "leave --dry-run and -o away"),
        (("submit", "none.toml"), "none.toml cannot be read"),
    ],
)
def test_a_command_line_without_a_job_says_how_it_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: tuple[str, ...], said: str
) -> None:
    assert main([*argv, "--data", str(tmp_path)] if "--" not in argv else argv) != 0
    out, err = capsys.readouterr()
    assert out == "" and said in err
