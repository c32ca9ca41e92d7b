"""The demo's second half: a job on the three agents, one of which dies in the middle of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.demo.screen import command, remark, step
from cli.demo.stage import Stage

if TYPE_CHECKING:
    from coordinator.api_types.work import AttemptEntry
    from coordinator.client import Client

JOB = """\
name = "night"

[[step]]
name = "prep"
shell = "echo cleaning the data; sleep 0.3; echo clean > clean.csv"
outputs = ["clean.csv"]

[[step]]
name = "train"
inputs = ["./fold.sh", "prep:clean.csv"]
array = "1-3"
command = ["sh", "fold.sh", "{index}"]
outputs = ["model-{index}"]
checkpoint = { keep = 1 }
on_lost = "retry"

[[step]]
name = "report"
inputs = ["train:model-*"]
shell = "cat */model-*; echo every fold is there"
"""
FOLD = """\
state="$COORD_CHECKPOINT_DIR"                # what is in it is there again after a loss
n=$(cat "$state/epoch" 2>/dev/null || echo 0)
while [ "$n" -lt 4 ]; do
  n=$((n + 1)); echo "fold $1, epoch $n"; sleep 1
  echo "$n" > "$state/epoch"; touch "$state/.ready"
done
echo "fold $1 done" | tee "model-$1"
"""
PREFERRED = "beta"
"""The machine that dies, if it runs a task."""


def show_work(place: Stage, client: Client) -> None:
    """Submit the job, kill a machine while it trains, and show where and why the work went on."""
    job_id = _submit(place, client)
    victim = _kill(place, client, job_id)
    _end(place, client, job_id, victim)


def _submit(place: Stage, client: Client) -> int:
    path = place.directory / "night.toml"
    path.write_text(JOB)
    program = path.with_name("fold.sh")
    program.write_text(FOLD)
    step("A job of three steps: prepare, train three folds at once, report. It says what goes in and what comes out.")
    for file, text in ((path, JOB), (program, FOLD)):
        command(f"cat {file}")
        print("".join(f"  {line}\n" for line in text.splitlines()), flush=True)
    command(f"coord submit {path}")
    place.run("submit", str(path))
    job_id = client.jobs.list(limit=1).entries[0].job_id
    place.wait_for(lambda: True if len(_training(client, job_id)) == 3 else None, "three folds in training")
    command(f"coord job show {job_id}")
    place.run("job", "show", str(job_id))
    return job_id


def _training(client: Client, job_id: int) -> dict[str, AttemptEntry]:
    """Which attempt trains where."""
    found = {}
    for task in client.jobs.tasks(job_id, step=1, attempts=True).entries:
        for attempt in task.tries:
            if attempt.state == "running":
                found[attempt.ranks[0].provider_id] = attempt
    return found


def _saved(client: Client, job_id: int, task: str) -> int:
    """How often the state of this task was saved."""
    return sum(len(one.checkpoints) for one in client.jobs.data(job_id, step=1).entries if one.task == task)


def _kill(place: Stage, client: Client, job_id: int) -> str:
    """Returns the task that was lost with its machine."""
    training = _training(client, job_id)
    victim = PREFERRED if PREFERRED in training else next(iter(training))
    lost = training[victim]
    task = lost.attempt.rpartition(".")[0]
    place.wait_for(
        lambda: True if b"epoch 2" in b"".join(client.jobs.logs(job_id, task=task.partition(".")[2])) else None,
        "the second epoch",
    )
    place.wait_for(lambda: True if _saved(client, job_id, task) else None, "its first checkpoint")
    pids = " ".join(map(str, place.pids_of(victim)))
    step(f"In the middle of it {victim} dies without a word: agent, fold and all.", f"kill -9 {pids}")
    began = time.monotonic()
    place.lose_machine(victim, place.directory / victim)
    seen = place.wait_for(
        lambda: state if (state := client.provider(victim).liveness) != "online" else None, "noticing the loss", 15
    )
    remark(f"the coordinator noticed after {time.monotonic() - began:.2f} s: {victim} is {seen}, gets no new work")
    remark(f"task {task} is in doubt: is it dead, or only cut off? It is not run twice: it starts elsewhere when")
    remark("its lease is over, and before that an agent that is only cut off would have frozen it")
    command("coord providers list")
    place.run("providers", "list")
    command(f"coord job why {job_id}")
    place.run("job", "why", str(job_id))
    return task


def _end(place: Stage, client: Client, job_id: int, lost: str) -> None:
    step("The work finishes on the other two: the fold goes on from what it had saved.", f"coord job wait {job_id}")
    place.run("job", "wait", str(job_id))
    command(f"coord job show {job_id}")
    place.run("job", "show", str(job_id))
    for attempt, what in (("1", "what was written before the machine died"), ("2", "and the rest of it, elsewhere")):
        command(f"coord logs {lost} --attempt {attempt}   # {what}")
        place.run("logs", lost, "--attempt", attempt)
    to = place.directory / "results"
    step("Every result is there once, whichever machine it came from.", f"coord job outputs {job_id} --get {to}")
    place.run("job", "outputs", str(job_id), "--get", str(to))
    step(f"What became of the first try of task {lost}, and why:", f"coord audit --subject {lost}.1")
    place.run("audit", "--subject", f"{lost}.1")
