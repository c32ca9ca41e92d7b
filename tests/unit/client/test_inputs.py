"""A job that names files of ours becomes one that names stored bytes; whatever cannot be taken is told at once."""

from __future__ import annotations

import copy
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from coordinator.api_types.data import ArtifactDetails, ArtifactEntry
from coordinator.client import local_files
from coordinator.client.inputs import Staged, staged
from coordinator.core.errors import Code, CoordError
from coordinator.jobfile import JobError, parse_job

AT = "2026-11-22T04:31:05.000Z"


def look(name: str) -> ArtifactDetails:
    """There is one artifact, `tool`, and one blob without a name."""
    if name not in ("tool", f"sha256:{'2' * 64}", f"blake3:{'1' * 64}"):
        raise CoordError(Code.NOT_FOUND, f"there is no artifact {name!a}", "coord artifacts list")
    entry = ArtifactEntry(
        name="tool", tenant="default", digest="1" * 64, size=7, created_at=AT, by="token:1", executable=True
    )
    return ArtifactDetails(
        tenant="default", digest="1" * 64, size=7, stored_at=AT, sha256=None,
        artifact=entry if name == "tool" else None, held_by=(),
    )  # fmt: skip


def prepared(job: dict[str, Any], base: Path) -> Staged:
    before = copy.deepcopy(job)
    made = staged(job, base, look, lambda _what, _size: lambda _moved: None)
    assert before == job, "the job that was handed over stays as it was"
    parse_job(made.job, now_ms=0)
    return made


