"""Data on the command line: what flags mean, what is shown of inputs, results and checkpoints, and how bytes move."""

from __future__ import annotations

import io
import logging
import os
import pty
import select
import time
from pathlib import Path
from typing import Any, cast

import click
import pytest
from msgspec.structs import replace

from cli import completion, jobdata
from cli.artifacts import print_artifacts, print_details, where
from cli.data_flags import checkpoint_of, inputs_of
from cli.inside import said_by
from cli.jobids import Named
from cli.jobs import print_jobs
from cli.jobview import print_job, print_tasks
from cli.moving import Moving, drawn, round_size
from cli.standing import share, told
from cli.transfers import print_transfers
from cli.usage import print_ledger, print_sums, print_usage
from coordinator.api_types.data import (
    ArtifactDetails,
    ArtifactEntry,
    Artifacts,
    CheckpointEntry,
    DataFile,
    InputEntry,
    JobData,
    StepInputs,
    TaskData,
    TenantTransfers,
    TransfersAnswer,
)
from coordinator.api_types.tenants import Ledger, UsageBy, UsageLine, Usages
from coordinator.api_types.work import Counts, JobDetails, Jobs, ProgressEntry, StepEntry, Tasks
from coordinator.client import Client
from coordinator.client.hashing import digest_of
from coordinator.core.errors import Code, CoordError
from coordinator.timetext import to_text
from tests.unit.cli.jobs import AT, a_job, a_task, an_attempt
from tests.unit.cli.tenants import a_charge, a_dimension, a_usage

HEX = "4f1c" * 16
GIB = 1 << 30


def soon(seconds: int) -> str:
    """A moment that is so far ahead."""
    return to_text(int((time.time() + seconds) * 1_000))


