"""`coord submit`, `coord job`, `coord logs`, `coord events` and `coord audit` against a real coordinator and agent."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.config import Config
from cli.following import _Watch, stay
from cli.options import Reach
from coordinator.agent.cleanup import kill_attempts
from coordinator.api_types.happenings import EventEntry
from coordinator.client import Client
from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import GUARD_S, Agent, wait_for, when_online

GRAPH = """\
name = "night"

[[step]]
name = "prep"
command = ["sh", "-c", "echo prepared"]

[[step]]
name = "train"
needs = ["prep"]
matrix = { lr = [0.1, 0.01] }
command = ["sh", "-c", "echo lr {lr}"]

[[step]]
name = "report"
needs = ["train"]
when = "finished"
command = ["sh", "-c", "echo reported"]
"""


STEPS, TIMES = ("prep", "train", "report"), ("started_at", "ended_at")


class Fleet(NamedTuple):
    """A coordinator with agent `w1`, which offers four CPUs."""

    coord: Coord
    server: Server
    directory: Path

    def submitted(self, *argv: str) -> str:
        """`coord submit` with these arguments; the job's number."""
        done = self.coord("submit", "-o", "name", *argv)
        assert done.code == 0, done.err
        return done.out.strip()

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        return subprocess.Popen(
            (sys.executable, "-m", "cli", *argv),
            env=self.coord.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("jobs")
    with Server(directory) as server:
        client = server.start()
        with Agent(directory, server, "w1", "--cpus", "4") as agent:
            when_online(client, agent)
            yield Fleet(Coord(server.data), server, directory)


# ---- submit and wait


def test_a_command_runs_and_its_output_and_status_are_ours(fleet: Fleet) -> None:
    """stdout is the program's, to the byte; phases are on stderr; status 0."""
    script = "import sys; sys.stdout.buffer.write(b'\\x00\\xffhi\\r\\n'); print('no end', end='')"
    argv = (sys.executable, "-m", "cli", "submit", "--wait", "--", sys.executable, "-c", script)
    done = subprocess.run(argv, env=fleet.coord.env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"\x00\xffhi\r\nno end"
    said = done.stderr.decode()
    assert re.search(r"job \d+: python[\d.]*, 1 task, pending", said)
    # That it runs is told of what does not end at once.
    assert "starts on w1" in said and re.search(r"job \d+ completed, in ", said)


def test_what_happened_is_told_also_when_it_is_heard_late(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its output is through and it is known to have ended before the first event is heard: each phase is told."""
    looked = threading.Event()

    class Late(Client):
        def events(
            self, *, job_id: int | None = None, entity: str | None = None, after: int | None = None
        ) -> Iterator[EventEntry]:
            assert looked.wait(GUARD_S)
            yield from super().events(job_id=job_id, entity=entity, after=after)

    class LateReach(Reach):
        def client(self) -> Client:
            return Late(fleet.server.url, fleet.server.token("admin"))

    finished = _Watch._finished

    def looking(watch: _Watch) -> bool:
        done = finished(watch)
        if "logs" in watch._over and watch._end_s is not None:
            looked.set()  # only now
        return done

    monkeypatch.setattr(_Watch, "_finished", looking)
    job = fleet.server.client().jobs.submit({"command": ["echo", "hi"]})
    assert 0 == stay(LateReach(Config(), None), job.job_id)
    out, err = capfd.readouterr()
    assert "hi\n" == out
    assert "starts on w1" in err and "completed, in " in err


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("sleep 30", 124)], ids=["exit", "signal", "limit"]
)
def test_a_job_that_fails_ends_the_command_as_it_ended(fleet: Fleet, script: str, status: int) -> None:
    done = fleet.coord("submit", "--wait", "--retry", "0", "--time-limit", "1s", "--", "sh", "-c", script)
    assert done.code == status, done.err
    assert "failed" in done.err


def test_a_retry_is_told_and_the_last_try_counts(fleet: Fleet) -> None:
    """The first fails, the second completes; what both wrote comes through."""
    read = fleet.directory / "read"
    (fleet.directory / "twice.toml").write_text(
        f'shell = "echo try $COORD_ATTEMPT; until test -e {read}; do sleep .1; done; test ${{COORD_ATTEMPT##*.}} = 2"\n'
        'retry = { delay = "100ms" }\n'
    )
    process = fleet.start("submit", "--wait", str(fleet.directory / "twice.toml"))
    assert process.stdout is not None
    first = process.stdout.readline()
    read.touch()  # its output is followed: nobody promises what a try wrote before that, when the next one runs
    out, err = process.communicate(timeout=GUARD_S)
    assert process.returncode == 0, err
    assert re.findall(r"try \d+\.0\.0\.(\d)", first + out) == ["1", "2"]
    assert "runs on w1" in err and "is tried again" in err


def test_a_program_reads_what_is_handed_over_to_submit(fleet: Fleet) -> None:
    """Text on its stdin, from ours or from a file; nothing without."""
    for argv, text in ((("--stdin", "-"), "a line\nno end"), ((), "")):
        done = fleet.coord("submit", "--wait", *argv, "--", "cat", stdin=text.encode())
        assert (done.code, done.out) == (0, text), done.err


def test_many_tasks_are_one_job_and_wait_prints_what_they_write(fleet: Fleet) -> None:
    done = fleet.coord("submit", "--wait", "--array", "10-14", "--cpus", "0.5", "--", "echo", "{index}")
    assert done.code == 0, done.err
    assert sorted(done.out.split()) == ["10", "11", "12", "13", "14"]
    shown = fleet.coord("job", "show", "last", "--tasks", "-o", "json").json()["entries"]
    assert [task["values"]["index"] for task in shown] == ["10", "11", "12", "13", "14"]
    assert {task["state"] for task in shown} == {"completed"}


def test_a_graph_runs_in_its_order(fleet: Fleet) -> None:
    path = fleet.directory / "night.toml"
    path.write_text(GRAPH)
    done = fleet.coord("submit", str(path), "--wait")
    assert done.code == 0, done.err
    assert sorted(done.out.split("\n")) == ["", "lr 0.01", "lr 0.1", "prepared", "reported"]
    tasks = fleet.coord("job", "show", "@", "--tasks", "-o", "json").json()["entries"]
    began, ended = ([[task[key] for task in tasks if task["step"] == step] for step in STEPS] for key in TIMES)
    assert [len(step) for step in began] == [1, 2, 1]
    for before, after in itertools.pairwise(range(len(STEPS))):
        assert max(ended[before]) <= min(began[after]), "what a step needs has ended when it begins"
    assert "report" in fleet.coord("job", "show", "@").out


def test_ctrl_c_detaches_and_the_job_goes_on(fleet: Fleet) -> None:
    """Status 130, and the way back; cancelling it later is no failure of the waiting command."""
    process = fleet.start("submit", "--wait", "--name", "long", "--", "sleep", "60")
    assert process.stderr is not None
    while "runs on" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=GUARD_S)
    assert process.returncode == 130
    back = re.search(r"coord job wait (\d+)", said)
    assert back is not None and "Traceback" not in said
    listed = fleet.coord("job", "list", "--state", "running", "--name", "long", "-o", "name").out.split()
    assert listed == [back[1]]
    late = fleet.coord("job", "wait", back[1], "--timeout", "100ms")
    assert late.code == 75 and "still running" in late.err
    assert fleet.coord("job", "cancel", back[1], "--why", "seen enough").code == 0
    waited = fleet.coord("job", "wait", back[1])
    assert waited.code == 125 and "seen enough" in waited.err


def test_whoever_waits_stays_through_a_restart_of_the_coordinator(tmp_path: Path) -> None:
    """Killed -9 in the middle: the job goes on, and both commands end with what it wrote and how it ended."""
    with Server(tmp_path) as server:
        client = server.start()
        fleet = Fleet(Coord(server.data), server, tmp_path)
        with Agent(tmp_path, server, "w1") as agent:
            when_online(client, agent)
            flag = tmp_path / "flag"
            staying = fleet.start(
                "submit",
                "--wait",
                "--",
                "sh",
                "-c",
                f"echo begun; until test -e {flag}; do sleep 0.1; done; echo over",
            )
            assert staying.stdout is not None and staying.stdout.readline() == "begun\n"
            waiting = fleet.start("job", "wait", "last")
            assert waiting.stderr is not None and "running" in waiting.stderr.readline()
            server.kill()
            server.start()
            flag.touch()
            out, err = staying.communicate(timeout=GUARD_S)
            assert (staying.returncode, out) == (0, "over\n"), err
            waiting.communicate(timeout=GUARD_S)
            assert waiting.returncode == 0
            assert fleet.coord("job", "show", "last", "-o", "json").json()["tasks"][0]["attempts"] == 1


def test_one_key_makes_one_job(fleet: Fleet) -> None:
    first = fleet.submitted("--idempotency-key", "k-1", "--", "true")
    assert fleet.submitted("--idempotency-key", "k-1", "--", "true") == first
    other = fleet.coord("submit", "--idempotency-key", "k-1", "--", "false")
    assert other.code == 73, other.err


def test_what_failed_can_be_run_again(fleet: Fleet) -> None:
    """`retry` runs what failed; what completed stays."""
    flag = fleet.directory / "flag"
    job = fleet.submitted("--retry", "0", "--array", "0-1", "--", "sh", "-c", f"test {{index}} = 0 || test -e {flag}")
    assert fleet.coord("job", "wait", job).code == 1
    flag.touch()
    assert "1 of 2 tasks to do" in fleet.coord("job", "retry", job).err
    assert fleet.coord("job", "wait", job).code == 0
    tasks = fleet.coord("job", "show", job, "--tasks", "-o", "json").json()["entries"]
    assert [task["attempts"] for task in tasks] == [1, 2]


def test_secrets_of_a_file_reach_the_task_and_nothing_else(fleet: Fleet) -> None:
    """Neither the picture of a dry run nor what is shown of a job has the value."""
    secrets = fleet.directory / "secrets.env"
    secrets.write_text("API_KEY=s3cret-canary\n")
    argv = ("--env-file", str(secrets), "--", "sh", "-c", "test ${#API_KEY} = 13 && echo right")
    assert "s3cret" not in fleet.coord("submit", "--dry-run", *argv).out
    done = fleet.coord("submit", "--wait", *argv)
    assert done.out == "right\n", done.err
    assert "s3cret" not in fleet.coord("job", "show", "last", "-o", "json").out
    assert "s3cret" not in fleet.coord("audit", "--job", "last", "-o", "json").out


# ---- what is refused, and why it waits


def test_a_dry_run_draws_the_graph_and_submits_nothing(fleet: Fleet) -> None:
    path = fleet.directory / "night.toml"
    path.write_text(GRAPH)
    before = fleet.coord("job", "list", "--limit", "0", "-o", "name").out
    done = fleet.coord("submit", str(path), "--dry-run")
    assert done.code == 0, done.err
    assert "└─ train" in done.out and "2 tasks" in done.out and "$ sh -c 'echo lr 0.1'" in done.out
    assert "1 of 1 provider could run it now" in done.out and "nothing was submitted" in done.out
    assert fleet.coord("job", "list", "--limit", "0", "-o", "name").out == before
    answer = fleet.coord("submit", str(path), "--dry-run", "-o", "json").json()
    assert [step["tasks"] for step in answer["steps"]] == [1, 2, 1]


def test_what_nobody_could_ever_run_is_told_beforehand_and_afterwards(fleet: Fleet) -> None:
    """Status 1 of the dry run; `why` says never, and what would help."""
    dry = fleet.coord("submit", "--cpus", "400", "--dry-run", "--", "true")
    assert dry.code == 1 and "0 of 1 provider could run it now, 0 ever" in dry.out
    assert "cpus rules out 1" in dry.out
    job = fleet.submitted("--cpus", "400", "--", "true")
    why = fleet.coord("job", "why", job)
    assert why.code == 0 and "cpus" in why.out and "what would help" in why.out
    assert fleet.coord("job", "why", job, "-o", "json").json()["steps"][0]["verdict"] == "never"
    assert fleet.coord("job", "cancel", job).code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('command = ["true"]\n\nretrys = { limit = 1 }\n', (":3: retrys", "retry")),
        ('[[step]]\nname = "a"\nneeds = ["b"]\ncommand = ["true"]\n[[step]]\nname = "b"\nneeds = ["a"]\n'
         'command = ["true"]\n', ("a -> b -> a",)),
        ('command = ["true"]\nresources = { cpu = 1 }\n', (":2: resources.cpu", "cpus")),
        ('command = ["true"]\nattribution = ["x"]\n', (":2: attribution", "has no field 'attribution'")),
        ('command = ["true"]\ninputs = ["x"]\n', (":2: inputs[0]", "is not an input", "./FILE")),
        ('command = ["true"\n', ("end of document",)),
    ],
)  # fmt: skip
def test_a_wrong_job_file_is_refused_with_its_line_and_what_was_meant(
    fleet: Fleet, text: str, said: tuple[str, ...]
) -> None:
    (fleet.directory / "wrong.toml").write_text(text)
    done = fleet.coord("submit", str(fleet.directory / "wrong.toml"))
    assert done.code == 65 and done.out == "" and "Traceback" not in done.err
    for words in said:
        assert words in done.err, done.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("job", "show", "999999"), 66, "999999"),
        (("job", "show", "nonsense"), 2, "JOB.STEP.TASK"),
        (("job", "why", "999999"), 66, "999999"),
        (("job", "cancel", "999999"), 66, "999999"),
        (("job", "retry", "1.0.0"), 2, "is a task"),
        (("job", "wait", "1", "--timeout", "soon"), 2, "--timeout"),
        (("job", "list", "--state", "runing"), 2, "running"),
        (("logs", "999999"), 66, "999999"),
        (("logs", "1", "--tail", "x"), 2, "tail"),
        (("submit", "--memory", "much", "--", "true"), 65, "memory"),
        (("submit", "--on-lost", "pray", "--", "true"), 65, "wait:20m"),
        (("submit", "--tenant", "../x", "--", "true"), 2, ""),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_do(fleet: Fleet, argv: tuple[str, ...], code: int, said: str) -> None:
    fleet.coord("submit", "--", "true")
    done = fleet.coord(*argv)
    assert done.code == code, done.err
    assert done.out == "" and said in done.err and "Traceback" not in done.err


# ---- listings, logs, events


@pytest.mark.parametrize(
    "command", [("job", "list"), ("audit", "--limit", "0"), ("audit", "--entity", "job"), ("pool", "capacity")]
)
def test_every_listing_has_every_format(fleet: Fleet, command: tuple[str, ...]) -> None:
    """JSON with `entries`; lines, CSV and names agree with it."""
    fleet.coord("submit", "--wait", "--", "true")
    coord = fleet.coord
    entries = coord(*command, "-o", "json").json()["entries"]
    assert entries
    lines = coord(*command, "-o", "jsonl").out.splitlines()
    assert [json.loads(line).keys() for line in lines] == [entry.keys() for entry in entries]
    rows = list(csv.DictReader(io.StringIO(coord(*command, "-o", "csv").out)))
    assert len(rows) == len(coord(*command, "-o", "name").out.split()) == len(entries)
    assert all(list(row) == list(entry) for row, entry in zip(rows, entries, strict=True))
    table = coord(*command).out.splitlines()
    assert len(table) == len(entries) + 1 and "\x1b" not in "".join(table)


def test_logs_are_the_bytes_and_can_be_cut(fleet: Fleet) -> None:
    """All of it, the last lines, one stream; `-f` of a job that ended ends."""
    script = "for i in 1 2 3 4 5; do echo out $i; done; echo err >&2"
    job = fleet.submitted("--", "sh", "-c", script)
    assert fleet.coord("job", "wait", job).code == 0
    out = "".join(f"out {i}\n" for i in range(1, 6))
    assert fleet.coord("logs", job, "--stream", "stdout").out == out
    assert fleet.coord("logs", job, "--stream", "stderr").out == "err\n"
    assert sorted(fleet.coord("logs", job).out.splitlines()) == sorted([*out.splitlines(), "err"])
    assert fleet.coord("logs", f"{job}.0.0", "--stream", "stdout", "--tail", "2").out == "out 4\nout 5\n"
    assert fleet.coord("logs", job, "-f", "--stream", "stdout").out == out
    stamped = fleet.coord("logs", job, "--timestamps", "--stream", "stderr").out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z err\n", stamped)


def test_a_reader_that_goes_away_ends_the_reading(fleet: Fleet) -> None:
    """Status 141, as a shell reports it, and not a word."""
    job = fleet.submitted("--", "sh", "-c", "yes | head -c 3000000")
    assert fleet.coord("job", "wait", job).code == 0
    process = fleet.start("logs", job)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(2) == "y\n"
    process.stdout.close()
    assert process.wait(GUARD_S) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_job_that_wrote_nothing_says_so(fleet: Fleet) -> None:
    job = fleet.submitted("--", "true")
    assert fleet.coord("job", "wait", job).code == 0
    done = fleet.coord("logs", job)
    assert (done.code, done.out) == (0, "") and "completed" in done.err


def test_logs_of_what_is_not_there_say_so(fleet: Fleet) -> None:
    job = fleet.submitted("--array", "1-2", "--", "true")
    assert fleet.coord("job", "wait", job).code == 0
    assert fleet.coord("logs", f"{job}.0.1").code == 0
    for name, words in ((f"{job}.0.2", "has no task 0.2"), (f"{job}.1.0", "no task"), (f"{job}.0.0.7", "no attempt 7")):
        done = fleet.coord("logs", name)
        assert done.code == 66 and words in done.err, done.err


def test_cancelling_what_has_ended_changes_nothing_and_says_so(fleet: Fleet) -> None:
    job = fleet.submitted("--", "true")
    assert fleet.coord("job", "wait", job).code == 0
    done = fleet.coord("job", "cancel", job)
    assert done.code == 0 and "has ended already: completed" in done.err


def test_who_submits_what_nobody_could_run_is_told_at_once(fleet: Fleet) -> None:
    """It is taken all the same, since machines come and go; `-o name` has nothing but the number on stdout."""
    done = fleet.coord("submit", "--gpus", "8", "--", "true")
    assert done.code == 0 and "no provider that is enrolled could run it: asked for 8 GPUs" in done.err
    job = done.out.split()[1].rstrip(":")
    assert fleet.coord("job", "cancel", job).code == 0
    assert fleet.coord("submit", "--", "true").err == ""


def test_on_a_terminal_each_line_of_many_tasks_says_whose_it_is(fleet: Fleet) -> None:
    job = fleet.submitted("--array", "1-2", "--", "echo", "{index}")
    assert fleet.coord("job", "wait", job).code == 0
    lines = on_a_terminal(fleet, "logs", job).splitlines()
    assert sorted(lines) == [f"{job}.0.0 | 1", f"{job}.0.1 | 2"]


def test_a_followed_line_is_there_while_the_program_runs(fleet: Fleet) -> None:
    job = fleet.submitted("--", "sh", "-c", "echo first; sleep 60")
    process = fleet.start("logs", job, "-f")
    try:
        assert process.stdout is not None and process.stdout.readline() == "first\n"
        assert fleet.coord("job", "cancel", job).code == 0
        assert process.wait(GUARD_S) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_terminal_is_kept_safe_from_what_a_job_writes(fleet: Fleet) -> None:
    """The same log: escapes on a terminal, bytes in a pipe, and with --raw on a terminal too."""
    job = fleet.submitted("--", "printf", "a\\033[2Jb\\n")
    assert fleet.coord("job", "wait", job).code == 0
    assert fleet.coord("logs", job).out == "a\x1b[2Jb\n"
    assert on_a_terminal(fleet, "logs", job) == "a\\x1b[2Jb\n"
    assert on_a_terminal(fleet, "logs", job, "--raw") == "a\x1b[2Jb\n"


def on_a_terminal(fleet: Fleet, *argv: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen((sys.executable, "-m", "cli", *argv), env=fleet.coord.env, stdout=theirs)
    os.close(theirs)
    found = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # a terminal whose other end is closed
            break
        if not piece:
            break
        found += piece
    os.close(ours)
    assert process.wait(GUARD_S) == 0
    return found.decode().replace("\r\n", "\n")


def test_events_are_told_as_they_happen(fleet: Fleet) -> None:
    """From the record and then live, none missing in between; one line or one JSON object each."""
    process = fleet.start("events", "-f", "--entity", "job", "--limit", "1", "-o", "jsonl")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        job = fleet.submitted("--", "true")
        seen = []
        while "completed" not in seen:
            event = json.loads(process.stdout.readline())
            seen += [event["after"]] if event["subject"] == job else []
        assert seen[0] == "pending"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=GUARD_S)
    assert process.returncode == 130
    past = fleet.coord("events", "--job", job, "--limit", "0").out.splitlines()
    assert f"job {job} pending" in past[0] and f"job {job} completed" in past[-1]
    moments = [
        (entry["wall_ns"], entry["mono_ns"])
        for entry in fleet.coord("audit", "--job", job, "-o", "json").json()["entries"]
    ]
    assert moments == sorted(moments, reverse=True)


def test_completion_offers_live_jobs(fleet: Fleet) -> None:
    job = fleet.submitted("--name", "done", "--", "true")
    words = {"_COORD_COMPLETE": "bash_complete", "COMP_WORDS": f"coord job show {job}", "COMP_CWORD": "3"}
    assert f"plain,{job}" in fleet.coord(env=words).out.split()


def test_a_list_is_a_page_and_says_how_old(fleet: Fleet) -> None:
    fleet.submitted("--name", "night-1", "--", "true")
    newest = fleet.submitted("--name", "night-2", "--", "true")
    listed = fleet.coord("job", "list", "--name", "night*", "--limit", "1", "-o", "json").json()["entries"]
    assert [str(entry["job_id"]) for entry in listed] == [newest]
    assert "ago" in fleet.coord("job", "list", "--name", "night*").out


def test_the_two_minute_start_runs_a_job(tmp_path: Path) -> None:
    """`coord up` and one command."""
    coord = Coord(tmp_path / "data")
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "cli", "up", "--listen", "127.0.0.1:0", "--provider-id", "here"),
            env=coord.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for((tmp_path / "data" / "address").exists, "the start")
        began = time.monotonic()
        done = coord("submit", "--wait", "--", "echo", "hello")
        assert (done.code, done.out) == (0, "hello\n"), done.err
        assert time.monotonic() - began < 20
        assert "for one user" in (tmp_path / "up.log").read_text()
    finally:
        process.terminate()
        assert process.wait(GUARD_S) == 0
        kill_attempts(tmp_path / "data" / "agent")
