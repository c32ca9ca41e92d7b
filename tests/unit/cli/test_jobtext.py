"""Job files are read here: TOML, JSON, lines, environments; a mistake is told with its place."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from cli.jobtext import environment_of, lines_of, located, read_job
from coordinator.core.errors import Code, CoordError
from coordinator.jobfile import JobError, parse_job


def refusal(name: str) -> CoordError:
    with pytest.raises(CoordError) as refused:
        read_job(name)
    return refused.value


def test_a_command_in_the_place_of_a_file_is_told_where_commands_stand() -> None:
    """`coord submit ls`; a name that is no command either is taken for a file's."""
    assert refusal("ls").hint == "a command stands behind --: coord submit -- ls"
    assert refusal("nosuch.toml").hint == "name the file of a job, or - for stdin"


def test_toml_and_json_are_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "x"\ncommand = ["true"]\n')
    (tmp_path / "a.json").write_text('{"name": "x", "command": ["true"]}')
    assert read_job(str(tmp_path / "a.toml")).body == read_job(str(tmp_path / "a.json")).body


def test_a_job_on_stdin_is_json_where_it_begins_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (b'  {"command": ["true"]}', b'command = ["true"]'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert read_job("-").body == {"command": ["true"]}


def test_toml_that_is_none_is_told_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "x"\ncommand = [maybe]\n')
    refused = refusal(str(tmp_path / "a.toml"))
    assert refused.code is Code.BAD_JOB and "line 2" in refused.message and "column" in refused.message


@pytest.mark.parametrize(
    ("text", "said"), [("{", "line 1, column 2"), ("[1]", "a list"), ("3", "a number"), ("[" * 100_000, "too deep")]
)
def test_json_that_is_no_job_says_what_it_is(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    refused = refusal(str(tmp_path / "a.json"))
    assert refused.code is Code.BAD_JOB and said in refused.message


def test_a_file_that_is_not_there_or_is_no_text_is_told(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "none.toml")).code is Code.NOT_FOUND
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(str(tmp_path / "a.toml")).message


def test_an_array_of_lines_is_read_from_beside_the_job(tmp_path: Path) -> None:
    """In a step too; the coordinator never sees the file's name."""
    (tmp_path / "lines.txt").write_text("a.csv\r\n\n b.csv \n")
    (tmp_path / "a.toml").write_text(
        '[[step]]\nname = "s"\ncommand = ["cat", "{item}"]\narray = { file = "lines.txt" }\n'
    )
    assert read_job(str(tmp_path / "a.toml")).body["step"][0]["array"] == ["a.csv", " b.csv "]


def test_an_array_that_is_a_strange_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('command = ["true"]\narray = { file = 3 }\n')
    assert "array" in refusal(str(tmp_path / "a.toml")).message


def test_a_file_without_lines_makes_no_array(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(CoordError, match="has no lines"):
        lines_of(str(tmp_path / "empty"))


def test_an_environment_is_taken_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# keys\nA=1\n\nexport B = x=y \nC=\n")
    assert environment_of(str(tmp_path / "env")) == {"A": "1", "B": " x=y ", "C": ""}
    (tmp_path / "env").write_text("A=1\nnothing\n")
    with pytest.raises(CoordError, match="line 2"):
        environment_of(str(tmp_path / "env"))


def test_each_problem_of_a_job_is_told_with_its_line(tmp_path: Path) -> None:
    """What the coordinator refuses by path is found in the text."""
    text = 'name = "n"\n\n[[step]]\nname = "a"\ncommand = ["true"]\nneed = ["b"]\nresources = { cpu = 2 }\n'
    (tmp_path / "a.toml").write_text(text)
    told = read_job(str(tmp_path / "a.toml"))
    with pytest.raises(JobError) as refused:
        parse_job(told.body, now_ms=0)
    lines = located(refused.value.message, told).splitlines()
    assert any(f"{told.name}:6: step[0].need" in line and "needs" in line for line in lines)
    assert any(f"{told.name}:7: step[0].resources.cpu" in line and "cpus" in line for line in lines)
