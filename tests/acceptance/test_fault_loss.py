"""What befalls agents while jobs run, with each `on_lost`: what ran, what froze, what was lost, against the promise.

Heartbeats come every second and a term is four; test_loss_in_full.py has the same at full length.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from coordinator.agent.control import AgentControl
from tests.acceptance.processes import wait_for, when_online
from tests.acceptance.test_keeper_processes import ESCAPING
from tests.acceptance.ticking import Case, Field, kill_all_of, wait_until
from tests.unit.agent.agents import alive

pytestmark = pytest.mark.paced  # seconds decide here: a term is over after four

MODES = ("retry", "wait:60s", "auto")
TERM_S = 4.0
QUICK = (
    "policy.heartbeat_interval_ms=1s",
    "policy.ping_after_intervals=1.9",
    "policy.lost_after_ms=6s",
    "policy.term_ms=4s",
)
"""Pinged late: an answer is a sign of life too, and a ping before the next heartbeat is due would move the measure."""
IN_DOUBT_S = 2.0
LONGER_S = 5.0
"""Of what is longer than a term."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    if os.geteuid() != 0:
        pytest.skip("networks of one's own, and processes that cannot escape, need root here")
    with Field(tmp_path_factory.mktemp("field"), len(MODES), *QUICK) as field:
        yield field


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """Terms of thirty seconds, as everywhere, for what is not to be lost while something starts anew: a busy machine
    may need longer than four for that, and agents wait before they try again."""
    if os.geteuid() != 0:
        pytest.skip("networks of one's own, and processes that cannot escape, need root here")
    with Field(tmp_path_factory.mktemp("patient"), len(MODES), "policy.heartbeat_interval_ms=1s") as field:
        yield field


@pytest.fixture(autouse=True)
def tidy(field: Field) -> Iterator[None]:
    """What a failed test leaves behind fails no other."""
    yield
    field.tidy()


def was_replaced(case: Case) -> None:
    """In doubt as soon as promised (half a second is the tester's: everything here shares two cores), lost when its
    lease was over and not before; the next one ran at once, and never at the same time."""
    assert case.doubted_after_s() <= IN_DOUBT_S + 0.5
    first, second = case.task().tries[:2]
    assert ("lost", "completed") == (first.state, second.state)
    assert case.overlapped_s() < 0
    assert case.rows("lost")[0].wall_ns - case.struck_ns > (TERM_S - 1.5) * 1e9
    assert case.task().losses == 1


def went_on(case: Case) -> None:
    """One attempt, never lost."""
    task = case.task()
    assert [entry.state for entry in task.tries if entry.state != "taken_back"] == ["completed"]
    assert (task.losses, task.failures) == (0, 0)


def test_a_network_that_is_cut_for_longer_than_a_term(field: Field) -> None:
    """`retry` and `auto`: frozen by its own agent, replaced when the lease is over. `wait`: it ran all the time."""
    retry, wait, auto = cases = field.begin(MODES)
    field.cut(cases)
    assert retry.row("reserved", 2).why.startswith(f"replaces {retry.attempt(1)}")
    for case in (retry, auto):
        wait_for(lambda case=case: case.ticks(2), "the replacement")  # type: ignore[misc]
        assert not case.runs()
    assert wait.runs()
    field.mend(cases)
    for case in (retry, auto):
        wait_for(lambda case=case: not alive(case.pid()), "the old one being ended")  # type: ignore[misc]
    wait.row("running")
    field.finish(cases)
    was_replaced(retry)
    was_replaced(auto)
    went_on(wait)
    assert wait.figures()["stood_still"] == []


def test_one_that_was_dead_comes_back_and_reports_success(field: Field) -> None:
    """It ended well while nobody heard it, and its keeper and daemon died after that: its replacement's is the one
    result, what it says is set aside."""
    (case,) = field.begin(("retry",))
    field.cut([case])
    case.let_go(1)
    wait_for(lambda: not alive(case.pid()), "the program's own end")
    wait_for(lambda: case.ticks(2), "the replacement")
    case.agent.signal_all(signal.SIGKILL)
    case.agent.wait()
    case.agent.spawn()
    field.mend([case])
    assert "exit 0" in case.row("late").why
    assert case.runs(2)
    field.finish([case])
    was_replaced(case)


def test_a_machine_that_is_killed_and_started_again(field: Field) -> None:
    """Keeper, daemon and program: in doubt at once. `retry` and `auto` are replaced when the lease is over; `wait` as
    soon as the machine says that nothing of it runs any more, long before its minute is over."""
    retry, wait, auto = cases = field.begin(MODES)
    for case in cases:
        kill_all_of(case)
    for case in cases:
        case.row("in_doubt")
    for case in (retry, auto):
        wait_for(lambda case=case: case.ticks(2), "the replacement")  # type: ignore[misc]
    assert not wait.ticks(2)
    for case in cases:
        case.agent.spawn()
    wait_for(lambda: wait.ticks(2), "what waited")
    field.finish(cases)
    for case in cases:
        was_replaced(case)


def test_a_daemon_that_is_killed_disturbs_nothing(patient: Field) -> None:
    """The keeper starts the next one, which goes on with what is held."""
    cases = patient.begin(MODES)
    before = [case.agent.daemon_pid() for case in cases]
    for case, pid in zip(cases, before, strict=True):
        case.struck_ns = time.time_ns()
        os.kill(pid, signal.SIGKILL)
    when_online(patient.client, *patient.agents)
    for case in cases:
        wait_for(lambda case=case: case.agent.daemon_pid() not in before, "the next daemon")  # type: ignore[misc]
        assert case.runs()
    patient.finish(cases)
    for case in cases:
        went_on(case)