# ---- flags


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("here.csv", {"from": "./here.csv"}),
        ("./here.csv", {"from": "./here.csv"}),
        ("/abs/x", {"from": "/abs/x"}),
        ("~/x", {"from": "~/x"}),
        ("nothing.csv:data/in.csv", {"from": "./nothing.csv", "to": "data/in.csv"}),
        ("colon:here", {"from": "./colon:here"}),
        ("colon:here:there", {"from": "./colon:here", "to": "there"}),
        ("artifact:model.pt", {"from": "artifact:model.pt"}),
        ("artifact:model.pt:in/m", {"from": "artifact:model.pt", "to": "in/m"}),
        ("artifact:blake3:12ab", {"from": "artifact:blake3:12ab"}),
        (f"artifact:blake3:{HEX}", {"from": f"artifact:blake3:{HEX}"}),
        (f"artifact:sha256:{HEX}:m", {"from": f"artifact:sha256:{HEX}", "to": "m"}),
    ],
)
def test_an_input_is_a_file_or_an_artifact_and_where_it_goes(
    text: str, meant: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there is meant as it is called, colons and all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").touch()
    (tmp_path / "colon:here").touch()
    assert [meant] == inputs_of((text,))


def test_the_rule_of_checkpoints_has_short_forms() -> None:
    """A length, a word, or its parts; anything else is told."""
    assert {"every": "10m"} == checkpoint_of("10m")
    assert {"every": "auto"} == checkpoint_of("auto")
    assert {} == checkpoint_of("on") and checkpoint_of(None) is None
    assert {"path": "c", "keep": 3} == checkpoint_of("path=c,keep=3")
    for wrong in ("every=1m,evry=2m", "path=c,", "keep=1,keep=2", "=3"):
        with pytest.raises(CoordError, match="is none of its parts"):
            checkpoint_of(wrong)


def test_progress_is_a_share_values_and_words_however_they_are_quoted() -> None:
    """As a line in a log says it; a number that is no share is a slip, not a word."""
    assert (0.4, {"step": "1200", "loss": "0.31"}, "third epoch") == said_by(
        ("0.4", "step=1200", "loss=0.31", "third epoch")
    )
    assert (0.4, {}, "") == said_by(("40%",))
    assert (None, {"step": "3"}, "0.5") == said_by(("step=3 0.5",))
    assert (None, {}, "reading the data") == said_by(("reading the data",))
    for wrong in ("1.5", "101%", "inf", "nan"):
        with pytest.raises(click.UsageError, match="is no share"):
            said_by((wrong,))
    with pytest.raises(click.UsageError, match="17 values"):
        said_by(tuple(f"v{i}=1" for i in range(17)))


def test_where_an_artifact_is_fetched_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, into a directory, or as a file."""
    monkeypatch.chdir(tmp_path)
    assert (Path(), None) == where(None)
    assert (tmp_path, None) == where(str(tmp_path))
    assert (Path("new"), None) == where("new/")
    assert (Path("new"), "file") == where("new/file")
    with pytest.raises(CoordError, match="is no place for a file"):
        where("nowhere/..")
    with pytest.raises(CoordError, match="stdout is no place"):
        where("-")


def test_a_directory_is_no_artifact_and_the_refusal_says_what_takes_one(tmp_path: Path) -> None:
    with pytest.raises(CoordError) as refused:
        digest_of(tmp_path, lambda _moved: None)
    assert "Is a directory" in refused.value.message and "--input DIR" in refused.value.hint


# ---- bytes on their way


def test_a_bar_says_how_much_how_fast_and_how_long() -> None:
    """And that the coordinator's turn has come when all was sent."""
    line = drawn("uploading", GIB, 4 * GIB, 10.0)
    assert "uploading [########......................]  25 %  1 GiB of 4 GiB, 102 MiB/s, 30s left" == line
    assert drawn("uploading", GIB, GIB, 10.0).endswith("1 GiB of 1 GiB, 102 MiB/s, waiting for the coordinator")
    assert "100 %  0 B of 0 B" in drawn("hashing", 0, 0, 0.0) or "  0 %  0 B of 0 B" in drawn("hashing", 0, 0, 0.0)
    assert ["999 B", "1 KiB", "1.46 KiB", "1000 MiB"] == [round_size(n) for n in (999, 1024, 1500, 1000 << 20)]


def test_on_a_terminal_a_bar_is_drawn_and_cleared_and_elsewhere_a_line_is_written() -> None:
    """Nothing is left on the screen; a log has a line for what takes a while, and none for what does not."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as screen, Moving(screen) as moving:
        moved = moving.begin("hashing", 2 * GIB)
        moved(GIB)
        moved(GIB)
        moving.begin("uploading", GIB)(GIB)
    seen = b""
    while select.select([master], [], [], 0)[0]:
        try:
            seen += os.read(master, 65_536)
        except OSError:
            break
    os.close(master)
    assert b"hashing [" in seen and b"100 %" in seen and seen.endswith(b"\r\x1b[K")
    out = io.StringIO()
    with Moving(out) as moving:
        moving.begin("hashing", GIB)(GIB)
        moving.begin("uploading", 100)(100)
    assert "hashing 1 GiB\n" == out.getvalue()


def test_what_is_waited_for_is_said_once_and_a_transfer_that_breaks_off_how_it_goes_on() -> None:
    """A full disk over there is no bar that stands still without a word."""
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Moving(out) as moving:
        moving.begin("fetching", 100)(50)
        for _ in range(2):
            logging.getLogger("coord.client").warning("its disk is full\x1b[31m")
        raise KeyboardInterrupt
    first, second = out.getvalue().splitlines()
    assert "its disk is full\\x1b[31m" == first and "the same command goes on" in second


# ---- what is shown


class Known:
    """Stands where a client's `jobs` and `artifacts` do, for what only looks."""

    def __init__(self, data: JobData, *steps: tuple[str, int]) -> None:
        self._data = data
        self._steps = steps
        self.fetched: list[tuple[str, str, str]] = []

    def data(self, job_id: int, *, step: int | None = None, limit: int = 100, page: str | None = None) -> JobData:
        return self._data

    def show(self, job_id: int) -> JobDetails:
        steps = tuple(
            StepEntry(
                step=i, name=name, state="completed", reason="", needs=(), when="succeeded", nodes=1,
                counts=Counts(tasks=tasks, waiting=0, running=0, completed=tasks, failed=0, cancelled=0),
            )
            for i, (name, tasks) in enumerate(self._steps)
        )  # fmt: skip
        return JobDetails(job=a_job(), deadline=None, steps=steps, tasks=())

    def get_output(self, job_id: int, task: str, file: DataFile, root: Path, path: str, **_: object) -> bool:
        self.fetched.append((task, file.path, path))
        return True


def looking(known: Known) -> Client:
    made = Client("http://127.0.0.1:9", "x")
    made.jobs = cast("Any", known)
    return made


def a_file(path: str, size: int = 2_048) -> DataFile:
    return DataFile(path=path, digest=HEX, size=size, executable=False)


def a_checkpoint(number: int, **changes: Any) -> CheckpointEntry:
    fields: dict[str, Any] = {
        "number": number, "attempt": 2, "taken_at": AT, "published_at": AT, "manifest": HEX, "files": 3,
        "size": 5 << 20, "sent": 1 << 20, "cost_ms": 1_200, "label": f"step={number}", "damaged": "", "kept": True,
    }  # fmt: skip
    return CheckpointEntry(**(fields | changes))


def made_by(task: str, step: str, *files: DataFile, checkpoints: tuple[CheckpointEntry, ...] = ()) -> TaskData:
    return TaskData(
        task=task, step=step, attempt=1, published_at=AT, outputs=files, size=sum(file.size for file in files),
        checkpoints=checkpoints,
    )  # fmt: skip


DATA = JobData(
    inputs=(
        StepInputs(
            step=1, name="train", outputs=("*.pt",), inputs=(
                InputEntry(path="conf.yaml", digest=HEX, size=10, executable=False, from_step=None, pattern=None),
                InputEntry(path="", digest=None, size=None, executable=False, from_step="prep", pattern="*.csv"),
            ),
        ),
    ),
    entries=(
        made_by("12.0.0", "prep", a_file("clean.csv"), a_file("notes/\x1b[31m.txt")),
        made_by("12.1.0", "train", a_file("model.pt"), checkpoints=(
            a_checkpoint(7), a_checkpoint(6, damaged="a blob is gone"), a_checkpoint(5, kept=False),
        )),
        made_by("12.1.1", "train", a_file("model.pt")),
    ),
)  # fmt: skip


def test_a_job_is_shown_with_its_inputs_results_and_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes and digests; what is damaged says so, and names are harmless."""
    jobdata.print_data(looking(Known(DATA)), 12, "table")
    out = capsys.readouterr().out
    tables = [[line.split() for line in table.splitlines()] for table in out.strip().split("\n\n")]
    assert ["conf.yaml", "train", "10", "B", HEX[:12], "stored"] in tables[0]
    assert [".", "train", "-", "-", "prep:*.csv"] in tables[0]
    assert ["model.pt", "12.1.0", "train", "2", "KiB", HEX[:12]] == tables[1][3][:6]
    assert ["12.1.0.7", "12.1.0.6", "12.1.0.5"] == [row[0] for row in tables[2][1:]]
    assert ["kept", "gone", "gone"] == [row[-1] for row in tables[2][1:]]
    assert "damaged: a blob is gone" in out and "step=7" in out
    assert "\x1b" not in out and "\\x1b[31m" in out


def test_of_one_task_its_own_data_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The others' is not."""
    jobdata.print_data(looking(Known(DATA)), 12, "table", "12.1.1")
    out = capsys.readouterr().out
    assert "12.1.1" in out and "12.1.0" not in out and "conf.yaml" not in out


def test_results_are_listed_and_picked_by_task_and_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    """`-o name` is paths alone, a digest with `-o wide` all of it; a task that is none is no empty one."""
    client = looking(Known(DATA, ("prep", 1), ("train", 2)))
    jobdata.print_outputs(jobdata.outputs_of(client, Named(12), None), "table")
    assert "4 files, 8 KiB" in capsys.readouterr().err
    jobdata.print_outputs(jobdata.outputs_of(client, Named(12), None), "wide")
    assert HEX in capsys.readouterr().out
    assert ["12.1.1"] == [one.task for one in jobdata.outputs_of(client, Named(12, 1, 1), None).entries]
    jobdata.print_outputs(jobdata.outputs_of(client, Named(12), "**/*.txt"), "name")
    assert ["notes/\\x1b[31m.txt"] == capsys.readouterr().out.splitlines()
    with pytest.raises(CoordError, match="names no file beneath"):
        jobdata.outputs_of(client, Named(12), "../*")
    jobdata.print_outputs(jobdata.outputs_of(client, Named(12), "*.png"), "table", picked=True)
    assert "--match '**/*.png'" in capsys.readouterr().err
    with pytest.raises(CoordError, match=r"has no task 9\.9"):
        jobdata.outputs_of(client, Named(12, 9, 9), None)
    jobdata.print_outputs(JobData(inputs=(), entries=()), "table")
    assert "declares no outputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "places"),
    [
        ((("train", 1),), ["clean.csv", "notes/x", "model.pt", "model.pt"]),
        ((("prep", 1), ("train", 2)), ["prep/clean.csv", "prep/notes/x", "train/0/model.pt", "train/1/model.pt"]),
        ((("train", 2),), ["clean.csv", "notes/x", "0/model.pt", "1/model.pt"]),
    ],
)
def test_results_of_several_steps_and_tasks_lie_in_directories_of_their_own(
    steps: tuple[tuple[str, int], ...], places: list[str], tmp_path: Path
) -> None:
    """As the job says, not as many as there happen to be."""
    entries = (made_by("12.0.0", "prep", a_file("clean.csv"), a_file("notes/x")), *DATA.entries[1:])
    known = Known(JobData(inputs=(), entries=entries), *steps)
    client = looking(known)
    jobdata.fetch_outputs(client, 12, jobdata.outputs_of(client, Named(12), None), tmp_path, force=False)
    assert places == [path for _, _, path in known.fetched]
    assert ["0.0", "0.0", "1.0", "1.1"] == [task for task, _, _ in known.fetched]


