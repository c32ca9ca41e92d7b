"""`coord trace` on files of every kind, where no coordinator is."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli.main import main

TRACE = "0123456789abcdef0123456789abcdef"
VIEWS = ("rich", "critical-path", "cp", "end-to-end", "e2e", "queuing", "lineage", "gantt")


def a_row(span: int, name: str, start_s: float, end_s: float, task: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{span:016x}"},
        "parent_id": None,
        "start_time": f"2026-04-29T00:00:{start_s:09.6f}Z",
        "end_time": f"2026-04-29T00:00:{end_s:09.6f}Z",
        "status": {"status_code": "OK"},
        "attributes": {"data_id": task, "flowmesh.type": "compute", "worker.id": "w1"},
        **more,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two tasks, the second made from the first."""
    place = tmp_path_factory.mktemp("run")
    rows = [a_row(1, "task", 0, 4, "a"), a_row(2, "task", 5, 9, "b")]
    (place / "spans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "assets.jsonl").write_text("")
    edge = {"data_id": "b", "source_data_id": "a", "created_at": "2026-04-29T00:00:09Z"}
    (place / "lineage.jsonl").write_text(json.dumps(edge) + "\n")
    return place


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Coord = Callable[..., Done]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Coord:
    """Commands in this process, with a data directory in which nothing is."""
    for name in ("COORD_URL", "COORD_TOKEN", "COORD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COORD_DATA", str(tmp_path / "nowhere"))

    def run(*argv: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(argv)
        out, err = capsysbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return run


@pytest.mark.parametrize("view", VIEWS)
def test_a_directory_is_analysed_in_every_view(offline: Coord, run: Path, view: str) -> None:
    """Without a coordinator."""
    done = offline("trace", "analyze", str(run), "-f", view)
    assert done.code == 0, done.err
    assert "9 s" in done.out or view in ("queuing", "lineage")
    assert "\x1b" not in done.out


def test_json_is_the_profile(offline: Coord, run: Path) -> None:
    """Segments tile the run."""
    profile = offline("trace", "analyze", str(run), "-f", "json").json()
    path = profile["real_critical_path"]
    assert sum(one["end_ns"] - one["start_ns"] for one in path["segments"]) == path["makespan_ns"] == 9 * 10**9
    assert profile["critical_path"]["path"] == ["a", "b"]


def test_files_standard_input_and_packed_ones_are_one(offline: Coord, run: Path, tmp_path: Path) -> None:
    """The same spans by each way, twice or in parts: the same profile."""
    spans = (run / "spans.jsonl").read_bytes()
    packed = tmp_path / "spans.jsonl.gz"
    packed.write_bytes(gzip.compress(spans))
    halves = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for half, line in zip(halves, spans.splitlines(keepends=True), strict=True):
        half.write_bytes(line)
    lineage = str(run / "lineage.jsonl")
    ways = (
        offline("trace", "analyze", str(run), "-f", "json"),
        offline("trace", "analyze", str(packed), lineage, "-f", "json"),
        offline("trace", "analyze", str(halves[1]), str(halves[0]), lineage, "-f", "json"),
        offline("trace", "analyze", "-", lineage, "-f", "json", stdin=spans),
    )
    paths = [way.json()["real_critical_path"] for way in ways]
    assert all(path == paths[0] for path in paths[1:])


def test_bad_rows_are_told_and_the_rest_is_shown(offline: Coord, run: Path, tmp_path: Path) -> None:
    """On stderr, with the line; nothing at all is an error of its own."""
    broken = tmp_path / "spans.jsonl"
    broken.write_bytes((run / "spans.jsonl").read_bytes() + b"{not json\n")
    done = offline("trace", "analyze", str(broken))
    assert done.code == 0
    assert f"1 row could not be read; the first: {broken}, line 3" in done.err
    broken.write_bytes(b"{not json\n")
    done = offline("trace", "analyze", str(broken))
    assert (done.code, done.out) == (65, "")
    assert "no span is in -: -, line 1: " in offline("trace", "analyze", "-", stdin=b"{not json\n").err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("analyze", "no-such-file"), 66, "there is no no-such-file"),
        (("analyze", "12", "spans.jsonl"), 2, "it cannot be joined"),
        (("analyze", "12"), 69, "no coordinator"),
        (("analyze",), 2, "Missing argument"),
        (("export", "x"), 2, "say one"),
        (("export", "x", "--html", "--otlp", "y"), 2, "say one"),
        (("export", "x", "--html", "--folded"), 2, "say one"),
        (("export", "x", "--otlp", "http://u:secret@h"), 2, "is not the address of a collector"),
        (("analyze", "-", "-"), 2, "it can be read once"),
    ],
)
def test_what_cannot_be_done_is_said(offline: Coord, argv: tuple[str, ...], code: int, said: str) -> None:
    """With an exit status, and nothing on stdout."""
    done = offline("trace", *argv)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "secret" not in done.err


def test_a_replay_tells_its_error(offline: Coord, run: Path) -> None:
    """What if a task cost nothing; a task that is not there is refused."""
    done = offline("trace", "analyze", str(run), "--without", "a", "--slots", "2")
    assert done.code == 0, done.err
    assert re.search(r"on 2 slots instead of 1 and if a cost nothing: \S+ s \(", done.out)
    assert "error of that" in done.out
    answer = offline("trace", "analyze", str(run), "--without", "a", "-f", "json").json()
    assert answer["predicted_ns"] < answer["recorded_ns"]
    assert offline("trace", "analyze", str(run), "--without", "nobody").code == 2


def test_two_runs_are_compared(offline: Coord, run: Path, tmp_path: Path) -> None:
    """The differences of the kinds sum to the whole's."""
    rows = [a_row(1, "task", 0, 7, "a"), a_row(2, "task", 8, 12, "b")]
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = offline("trace", "compare", str(run), str(tmp_path))
    assert done.code == 0, done.err
    assert "B took 3 s longer, 33.3 %" in done.out
    answer = offline("trace", "compare", str(run), str(tmp_path), "-f", "json").json()
    assert sum(kind["delta_ns"] for kind in answer["kinds"]) == answer["delta_ns"] == 3 * 10**9


@pytest.mark.parametrize("form", ["perfetto", "jaeger", "html", "folded"])
def test_exports_go_to_a_file_or_to_a_pipe(offline: Coord, run: Path, tmp_path: Path, form: str) -> None:
    """The same bytes; a file is there as a whole, and a place that is none is said."""
    to = tmp_path / "out"
    piped = offline("trace", "export", str(run), f"--{form}")
    assert piped.code == 0, piped.err
    filed = offline("trace", "export", str(run), f"--{form}", "--to", str(to))
    assert (filed.code, filed.out) == (0, "")
    assert to.read_text() == piped.out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    nowhere = offline("trace", "export", str(run), f"--{form}", "--to", str(tmp_path / "no" / "out"))
    assert nowhere.code == 2 and "cannot be written" in nowhere.err


def test_what_is_no_plain_file_is_written_to_and_not_replaced(offline: Coord, run: Path, tmp_path: Path) -> None:
    """A pipe stays one, a link too; nothing is left beside them."""
    pipe, file, link = tmp_path / "pipe", tmp_path / "file", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(file)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    for to in (pipe, link):
        assert 0 == offline("trace", "export", str(run), "--jaeger", "--to", str(to)).code
    reader.join(60)
    assert pipe.is_fifo() and link.is_symlink()
    assert read == [file.read_bytes()]
    assert {"pipe", "file", "link"} == {one.name for one in tmp_path.iterdir()}
