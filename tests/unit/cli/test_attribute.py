"""`coord attribute`: one file or many, packed or not, on a terminal and for programs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from cli import exits, verdicts
from cli.logfile import LogFile
from cli.main import main
from coordinator.core.verdict.rows import (
    Benign,
    Cause,
    Evidence,
    Fault,
    Incident,
    Recommendation,
    Role,
    Seen,
    Verdict,
)

OOM = b"epoch 1\nstep 3\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
WELL = b"step 1\nstep 2\nTraining finished\n"
EVIL = "\x1b[2J\x1b]0;owned\x07\u202e"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(("attribute", *argv))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_bytes(OOM)
    return path


def test_one_file_is_one_verdict(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    """In JSON the verdict is the answer itself, with the file that it is of."""
    code, out, err = run(capsys, str(log), "-o", "json")
    answer = json.loads(out)
    assert (exits.OK, "", "gpu_oom", str(log)) == (code, err, answer["cause"], answer["file"])
    assert "train.log" == answer["evidence"][0]["source"], "and no stream of an attempt"
    assert {"recommendation", "confidence", "fault", "summary", "advice", "evidence", "incidents", "progress",
            "benign", "avoid_providers"} <= answer.keys()  # fmt: skip


def test_for_people_the_line_that_it_rests_on_is_shown(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    """Recommendation and cause, then the evidence with its line."""
    code, out, _ = run(capsys, str(log))
    assert exits.OK == code and "gpu_oom" in out.splitlines()[0]
    assert any(line.startswith("evidence") and "line 3" in line and "CUDA out of memory" in line
               for line in out.splitlines())  # fmt: skip


def test_several_files_are_judged_each(capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path) -> None:
    """A block for each, an entry for each, a line for each; in the order in which they were named."""
    well = tmp_path / "well.log"
    well.write_bytes(WELL)
    _, out, _ = run(capsys, str(well), str(log))
    assert [str(well), str(log)] == [line for line in out.splitlines() if not line.startswith(" ")]
    _, out, _ = run(capsys, str(well), str(log), "-o", "json")
    assert ["ok", "gpu_oom"] == [entry["cause"] for entry in json.loads(out)["entries"]]
    _, out, _ = run(capsys, str(well), str(log), "-o", "jsonl")
    assert ["ok", "gpu_oom"] == [json.loads(line)["cause"] for line in out.splitlines()]


def test_together_they_are_one_run(capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path) -> None:
    """Evidence then says which file it stands in."""
    well = tmp_path / "well.log"
    well.write_bytes(WELL)
    _, out, _ = run(capsys, str(well), str(log), "--together", "-o", "json")
    answer = json.loads(out)
    assert "gpu_oom" == answer["cause"] and "train.log" in answer["evidence"][0]["source"]


def packed(kind: str, data: bytes) -> bytes:
    match kind:
        case "gzip":
            return gzip.compress(data)
        case "xz":
            return lzma.compress(data)
        case _:
            return bz2.compress(data)


@pytest.mark.parametrize("kind", ("gzip", "xz", "bzip2"))
def test_packed_files_are_known_by_their_first_bytes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    """Whatever they are called, and when two are appended to each other."""
    whole, halves, plain = (tmp_path / directory / "run" for directory in ("one", "two", "three"))
    for path in (whole, halves, plain):
        path.parent.mkdir()
    whole.write_bytes(packed(kind, OOM))
    halves.write_bytes(packed(kind, OOM[:30]) + packed(kind, OOM[30:]))
    plain.write_bytes(OOM)
    answers = []
    for path in (whole, halves, plain):
        code, out, err = run(capsys, str(path), "-o", "json")
        assert (exits.OK, "") == (code, err)
        answers.append({**json.loads(out), "file": ""})
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("kind", ("gzip", "xz", "bzip2"))
def test_an_archive_that_breaks_off_is_judged_as_far_as_it_goes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    """The log of a machine that died; that something is missing is said."""
    path = tmp_path / "cut"
    noise = "".join(f"line {n * 7919 % 10007} of {n}\n" for n in range(20_000)).encode()
    path.write_bytes(packed(kind, OOM + noise)[:-2_000])
    code, out, err = run(capsys, str(path), "-o", "json")
    assert exits.OK == code and "breaks off" in err
    if kind != "bzip2":  # its blocks are larger than this file
        assert "gpu_oom" == json.loads(out)["cause"]


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A hundred megabytes from a hundred kilobytes come in pieces of a bounded size."""
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(b"\0" * (100 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = [len(chunk) for chunk in LogFile(str(path)).chunks()]
    assert 100 << 20 == sum(sizes) and max(sizes) <= 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_what_is_packed_otherwise_is_refused_with_a_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """zstd is told by name, and how to go on."""
    path = tmp_path / "log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"\0" * 20)
    code, out, err = run(capsys, str(path))
    assert (65, "") == (code, out) and "zstd" in err and "coord attribute -" in err


def test_a_file_that_is_missing_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path
) -> None:
    """It is told, the status says so, and the others are judged."""
    code, out, err = run(capsys, str(tmp_path / "none"), str(log), "-o", "jsonl")
    assert 66 == code and "none" in err and "gpu_oom" == json.loads(out)["cause"]


def test_standard_input_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """By -, and where nothing is named and something is piped in."""
    for argv in (("-",), ()):
        with log.open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            code, out, _ = run(capsys, *argv, "-o", "json")
        assert (exits.OK, "gpu_oom") == (code, json.loads(out)["cause"])


@pytest.mark.parametrize(("argv", "said"), [
    (("--signal", "NOPE", "x"), "is no signal"),
    (("--exit-code", "256", "x"), "256"),
    (("-", "-"), "once"),
])  # fmt: skip
def test_a_wrong_command_line_is_told(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str) -> None:
    """Status 2, and what is wrong."""
    code, _, err = run(capsys, *argv)
    assert exits.USAGE == code and said in err


@pytest.mark.parametrize("spelled", ("9", "KILL", "sigkill"))
def test_how_it_ended_is_evidence(capsys: pytest.CaptureFixture[str], tmp_path: Path, spelled: str) -> None:
    """A log without a word of it, and SIGKILL: the end itself is the evidence; 137 is the same."""
    path = tmp_path / "log"
    path.write_bytes(b"step 1\nstep 2\n")
    answers = []
    for argv in (("--signal", spelled), ("--exit-code", "137")):
        _, out, _ = run(capsys, str(path), *argv, "-o", "json")
        answers.append(json.loads(out))
    assert answers[0] == answers[1] and "ok" != answers[0]["cause"]


def test_signatures_of_ones_own_come_first(capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path) -> None:
    """A row that knows the line better than the table does; a bad row is told with its line."""
    head = "id\tcause\trole\taction_first\taction_repeat\tpattern\texample\tnote\n"
    rows = tmp_path / "rows.tsv"
    line = "Tried to allocate 2.00 GiB"
    rows.write_text(head + f"ours\tquota\troot\tSTOP\tSTOP\tTried to allocate 2.00 GiB\t{line}\tours\n")
    _, out, _ = run(capsys, str(log), "--signatures", str(rows), "-o", "json")
    assert ("quota", "STOP") == (json.loads(out)["cause"], json.loads(out)["recommendation"])
    rows.write_text(head + "ours\tnonsense\n")
    code, _, err = run(capsys, str(log), "--signatures", str(rows))
    assert 78 == code and "2" in err


def a_verdict(text: str) -> Verdict:
    evidence = Evidence(role=Role.ROOT, signature="x", text=text, offset=0, line=1, source=text)
    incident = Incident(cause=Cause.USER_CODE, role=Role.CASCADE, signature=text, count=2, first_offset=0,
                        first_line=3, last_line=4, ranks=(1, 2))  # fmt: skip
    return Verdict(
        cause=Cause.USER_CODE, fault=Fault.JOB, recommendation=Recommendation.STOP, confidence=0.9, summary=text,
        advice=text, avoid_providers=(text,), evidence=(evidence,), incidents=(incident,),
        progress=Seen(lines=10, steps=3, first_step=1, last_step=3, checkpoints=1, restored=True, finished=True),
        benign=(Benign(signature="b", why=text, count=1, text=text, first_line=1),),
    )  # fmt: skip


def test_nothing_of_a_log_reaches_the_terminal_as_it_is() -> None:
    """Escapes, titles and reordering characters in every text of a verdict are shown, not obeyed."""
    out = io.StringIO()
    verdicts.print_verdict(a_verdict(EVIL), title=EVIL, out=out)
    assert not any(character in out.getvalue() for character in EVIL if not character.isprintable())
    assert out.getvalue().count("\\x1b[2J") >= 8


def test_all_that_a_verdict_says_is_shown() -> None:
    """Fault, what to do, providers to avoid, evidence, incidents, progress and what is harmless."""
    out = io.StringIO()
    verdicts.print_verdict(a_verdict("words"), out=out)
    text = out.getvalue()
    for said in ("STOP", "user_code", "the job's own fault", "0.90", "to do", "suspect", "root, words line 1, x",
                 "2 x words (user_code) on rank 1, 2 from line 3", "steps 1 to 3", "1 checkpoint saved",
                 "resumed from a checkpoint", "it said that it was through", "harmless"):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize(("seen", "said"), [
    (Seen(lines=1), "1 line"),
    (Seen(lines=1_200, steps=1, first_step=1, last_step=1), "1,200 lines, step 1"),
    (Seen(lines=2, steps=2, first_step=1, last_step=2), "2 lines, steps 1 to 2"),
    (Seen(lines=0, steps=1), "0 lines, 1 step"),
    (Seen(lines=3, steps=2, checkpoints=2), "3 lines, 2 steps, 2 checkpoints saved"),
])  # fmt: skip
def test_how_far_it_came_is_told_in_the_right_number(seen: Seen, said: str) -> None:
    """One line, one step; several of them."""
    out = io.StringIO()
    verdicts.print_verdict(replace(a_verdict("words"), progress=seen), out=out)
    assert f"progress  {said}" in out.getvalue().splitlines()


def test_only_what_is_left_is_called_avoided() -> None:
    """A restart may go anywhere: whom it names is under suspicion, no more."""
    for recommendation, label in ((Recommendation.RESTART_ELSEWHERE, "avoid"), (Recommendation.RESTART, "suspect")):
        out = io.StringIO()
        verdict = replace(a_verdict("words"), recommendation=recommendation, avoid_providers=("alpha",))
        verdicts.print_verdict(verdict, out=out)
        assert f"{label:<10}alpha" in out.getvalue().splitlines()