def test_where_nothing_can_be_fetched_it_is_said_whether_it_is_not_declared_not_yet_there_or_not_picked(
    tmp_path: Path,
) -> None:
    """An error each: a script that fetches is not told that it has what it asked for."""
    declared = DATA.inputs
    assert any(one.outputs for one in declared)
    for inputs, picked, why in (
        ((), False, "declares no outputs"),
        (declared, False, "yet"),
        (declared, True, "--match"),
    ):
        with pytest.raises(CoordError, match="job 12: nothing to fetch") as refused:
            empty = JobData(inputs=inputs, entries=())
            jobdata.fetch_outputs(looking(Known(empty)), 12, empty, tmp_path, force=False, picked=picked)
        assert refused.value.code is Code.NOT_FOUND and why in refused.value.hint


def test_progress_is_shown_with_its_age_where_somebody_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    """In lists and beside attempts; a job that says nothing has no column for it."""
    print_jobs(Jobs(entries=(a_job(progress=0.999), a_job(13))), "table")
    out = capsys.readouterr().out
    assert "PROGRESS" in out and "99 %" in out and "ENDS" in out
    print_jobs(Jobs(entries=(a_job(progress=0.5, eta=soon(630)),)), "wide")
    out = capsys.readouterr().out
    assert "EXPECTED TO END" in out and "in 10m" in out
    print_jobs(Jobs(entries=(a_job(),)), "table")
    assert "PROGRESS" not in capsys.readouterr().out
    last = ProgressEntry(at=AT, fraction=0.4, values={"step": "1200"}, text="\x1b[31mred")
    run = an_attempt(2, progress=last, restored=7)
    assert told(run).startswith("40 %, step=1200, ") and told(run).endswith(" ago)") and "-" == share(None)
    print_tasks(Tasks(entries=(a_task(an_attempt(state="lost", lost_ms=90_000), run),)), "wide")
    out = capsys.readouterr().out
    assert "RESUMED FROM CHECKPOINT" in out and "WORK LOST" in out and "1m 30s" in out and "\x1b" not in out
    print_tasks(Tasks(entries=(a_task(an_attempt()),)), "wide")
    out = capsys.readouterr().out
    assert not {"PROGRESS", "LOST", "ENDS", "SAVED"} & set(out.split())
    runs = an_attempt(2, progress=last, eta=soon(3_630), saved_ms=754_000)
    print_tasks(Tasks(entries=(a_task(an_attempt(state="lost", lost_ms=90_000, saved_ms=61_000), runs),)), "table")
    out = capsys.readouterr().out
    assert "ENDS" in out and "in 1h" in out and "SAVED" in out and "12m 34s" in out and "1m 1s" in out
    print_job(JobDetails(job=a_job(progress=0.5, eta=soon(600)), deadline=None, steps=(), tasks=()), "table")
    assert "should end" in capsys.readouterr().out


