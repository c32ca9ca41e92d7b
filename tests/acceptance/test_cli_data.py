"""Data on the command line against a real coordinator and agent: files go in, results come out, state is kept."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import Agent, when_online

TREE = Path(__file__).parents[2]
JOB = """\
name = "flow"

[[step]]
name = "prep"
inputs = ["./words.txt", "./more/", { from = "artifact:stop", to = "stop.txt" }]
shell = "cat words.txt more/*/* | grep -v -f stop.txt | sort > sorted.txt; ./more/deep/run >> sorted.txt"
outputs = ["*ed.txt"]

[[step]]
name = "count"
inputs = [{ from = "prep:sorted.txt", to = "in" }]
array = "3-4"
shell = "head -{index} in/sorted.txt > head-{index}.txt"
outputs = ["head-{index}.txt"]
"""
PROGRAM = """\
import os, pathlib, signal, subprocess, sys
state = pathlib.Path(os.environ["COORD_CHECKPOINT_DIR"]) / "step"
coord = (sys.executable, "-m", "cli")
step = int(state.read_text()) if state.exists() else 0
print("from", step, "restored", os.environ.get("COORD_RESTORED"), flush=True)
if step == 0:
    state.write_text("7")
    subprocess.run((*coord, "checkpoint", "--label", "step=7", "--wait"), check=True)
    subprocess.run((*coord, "progress", "70%", "step=7", "well on the way"), check=True)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path("result").write_text(f"resumed from {step}")
