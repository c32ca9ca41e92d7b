"""Files that attack `coord simulate`: bombs, damage, numbers beyond all bounds. Each is refused by what is wrong."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import replaying
from cli.replaying import Asked, read_fleet, read_workload
from coordinator.core.errors import CoordError
from coordinator.simulator.history import workload
from coordinator.simulator.history.fleet import alike
from coordinator.simulator.history.swf import Gather
from coordinator.simulator.history.workload import Workload

LINE = "1 {at} -1 {run} 1 -1 -1 {procs} {asked} {memory} 1 {user} 1 -1 -1 -1 -1 -1\n"
NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,scheduled_time,deletion_time\n"


def a_line(**more: object) -> str:
    return LINE.format(**{"at": 0, "run": 100, "procs": 1, "asked": -1, "memory": -1, "user": 1, **more})


def jobs_of(text: str) -> Workload:
    fleet = alike("4x4")
    assert fleet is not None
    asked = Asked("4x4", text, ("fit",), 0, None, None, 1, 1.0, None, Gather.USER, {}, None, None)
    return read_workload(asked, fleet)


@pytest.mark.parametrize("more", [{"at": "1e308"}, {"at": "1e18"}, {"run": "1e300"}, {"at": -5}, {"procs": -5}])
def test_a_job_beyond_all_bounds_is_left_out_and_counted(tmp_path: Path, more: dict[str, object]) -> None:
    """Nothing waits for a virtual clock that would have to go on for ever."""
    log = tmp_path / "log.swf"
    log.write_text(a_line() + a_line(**more).replace(" 1 -1 -1 -5", " -1 -1 -1 -5"))
    found = jobs_of(str(log))
    assert 1 == len(found.jobs) and 1 == sum(found.left_out.values())


def test_a_time_asked_for_is_cut_where_runs_are(tmp_path: Path) -> None:
    log = tmp_path / "log.swf"
    log.write_text(a_line(asked="1e300"))
    assert workload.RUN_MAX_MS == jobs_of(str(log)).jobs[0].limit_ms


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Cut off, or overwritten after its first bytes."""
    packed, log = pack(a_line().encode() * 1_000), tmp_path / "log"
    for damaged in (packed[:-20], packed[:6] + b"x" * 200):
        log.write_bytes(damaged)
        with pytest.raises(CoordError, match="damaged"):
            jobs_of(str(log))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line without an end, a file without an end, jobs without an end, lines of nothing without an end."""
    log = tmp_path / "log.gz"
    log.write_bytes(gzip.compress(b"0" * 10_000_000))
    with pytest.raises(CoordError, match="line 1 of the workload"):
        jobs_of(str(log))
    log.write_bytes(gzip.compress(a_line().encode() * 2_000))
    monkeypatch.setattr(replaying, "BYTES_MAX", 50_000)
    with pytest.raises(CoordError, match="more than 50000 characters"):
        jobs_of(str(log))
    monkeypatch.setattr(replaying, "BYTES_MAX", 10**9)
    monkeypatch.setattr(workload, "JOBS_MAX", 1_000)
    with pytest.raises(CoordError, match="more than 1000 jobs"):
        jobs_of(str(log))
    log.write_bytes(gzip.compress(b"\n" * 100_000 + a_line().encode()))
    monkeypatch.setattr(replaying, "LINES_MAX", 50_000)
    with pytest.raises(CoordError, match="more than 50000 lines"):
        jobs_of(str(log))


@pytest.mark.parametrize(
    "row",
    [
        "a,1000,1000,2000000000,T4",
        "a,-1000,5,0,",
        f"a,{'9' * 400},1,0,",
        "a,1,-1,0,",
        "\x1b[31m<script>,4000,16000,0,",
        "a,4000,16000,1,<script>",
        "a,1000",
        f"{'a' * 200_000},1,1,0,",
        '"' + "a\n" * 100_000,
    ],
)
def test_a_node_that_cannot_be_is_refused(tmp_path: Path, row: str) -> None:
    """Its numbers are bounded, its names are names: what they are printed on runs nothing of theirs."""
    nodes = tmp_path / "nodes.csv"
    nodes.write_text(NODES + row + "\n")
    with pytest.raises(CoordError) as refused:
        read_fleet(str(nodes), 1.0)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "row",
    [
        "p,100,100,0,0,,1e300,0,100",
        "p,100,100,0,0,,0,0,1e300",
        "p,100,100,0,0,,nan,0,100",
        "p,100,100,0,0,,0,0,-inf",
        "p,-100,100,0,0,,0,0,100",
        "p,100,100,-1,0,,0,0,100",
        "p,100,100,1,5000,,0,0,100",
        "p,100,100,1,500,<script>,0,0,100",
    ],
)
def test_a_pod_that_cannot_be_is_refused(tmp_path: Path, row: str) -> None:
    pods = tmp_path / "pods.csv"
    pods.write_text(PODS + row + "\n")
    with pytest.raises(CoordError, match="line 2"):
        jobs_of(str(pods))


HISTORY = "provider_id,connected_at,disconnected_at,disconnect_reason\n"
MOMENT = "a,2026-01-01T00:00:00Z,2026-01-01T00:00:00Z,read_error\n"


@pytest.mark.parametrize("text", [NODES + "a,0,1000,0,\n", HISTORY + MOMENT])
def test_nothing_is_divided_by_a_fleet_that_is_not_there(tmp_path: Path, text: str) -> None:
    """A made-up load of nodes without CPUs, and of a history of one moment."""
    path = tmp_path / "fleet.csv"
    path.write_text(text)
    fleet, _ = read_fleet(str(path), 1.0)
    asked = Asked(str(path), "1h@30%", ("fit",), 0, None, None, 1, 1.0, None, Gather.USER, {}, None, None)
    with pytest.raises(CoordError):
        read_workload(asked, fleet)


def test_a_made_up_run_of_a_million_years_is_refused() -> None:
    with pytest.raises(CoordError):
        replaying.made_up("365000000d@30%")
