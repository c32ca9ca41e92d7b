"""What is read of logs and lists: SWF, nodes and pods with parts of a GPU, sessions into stays."""

from __future__ import annotations

import pytest

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import CoordError
from coordinator.core.ids import ProviderId
from coordinator.core.rows import EndReason, Resources
from coordinator.simulator.history.fleet import Session, Stay, alike, of_sessions, stays_of
from coordinator.simulator.history.openb import read_nodes, read_pods
from coordinator.simulator.history.swf import Gather, read_swf

LOG = """; Version: 2.2
; a remark
1  10 -1  100   4 -1 -1  -1  -1 -1  1  3 1 -1 -1 -1 -1 -1
2   0 -1   50  -1 -1 -1   6 200 512  0  4 2 -1 -1 -1 -1 -1
3   5 -1   -1   1 -1 -1  -1  -1 -1  5  3 1 -1 -1 -1 -1 -1
4   6 -1    9   1 -1 -1  -1  -1 -1  3  3 1 -1 -1 -1 -1 -1
5   7 -1   60   0 -1 -1  -1  -1 -1  1  3 1 -1 -1 -1 -1 -1
6  20 -1   60   1 -1 -1  -1  30 -1  1 -1 1 -1 -1 -1 -1 -1
"""


def test_a_log_is_read_by_submission_and_what_never_ran_is_left_out_and_counted() -> None:
    """Requested processors before used ones, -1 is unknown, a limit is never below what the job ran."""
    found = read_swf(LOG.splitlines(), 1.0, Gather.USER)
    assert [(0, 50_000, 6, "user-4", 200_000), (10_000, 100_000, 4, "user-3", None),
            (20_000, 60_000, 1, "user-unknown", 60_000)] == [
        (job.at_ms, job.run_ms, job.nodes, job.tenant, job.limit_ms) for job in found.jobs
    ]  # fmt: skip
    assert {
        "never ran, or for an unknown time": 1,
        "parts of jobs whose whole has a line of its own": 1,
        "no number of processors": 1,
    } == found.left_out


def test_processors_are_cut_into_nodes_of_the_fleet() -> None:
    """Six processors on nodes of four CPUs are two nodes, with the memory of four processors each."""
    found = read_swf(LOG.splitlines(), 4.0, Gather.ONE)
    assert Ask(cpus=4 * UNIT, memory=4 * 512_000) == found.jobs[0].ask
    assert (2, "default") == (found.jobs[0].nodes, found.jobs[0].tenant)


@pytest.mark.parametrize("line", ["1 2 3", "1 x" + " -1" * 16, "1 inf" + " 1" * 16])
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(CoordError, match="line 2"):
        read_swf([";", line], 1.0, Gather.USER)


def test_a_made_fleet_is_nodes_cpus_and_gpus() -> None:
    fleet = alike("3x4x2")
    assert fleet is not None
    assert (3, (24.0, 12.0)) == (len(fleet.machines), fleet.capacity(0, 2 * 3_600_000))
    assert alike("history.csv") is None
    with pytest.raises(CoordError):
        alike("0x4")


def session(name: str, began: int, ended: int | None, reason: EndReason | None = None) -> Session:
    return Session(provider_id=ProviderId(name), began_ms=began, ended_ms=ended, reason=reason)


def test_sessions_are_joined_where_work_survives_the_gap() -> None:
    """Under half a minute, and what the coordinator itself caused; overlaps are one stay."""
    stays = stays_of([
        session("a", 0, 10_000),
        session("a", 39_999, 50_000),
        session("a", 80_000, 90_000),
        session("b", 0, 10_000, EndReason.COORDINATOR_RESTART),
        session("b", 600_000, None),
        session("c", 0, 100_000),
        session("c", 5_000, 20_000),
    ])  # fmt: skip
    assert {
        Stay(provider_id=ProviderId("a"), began_ms=0, ended_ms=50_000),
        Stay(provider_id=ProviderId("a"), began_ms=80_000, ended_ms=90_000),
        Stay(provider_id=ProviderId("b"), began_ms=0, ended_ms=None),
        Stay(provider_id=ProviderId("c"), began_ms=0, ended_ms=100_000),
    } == set(stays)


def test_capacity_counts_only_who_is_there() -> None:
    fleet = of_sessions([session("a", 0, 3_600_000), session("b", 1_800_000, 7_200_000)], Resources(cpus=2.0))
    assert (5.0, 0.0) == fleet.capacity(0, 7_200_000)
    assert (2.0, 0.0) == fleet.capacity(3_600_000, 7_200_000)


def test_pods_ask_for_parts_of_a_gpu_and_models_are_pools() -> None:
    nodes = read_nodes([
        {"sn": "n0", "cpu_milli": "64000", "memory_mib": "1000", "gpu": "2", "model": "T4"},
        {"sn": "n1", "cpu_milli": "8000", "memory_mib": "1000", "gpu": "0", "model": ""},
    ])  # fmt: skip
    assert ["T4", "cpu"] == [machine.pool for machine in nodes.machines.values()]
    pod = {"cpu_milli": "500", "memory_mib": "1", "gpu_spec": "", "creation_time": "5", "deletion_time": "9"}
    found = read_pods([
        pod | {"num_gpu": "1", "gpu_milli": "460", "scheduled_time": "6", "gpu_spec": "T4|P100"},
        pod | {"num_gpu": "2", "gpu_milli": "1000", "scheduled_time": "5", "creation_time": "1"},
        pod | {"num_gpu": "0", "gpu_milli": "0", "scheduled_time": ""},
    ])  # fmt: skip
    assert [2 * UNIT, 460_000] == [job.ask.gpus for job in found.jobs]
    assert [(), ("T4", "P100")] == [job.pools for job in found.jobs]
    assert [4_000, 3_000] == [job.run_ms for job in found.jobs]
    assert 1 == sum(found.left_out.values())