def test_an_artifact_is_shown_with_who_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    """In words; one that nobody keeps says so."""
    named = ArtifactEntry(name="m.pt", tenant="lab", digest=HEX, size=GIB, created_at=AT, by="token:1", executable=True)
    holders = ("artifact:m.pt", "job:12", "task:12.0.3", "checkpoint:12.0.3.7")
    answer = ArtifactDetails(
        tenant="lab", digest=HEX, size=GIB, stored_at=AT, sha256="5" * 64, artifact=named, held_by=holders
    )
    print_details(answer, "table")
    out = capsys.readouterr().out
    assert "artifact m.pt, job 12 (input), task 12.0.3 (output), checkpoint 12.0.3.7" in out
    assert HEX in out and "1 GiB (1073741824 bytes)" in out and "sha256" in out
    print_details(answer, "name")
    assert "m.pt\n" == capsys.readouterr().out

    class Listed:
        def list(self, **_: object) -> Artifacts:
            return Artifacts(entries=(named,))

    client = Client("http://127.0.0.1:9", "x")
    client.artifacts = cast("Any", Listed())
    print_artifacts(client, None, None, 100, "table")
    assert ["m.pt", "1", "GiB"] == capsys.readouterr().out.splitlines()[1].split()[:3]


def test_usage_has_bytes_where_any_were_moved_or_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """A fleet that moves none has no columns for them."""
    plain = (a_usage(a_dimension("cpus")), a_usage(a_dimension("cpus"), tenant="lab"))
    print_usage(Usages(entries=plain), "table")
    assert "STORAGE" not in capsys.readouterr().out
    moved = a_usage(a_dimension("storage", used=3 * GIB, limit=10 * GIB), a_dimension("egress", used=5), tenant="lab")
    print_usage(Usages(entries=(plain[0], moved)), "table")
    head, _, line = capsys.readouterr().out.splitlines()
    assert "STORAGE" in head and "OUT" in head.split() and "IN" not in head.split()
    assert "3 GiB/10 GiB" in line and line.split()[-2:] == ["5", "B"]


