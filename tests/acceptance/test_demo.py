"""`coord demo`, the main job, as a user runs it: it ends well, in time, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from coordinator.agent.hierarchies import group_name, unified_root
from tests.acceptance.cli_runs import Coord
from tests.acceptance.processes import GUARD_S, clean_environment, wait_for

IN_TIME_S = 50.0


def of_demo(place: Path) -> set[int]:
    """Processes that have a path below `place` on their command line or in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"coord-demo-" in text and str(place).encode() in text:
                found.add(int(entry.name))
    return found


def cgroups() -> set[str]:
    """Names of agents' groups, where this machine has cgroup v2."""
    root = unified_root()
    return {path.name for path in root.rglob("coord-*") if path.is_dir()} if root is not None else set()


def test_the_demo_shows_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    """Three real agents, a reliability table, a week and forecasts; a job whose machine is killed in the middle
    finishes elsewhere; guests are charged and refused; no process, no file, no cgroup is left."""
    began = time.monotonic()
    done = Coord(tmp_path / "none", {"TMPDIR": str(tmp_path)})("demo")
    took_s = time.monotonic() - began
    assert done.code == 0, done.err
    assert took_s <= IN_TIME_S
    for command in (
        "coord serve", "coord agent --provider-id alpha", "coord import sessions", "kill -9",
        "coord query reliability --min-score 0.8", "coord query availability office-007", "--horizon 8h",
        "coord submit ", "coord job show 1", "coord job why 1", "coord job wait 1", "coord logs 1.1.",
        "coord tenant create guests", "coord usage --ledger",
    ):  # fmt: skip
        assert f"$ {command}" in done.out or command in done.out
    assert re.search(r"noticed after \d+\.\d\d s: beta is (suspect|lost)", done.out)
    assert re.search(r"(1\.1\.\d)\.1 on beta is in doubt", done.out)
    lost, again = re.search(r"^(1\.1\.\d .* lost +beta .*)\n(.*)$", done.out, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert "its lease is over" in lost
    assert re.search(r"^ +2  completed  (alpha|gamma) .* exit 0 +\d", again), "it went on from a checkpoint"
    assert re.search(r"^state +completed\ntasks +5/5$", done.out, re.MULTILINE)
    epochs = re.findall(r"^fold \d, epoch (\d)$", done.out, re.MULTILINE)
    assert epochs.count("1") == 1, f"what was saved was not done again: {epochs}"
    assert re.search(r"^fold \d done$", done.out, re.MULTILINE)
    assert 4 == len(re.findall(r"/results/(?:prep/clean.csv|train/\d/model-\d)$", done.out, re.MULTILINE))
    assert re.search(r"^cpus +4 +0 +0 +2 +1.8 ", done.err, re.MULTILINE), "what guests may not is named"
    assert re.search(r"2\.0\.0\.1 .* 0\.0\d+$", done.out, re.MULTILINE), "what they did is charged"
    rows = [line.split() for line in done.out.splitlines() if re.match(r"(server|newcomer)-\d+ +[01]\.\d{3} ", line)]
    assert rows and all(float(row[1]) >= 0.8 for row in rows)
    assert len([line for line in done.out.splitlines() if re.match(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)  ", line)]) == 7
    assert "stays 8h with" in done.out and "To try next" in done.out
    assert max(len(line) for line in done.out.splitlines() if "/" not in line) <= 110
    assert list(tmp_path.iterdir()) == []
    assert of_demo(tmp_path) == set()
    states = re.findall(r"--state (\S+)", done.out)
    assert len(states) == 3
    assert [name for name in map(group_name, map(Path, states)) if name in cgroups()] == []


def test_the_demo_that_is_kept_runs_on_and_stops_as_it_says(tmp_path: Path) -> None:
    """What it prints to look around works, and so does what it prints to end everything."""
    coord = Coord(tmp_path / "none", {"TMPDIR": str(tmp_path)})
    try:
        done = coord("demo", "--keep")  # who is ended because it takes too long leaves its processes too
        assert done.code == 0, done.err
        data = re.findall(r"\$ export COORD_DATA=(\S+)", done.out)[-1]
        listed = coord("providers", "list", "-o", "name", env={"COORD_DATA": data})
        assert listed.out.split() == ["alpha", "beta", "gamma"]
        stop = re.findall(r"\$ (kill [\d ]+; .*)", done.out)[-1]
        subprocess.run(stop, shell=True, check=True, timeout=30)
        wait_for(lambda: not of_demo(tmp_path), "everything being gone")
        assert list(tmp_path.iterdir()) == []
    finally:
        for pid in of_demo(tmp_path):
            os.kill(pid, signal.SIGKILL)


def test_ctrl_c_in_the_middle_clears_the_stage(tmp_path: Path) -> None:
    """Status 130; nothing is left."""
    process = subprocess.Popen(
        (sys.executable, "-m", "cli", "demo"),
        env=clean_environment({"TMPDIR": str(tmp_path)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: list(tmp_path.glob("coord-demo-*/data/address")), "the demo's coordinator")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(GUARD_S) == 130
        wait_for(lambda: not of_demo(tmp_path), "everything being gone")
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()


def test_the_made_up_history_can_be_had_alone(tmp_path: Path) -> None:
    """A file for `coord import sessions`, the same for the same seed and moment."""
    done = Coord(tmp_path / "none")("demo", "--history-only", str(tmp_path / "history.csv"), "--seed", "5")
    assert done.code == 0
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "provider_id,connected_at,disconnected_at,disconnect_reason" and len(lines) > 10_000