def test_a_daemon_that_stands_still(field: Field) -> None:
    """The keeper freezes what is not renewed. Going on, the daemon has `wait` go on where it was; the others were
    replaced meanwhile and are ended."""
    retry, wait, auto = cases = field.begin(MODES)
    daemons = [case.agent.daemon_pid() for case in cases]
    for case, pid in zip(cases, daemons, strict=True):
        case.struck_ns = time.time_ns()
        os.kill(pid, signal.SIGSTOP)
    for case in (retry, auto):
        wait_for(lambda case=case: case.ticks(2), "the replacement")  # type: ignore[misc]
        assert not case.runs()
    assert wait.runs()
    for pid in daemons:
        os.kill(pid, signal.SIGCONT)
    field.finish(cases)
    was_replaced(retry)
    was_replaced(auto)
    went_on(wait)


def test_a_keeper_that_is_killed_takes_everything_along(field: Field) -> None:
    """The daemon's last act ends every process. Started again, the agent says so, and the tasks run again."""
    cases = field.begin(MODES)
    programs = [case.pid() for case in cases]
    for case in cases:
        case.struck_ns = time.time_ns()
        os.kill(case.agent.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, programs)), "the programs' ends", 3.0)
    for case in cases:
        case.agent.wait()
        case.agent.spawn()
    for case in cases:
        wait_for(lambda case=case: case.ticks(2), "the next attempt")  # type: ignore[misc]
    field.finish(cases)
    for case in cases:
        assert [entry.state for entry in case.task().tries] == ["lost", "completed"]
        assert case.overlapped_s() < 0
        assert (case.task().losses, case.task().failures) == (1, 0)


def test_keeper_and_daemon_that_are_killed_leave_no_second_result(field: Field) -> None:
    """Nobody is left to freeze the program: it may run beside its replacement. Its token is an old one, and the next
    start ends it."""
    (case,) = field.begin(("retry",))
    case.struck_ns = time.time_ns()
    case.agent.signal_all(signal.SIGKILL)
    case.agent.wait()
    wait_for(lambda: case.ticks(2), "the replacement")
    assert case.runs(1), "what this test is about"
    case.agent.spawn()
    wait_for(lambda: not alive(case.pid()), "the old one's end")
    field.finish([case])
    assert [entry.state for entry in case.task().tries] == ["lost", "completed"]


def test_a_coordinator_that_is_killed_and_back_kills_no_job(patient: Field) -> None:
    """kill -9, and back within a term."""
    cases = patient.begin(MODES)
    for case in cases:
        case.struck_ns = time.time_ns()
    patient.head.kill()
    patient.head.start().close()
    when_online(patient.client, *patient.agents)
    patient.finish(cases)
    for case in cases:
        went_on(case)


def test_a_coordinator_that_is_away_for_longer_than_a_term_kills_no_job(field: Field) -> None:
    """A planned stop: none is lost, none frozen."""
    cases = field.begin(MODES)
    for case in cases:
        case.struck_ns = time.time_ns()
    field.head.signal(signal.SIGTERM)
    field.head.wait()
    wait_until(time.monotonic() + LONGER_S)
    field.head.start().close()
    when_online(field.client, *field.agents)
    field.finish(cases)
    for case in cases:
        went_on(case)
        assert case.figures()["stood_still"] == []


@pytest.mark.parametrize("how", ["cancel", "time limit", "keeper killed", "agent leaves"])
def test_nothing_of_a_process_tree_survives(field: Field, how: str) -> None:
    """Double forks, sessions of their own, emptied environments and ignored signals: all gone when it is told so."""
    field.client.drain("spare")
    place = field.place(how.replace(" ", "-"))
    program = ["sh", "-c", f"cd {place}; {ESCAPING}"]
    spec: dict[str, object] = {"command": program, "grace": "300ms", "retry": {"limit": 0}}
    job = field.client.jobs.submit({**spec, **({"time_limit": "2s"} if how == "time limit" else {})})
    wait_for(lambda: (place / "ready").exists() and len((place / "pids").read_text().split()) == 5, "the tree")
    pids = [int(pid) for pid in (place / "pids").read_text().split()]
    (task,) = field.client.jobs.tasks(job.job_id, attempts=True).entries
    agent = next(agent for agent in field.agents if agent.provider_id == task.tries[0].ranks[0].provider_id)
    promises = AgentControl(agent.state).status().promises
    if not promises.kills_all:
        pytest.skip("this machine's agent does not promise it, and says so")
    if how == "keeper killed":
        os.kill(agent.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(alive, pids)), "the tree's end", 3.0)
        agent.wait()  # its last thread may end after the tree
    elif how == "agent leaves":
        AgentControl(agent.state).bye()
        agent.wait()
        assert not any(map(alive, pids))
    if how != "time limit":
        field.client.jobs.cancel(job.job_id)
    if agent.popen is not None and agent.popen.poll() is not None:
        agent.spawn()
    ended = field.client.jobs.wait(job.job_id, timeout_s=30.0)
    assert ended.state == ("failed" if how == "time limit" else "cancelled")
    assert [pid for pid in pids if alive(pid)] == []
    when_online(field.client, *field.agents)