"""


class Fleet(NamedTuple):
    coord: Coord
    directory: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("data")
    with Server(directory) as server:
        client = server.start()
        with Agent(directory, server, "w1", "--cpus", "4") as agent:
            when_online(client, agent)
            yield Fleet(Coord(server.data), directory)


def kept_bytes(coord: Coord) -> int:
    (usage,) = coord("usage", "default", "-o", "json").json()["entries"]
    return int(next(one["used"] for one in usage["dimensions"] if one["name"] == "storage"))


def test_files_go_in_travel_between_steps_and_results_come_out(fleet: Fleet, tmp_path: Path) -> None:
    """Local files, a directory with a tool in it, an artifact; outputs of one step are the next one's inputs; what is
    fetched is what was made, and a second submission uploads nothing."""
    coord = fleet.coord
    job = tmp_path / "job.toml"
    job.write_text(JOB)
    (tmp_path / "words.txt").write_text("pear\nthe\napple\n")
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "deep" / "fig").write_text("fig\n")
    tool = tmp_path / "more" / "deep" / "run"
    tool.write_text("#!/bin/sh\necho tool ran # the\n")
    tool.chmod(0o755)
    (tmp_path / "stop.txt").write_text("the\n")
    made = coord("artifacts", "put", str(tmp_path / "stop.txt"), "--name", "stop")
    assert made.code == 0 and made.out.startswith("stop  4 B  blake3:"), made.err

    planned = coord("submit", "--dry-run", str(job))
    assert planned.code == 0, planned.err
    assert "3 files, 49 B, would be uploaded" in planned.err and "inputs = 4 files (53 B)" in planned.out
    done = coord("submit", "--wait", str(job))
    assert done.code == 0, done.err
    assert "uploaded 3 files, 49 B" in done.err

    number = coord("job", "list", "-o", "name").out.split()[0]
    shown = coord("job", "show", number)
    assert re.search(r"^more/deep/run +prep +\d+ B +[0-9a-f]{12} +stored$", shown.out, re.MULTILINE), shown.out
    assert re.search(r"^in +count +- +- +prep:sorted.txt$", shown.out, re.MULTILINE), shown.out
    assert re.search(rf"^sorted.txt +{number}.0.0 +prep +\d+ B +[0-9a-f]{{12}}", shown.out, re.MULTILINE), shown.out

    to = tmp_path / "results"
    fetched = coord("job", "outputs", number, "--get", str(to))
    assert fetched.code == 0, fetched.err
    files = sorted(path.relative_to(to) for path in to.rglob("*") if path.is_file())
    assert [Path("count/0/head-3.txt"), Path("count/1/head-4.txt"), Path("prep/sorted.txt")] == files
    assert "apple\nfig\npear\ntool ran\n" == (to / "prep" / "sorted.txt").read_text().replace("#!/bin/sh\n", "")
    assert 3 == len((to / "count" / "0" / "head-3.txt").read_text().splitlines())
    assert sorted(str(to / file) for file in files) == sorted(fetched.out.split())
    one = coord("job", "outputs", f"{number}.1.1", "--match", "head-*", "-o", "json").json()
    assert [["head-4.txt"]] == [[file["path"] for file in entry["outputs"]] for entry in one["entries"]]
    assert ["head-4.txt"] == coord("job", "outputs", f"{number}.1.1", "--match", "head-*", "-o", "name").out.split()

    before = kept_bytes(coord)
    again = coord("submit", "-o", "name", str(job))
    assert again.code == 0 and "uploaded" not in again.err, again.err
    assert coord("job", "wait", again.out.strip()).code == 0
    assert before == kept_bytes(coord), "the same bytes are kept once"


def test_a_job_that_cannot_be_is_refused_before_its_bytes_travel(fleet: Fleet, tmp_path: Path) -> None:
    """With the line of what is wrong, here and there; nothing of it is stored."""
    coord = fleet.coord
    before = kept_bytes(coord)
    (tmp_path / "data").write_bytes(b"never sent")
    job = tmp_path / "job.toml"
    job.write_text('command = ["true"]\ninputs = [\n  "./data",\n  "./gone",\n  "artifact:none",\n]\n')
    refused = coord("submit", str(job))
    assert refused.code == 65, refused.err
    assert "job.toml:4: inputs[1]: ./gone cannot be read" in refused.err
    assert "job.toml:5: inputs[2]: there is no artifact 'none'" in refused.err
    job.write_text('command = ["true"]\ninputs = ["./data"]\noutputs = ["ok"]\nstall_after = "soon"\n')
    refused = coord("submit", str(job))
    assert refused.code == 65 and "job.toml:4: stall_after: 'soon' is not a length of time" in refused.err, refused.err
    assert before == kept_bytes(coord)


def test_a_program_says_how_far_it_is_and_goes_on_from_what_it_saved(fleet: Fleet, tmp_path: Path) -> None:
    """`coord checkpoint` and `coord progress` from inside a job that dies: the next attempt begins where it was."""
    coord = fleet.coord
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    job = tmp_path / "job.json"
    job.write_text(json.dumps({
        "command": [sys.executable, "program.py"], "env": {"PYTHONPATH": str(TREE)}, "inputs": ["./program.py"],
        "outputs": ["result"], "checkpoint": {}, "retry": {"delay": "100ms"},
    }))  # fmt: skip
    done = coord("submit", "--wait", str(job))
    assert done.code == 0, done.err
    assert "from 0 restored None" in done.out and "from 7 restored 1" in done.out
    assert re.search(r"^checkpoint 1: 1 B, \d+ B sent$", done.out, re.MULTILINE)
    number = coord("job", "list", "-o", "name").out.split()[0]
    tasks = coord("job", "show", number, "--tasks", "-o", "json").json()
    first, second = tasks["entries"][0]["tries"]
    assert (0.7, {"step": "7"}, "well on the way") == tuple(
        first["progress"][name] for name in ("fraction", "values", "text")
    )
    assert first["lost_ms"] is not None and (0, 1) == (first["restored"], second["restored"])
    shown = coord("job", "show", number, "-o", "wide")
    assert "70 %, step=7, well on the way (" in shown.out and "RESUMED FROM CHECKPOINT" in shown.out
    assert "CHECKPOINT" not in shown.out.split("INPUT")[1], "a task that has completed needs none"
    to = tmp_path / "to"
    assert coord("job", "outputs", number, "--get", str(to)).code == 0
    assert "resumed from 7" == (to / "result").read_text()

    lost = coord(
        "submit", "--wait", "--retry", "0", "--input", str(program), "--collect", "result", "--checkpoint", "on",
        "--env",
        f"PYTHONPATH={TREE}", "--", sys.executable, "program.py",
    )  # fmt: skip
    assert lost.code == 137, lost.err
    shown = coord("job", "show", "last")
    pattern = r"^\d+.0.0.1 +1 +\S+ ago +1 +1 B +\d+ B +\S+ +[0-9a-f]{12} +step=7 +kept$"
    assert re.search(pattern, shown.out, re.MULTILINE), shown.out


def test_artifacts_are_put_listed_shown_fetched_and_removed(fleet: Fleet, tmp_path: Path) -> None:
    """And the bytes of a result get a name that keeps them."""
    coord = fleet.coord
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(300_000))
    put = coord("artifacts", "put", str(file))
    assert put.code == 0, put.err
    digest = put.out.split("blake3:")[1].strip()
    assert "best.bin" in coord("artifacts", "put", "--digest", f"blake3:{digest}", "--name", "best.bin").out
    listed = coord("artifacts", "list", "*.bin", "-o", "json").json()
    assert ["best.bin", "weights.bin"] == [entry["name"] for entry in listed["entries"]]
    assert "artifact best.bin, artifact weights.bin" in coord("artifacts", "show", "best.bin").out
    got = coord("artifacts", "get", "best.bin", str(tmp_path / "got" / "w"))
    assert got.code == 0 and file.read_bytes() == (tmp_path / "got" / "w").read_bytes(), got.err
    (tmp_path / "got" / "w").write_text("mine")
    clash = coord("artifacts", "get", "best.bin", str(tmp_path / "got" / "w"))
    assert clash.code == 73 and "is another file" in clash.err and "mine" == (tmp_path / "got" / "w").read_text()
    assert coord("artifacts", "rm", "best.bin", "weights.bin").code == 0
    gone = coord("artifacts", "get", "best.bin")
    assert gone.code == 66 and "there is no artifact" in gone.err


def test_what_only_a_job_can_say_is_refused_outside_of_one(fleet: Fleet) -> None:
    """With what to do instead."""
    for argv in (("progress", "0.5"), ("checkpoint",)):
        done = fleet.coord(*argv)
        assert done.code == 73 and "this is no job's" in done.err and "coord submit" in done.err
    assert (
        "0 B since its start" in fleet.coord("transfers").out
        or json.loads(fleet.coord("transfers", "-o", "json").out)["state"] == "closed"
    )


def test_a_result_comes_back_whatever_its_files_are_called(fleet: Fleet, tmp_path: Path) -> None:
    """Names that no path of a URL may hold, and names that a shell, an option or a page would take for something."""
    names = ["100%.txt", "%2e%2e.txt", "a\\..\\b.txt", "$(id).txt", "-rf.txt", "a b?c#d&.txt", "<p>.txt", "..txt"]
    job = tmp_path / "job.json"
    program = "import sys; [open(name, 'w').write(name) for name in sys.argv[1:]]"
    job.write_text(json.dumps({"command": [sys.executable, "-c", program, *names], "outputs": ["*.txt"]}))
    done = fleet.coord("submit", "--wait", str(job))
    assert done.code == 0, done.err
    number = fleet.coord("job", "list", "-o", "name").out.split()[0]
    to = tmp_path / "to"
    fetched = fleet.coord("job", "outputs", number, "--get", str(to))
    assert fetched.code == 0, fetched.err
    assert {name: name for name in names} == {path.name: path.read_text() for path in to.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["a bit", "the end", "all of it"])
def test_a_blob_that_is_damaged_on_the_head_is_healed_by_putting_it_again(
    fleet: Fleet, tmp_path: Path, how: str
) -> None:
    """Lost bytes are noticed as they are asked for; a bit that fell over is found by a check. Kept once, as before."""
    coord = fleet.coord
    data = f"weights {how}".encode() * 10_000
    file = tmp_path / "healed.bin"
    file.write_bytes(data)
    put = coord("artifacts", "put", str(file))
    assert put.code == 0, put.err
    before, digest = kept_bytes(coord), put.out.split("blake3:")[1].strip()
    full = coord("artifacts", "list", "healed.bin", "-o", "json").json()["entries"][0]["digest"]
    assert full.startswith(digest)
    (blob,) = (Path(coord.env["COORD_DATA"]) / "blobs").glob(f"*/*/{full}")
    if how == "all of it":
        blob.unlink()
    else:
        blob.write_bytes(data[:-1] if how == "the end" else bytes([data[0] ^ 4]) + data[1:])
    if how == "a bit":
        found = coord("db", "check")
        assert found.code != 0 and "is damaged: its bytes are not those of its digest" in found.out, found.out
    again = coord("artifacts", "put", str(file))
    assert again.code == 0, again.err
    assert data == blob.read_bytes()
    assert coord("artifacts", "get", "healed.bin", str(tmp_path / "got")).code == 0
    assert data == (tmp_path / "got").read_bytes()
    assert before == kept_bytes(coord)