def test_charges_of_bytes_are_told_as_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """One by one and summed; what ran has no columns for them."""
    moved = a_charge(2, kind="egress", amount=3 * GIB, attempt="", cost=0, cost_text="0")
    kept = a_charge(3, kind="storage", amount=7_200_000, attempt="", cost=0, cost_text="0")
    print_ledger(Ledger(entries=(kept, moved, a_charge())), "table")
    _, first, second, third = capsys.readouterr().out.splitlines()
    assert "storage of 2 GB hours" in first and "egress of 3 GiB" in second and "12.0.0.1" in third
    line = UsageLine(key="2026-11-22", cost=0, cost_text="0", ran_ms=0, cpu_ms=0, gpu_ms=0, charges=0)
    sums = UsageBy(by="day", tenant=None, month=None, entries=(line,))
    print_sums(sums, "table")
    assert "GB HOURS" not in capsys.readouterr().out
    print_sums(replace(sums, entries=(replace(line, ingress=GIB, storage_mb_s=1_800_000),)), "table")
    assert ["1", "GiB", "0", "B", "0.500"] == capsys.readouterr().out.splitlines()[1].split()[-5:]


def test_transfers_say_what_is_held_back_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The breaker in words."""
    answer = TransfersAnswer(
        state="open", why="the spill area is full", opened=2, under_way=3, refused=4, spilled_bytes=1 << 20,
        spill_bytes_max=4 << 20, waiting_in_bytes=5 << 20, waiting_out_bytes=0, ingress_bytes_per_s=100 << 20,
        egress_bytes_per_s=0, ingress_bytes=GIB, egress_bytes=0,
        entries=(TenantTransfers(tenant="lab", under_way=3, uploads_open=2, uploads_bytes=GIB),),
    )  # fmt: skip
    print_transfers(answer, "table")
    out = capsys.readouterr().out
    assert "NO transfer is let in: the spill area is full" in out
    assert "1 GiB since its start, at most 100 MiB/s, 5 MiB wait" in out and "1 MiB of 4 MiB" in out
    assert ["lab", "3", "2", "1", "GiB"] == out.splitlines()[-1].split()


def test_names_of_artifacts_are_completed_and_files_are_left_to_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind `artifact:` names of what is stored; nothing is asked for patterns."""
    asked: list[str] = []

    class Listed:
        def list(self, *, name: str, limit: int) -> Artifacts:
            asked.append(name)
            entry = ArtifactEntry(
                name="model.pt", tenant="lab", digest=HEX, size=1, created_at=AT, by="token:1", executable=False
            )
            return Artifacts(entries=(entry,))

    def quick(_: click.Context) -> Client:
        client = Client("http://127.0.0.1:9", "x")
        client.artifacts = cast("Any", Listed())
        return client

    monkeypatch.setattr(completion, "quick_client", quick)
    context, param = click.Context(click.Command("x")), click.Option(["--x"])
    assert ["model.pt"] == [one.value for one in completion.live_artifacts(context, param, "mo")]
    assert ["artifact:model.pt"] == [one.value for one in completion.files_or_artifacts(context, param, "artifact:mo")]
    assert ["mo*", "mo*"] == asked
    assert [] == completion.live_artifacts(context, param, "mo*") and ["mo*", "mo*"] == asked
    (plain,) = completion.files_or_artifacts(context, param, "tra")
    assert ("tra", "file") == (plain.value, plain.type)