def places(made: Staged) -> dict[str, Any]:
    return {one["to"]: one["from"] for one in made.job["inputs"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a file, a tool, and a directory of files."""
    base = tmp_path / "home"
    (base / "data" / "deep").mkdir(parents=True)
    (base / "a.csv").write_bytes(b"a")
    (base / "data" / "b.csv").write_bytes(b"b")
    (base / "data" / "deep" / "a.csv").write_bytes(b"a")
    (base / "data" / "deep" / "run").write_bytes(b"#!")
    (base / "data" / "deep" / "run").chmod(0o700)
    (tmp_path / "beside.csv").write_bytes(b"beside")
    return base


def source(data: bytes) -> str:
    return f"artifact:{blake3(data).hexdigest()}"


@pytest.mark.parametrize(
    ("given", "lies"),
    [
        ("./a.csv", {"a.csv": b"a"}),
        ("./data/b.csv", {"data/b.csv": b"b"}),
        ("../beside.csv", {"beside.csv": b"beside"}),
        ("./data/../a.csv", {"a.csv": b"a"}),
        ({"from": "./a.csv", "to": "x/y"}, {"x/y": b"a"}),
        ({"from": "./a.csv", "to": "x/"}, {"x/a.csv": b"a"}),
        ({"from": "./a.csv", "to": "."}, {"a.csv": b"a"}),
        ("./data/deep/", {"data/deep/a.csv": b"a", "data/deep/run": b"#!"}),
        ("./data/deep", {"data/deep/a.csv": b"a", "data/deep/run": b"#!"}),
        ({"from": "./data/deep", "to": "x"}, {"x/a.csv": b"a", "x/run": b"#!"}),
        ({"from": "./data/deep", "to": "."}, {"a.csv": b"a", "run": b"#!"}),
        ("./", {"a.csv": b"a", "data/b.csv": b"b", "data/deep/a.csv": b"a", "data/deep/run": b"#!"}),
        ("../home/data/deep", {"deep/a.csv": b"a", "deep/run": b"#!"}),
    ],
)  # fmt: skip
def test_where_a_file_of_ours_goes(home: Path, given: Any, lies: dict[str, bytes]) -> None:
    """A path beneath the job's directory is kept, anything else goes under its own name; `to` says otherwise."""
    made = prepared({"command": ["x"], "inputs": [given]}, home)
    assert {to: source(data) for to, data in lies.items()} == places(made)
    assert {blake3(data).hexdigest() for data in lies.values()} == {file.digest for file in made.files}


def test_absolute_paths_and_the_home_directory_are_ours_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their own names."""
    monkeypatch.setenv("HOME", str(home))
    made = prepared({"command": ["x"], "inputs": [str(home / "a.csv"), "~/data/b.csv"]}, Path("/"))
    assert {"a.csv": source(b"a"), "b.csv": source(b"b")} == places(made)


def test_sizes_and_the_bit_of_executing_go_along_and_the_same_bytes_once(home: Path) -> None:
    """Whoever stages it knows how much is to come."""
    made = prepared({"command": ["x"], "inputs": ["./data/deep/", "./a.csv"]}, home)
    by_place = {one["to"]: one for one in made.job["inputs"]}
    assert (2, True) == (by_place["data/deep/run"]["size"], by_place["data/deep/run"]["executable"])
    assert "executable" not in by_place["a.csv"]
    assert 2 == len(made.files) and 3 == made.size


def test_every_table_is_looked_at_and_every_input_keeps_its_number(home: Path) -> None:
    """What the coordinator says of `inputs[1]` is of the one written there; a directory's other files follow."""
    job = {
        "defaults": {"inputs": ["./a.csv"]},
        "step": [
            {"name": "p", "command": ["x"], "outputs": ["*"]},
            {"name": "s", "command": ["x"], "inputs": ["./data/deep", "p:*", "artifact:tool"]},
        ],
    }
    made = prepared(job, home).job
    assert ["a.csv"] == [one["to"] for one in made["defaults"]["inputs"]]
    first, second, third, fourth = made["step"][1]["inputs"]
    assert ("data/deep/a.csv", "p:*", "data/deep/run") == (first["to"], second, fourth["to"])
    assert {"from": f"artifact:{'1' * 64}", "to": "tool", "size": 7, "executable": True} == third


def test_artifacts_are_named_by_their_digest_as_they_are_now(home: Path) -> None:
    """Under their own name, unless a place is said; what says digest and place stays as it is."""
    plain = {"from": f"artifact:blake3:{'3' * 64}", "to": "z"}
    given = [
        {"from": "artifact:tool", "to": "bin/", "executable": False},
        {"from": f"artifact:sha256:{'2' * 64}", "to": "y"},
        plain,
    ]
    first, second, third = prepared({"command": ["x"], "inputs": given}, home).job["inputs"]
    assert {"from": f"artifact:{'1' * 64}", "to": "bin/tool", "size": 7} == first
    assert {"from": f"artifact:{'1' * 64}", "to": "y", "size": 7} == second
    assert plain == third


def test_what_is_no_input_is_left_to_the_coordinator(home: Path) -> None:
    """It says what is wrong, with its place; here nothing breaks over it."""
    for odd in ("./a.csv", 7, {"x": 1}, None):
        job = {"command": ["x"], "inputs": odd, "defaults": odd, "step": odd}
        assert job == staged(job, home, look, lambda _what, _size: lambda _moved: None).job
    given: list[Any] = [7, None, {"to": "x"}, {"from": 7}, {"from": "./a.csv", "to": 7}, ["./a.csv"]]
    job = {"command": ["x"], "inputs": given}
    assert job == staged(job, home, look, lambda _what, _size: lambda _moved: None).job


def test_everything_that_cannot_be_taken_is_told_with_its_place(home: Path) -> None:
    """At once, and nothing is hashed before."""
    (home / "data" / "link").symlink_to(home / "a.csv")
    (home / "empty").mkdir()
    os.mkfifo(home / "fifo")
    job = {
        "inputs": ["./nothing", "./data", "./empty", "./fifo", "artifact:nope", f"artifact:{'1' * 64}", "./a.csv/",
                   {"from": "./a.csv", "to": "../x"}, f"artifact:blake3:{'1' * 64}"],
    }  # fmt: skip
    with pytest.raises(JobError) as caught:
        staged(job, home, look, lambda _what, _size: pytest.fail("hashed"))
    told = {part.path: part.detail for part in caught.value.problems}
    assert "cannot be read: No such file" in told["inputs[0]"]
    assert "holds a link" in told["inputs[1]"] and "link" in told["inputs[1]"]
    assert "holds no files" in told["inputs[2]"]
    assert "is no file" in told["inputs[3]"]
    assert "there is no artifact 'nope'" in told["inputs[4]"]
    assert "there is no artifact" in told["inputs[5]"]
    assert "./a.csv/ is no directory" in told["inputs[6]"]
    assert "names no file beneath" in told["inputs[7]"]
    assert "has no name of its own" in told["inputs[8]"]


def test_a_link_that_is_named_itself_is_followed(home: Path) -> None:
    """Whoever names it means what it leads to."""
    (home / "link").symlink_to(home / "a.csv")
    assert {"link": source(b"a")} == places(prepared({"command": ["x"], "inputs": ["./link"]}, home))


def test_names_that_would_be_trouble_there_are_refused_here(home: Path) -> None:
    """Control characters, and what is no text."""
    for name in (b"a\nb", b"\xff\xfe", b"\x1b[31m"):
        odd = os.fsencode(home / "data") + b"/" + name
        Path(os.fsdecode(odd)).write_bytes(b"")
        with pytest.raises(JobError, match="names no file beneath"):
            staged({"inputs": ["./data"]}, home, look, lambda _what, _size: lambda _moved: None)
        Path(os.fsdecode(odd)).unlink()


def test_a_directory_with_too_many_files_is_refused_before_it_is_hashed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is said."""
    monkeypatch.setattr(local_files, "FILES_MAX", 3)
    for i in range(3):
        (home / "data" / f"{i}").touch()
    with pytest.raises(JobError, match="more than 3 files"):
        staged({"inputs": ["./data"]}, home, look, lambda _what, _size: pytest.fail("hashed"))


EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/job.toml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_a_job_whose_files_are_there(example: Path) -> None:
    """What people copy works."""
    made = prepared(tomllib.loads(example.read_text()), example.parent)
    assert made.files


def test_there_are_examples() -> None:
    """The test above has something to look at."""
    assert EXAMPLES
