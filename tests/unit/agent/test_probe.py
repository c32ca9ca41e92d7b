"""What is measured: from files that look like the kernel's, and from this machine."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from coordinator.agent import gpus, machine
from coordinator.agent.probe import Probe, Sample, thermal_state
from coordinator.agent.standing import Standing
from coordinator.agent.state_dir import StateDir
from coordinator.agent.vitals import Vitals


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_a_sample_of_this_machine_is_within_bounds() -> None:
    """Shares lie in 0..1, memory is above 0, and a busy loop shows as CPU usage."""
    probe = Probe()
    end = os.times().elapsed + 0.15
    while os.times().elapsed < end:
        pass
    sample = probe.sample()
    assert sample.cpu_usage is not None
    assert 0.0 < sample.cpu_usage <= 1.0
    assert sample.memory_pressure is not None
    assert 0.0 <= sample.memory_pressure <= 1.0
    assert sample.memory_available_gb is not None
    assert sample.memory_available_gb > 0.0


def test_memory_pressure_is_the_kernels_stall_share_where_there_is_one(tmp_path: Path) -> None:
    """`some avg10` in percent becomes a share; without the file it is the share of memory in use."""
    put(tmp_path, "proc/pressure/memory", "some avg10=12.50 avg60=1.00 avg300=0.10 total=99\nfull avg10=3.00\n")
    assert Probe(tmp_path).sample().memory_pressure == 0.125
    bare = Probe(tmp_path / "nothing").sample().memory_pressure
    assert bare is not None
    assert 0.0 < bare <= 1.0


@pytest.mark.parametrize("text", ["", "full avg10=1.0\n", "some\n", "some avg10=x\n"])
def test_strange_pressure_files_are_no_figure(tmp_path: Path, text: str) -> None:
    """The fallback stands in."""
    put(tmp_path, "proc/pressure/memory", text)
    assert Probe(tmp_path).sample().memory_pressure is not None


@pytest.mark.parametrize(
    ("sensors", "state"),
    [
        ([], None),
        ([(0.0, None), (255.0, None)], None),
        ([(60.0, None)], "nominal"),
        ([(76.0, None)], "fair"),
        ([(86.0, None)], "serious"),
        ([(96.0, None)], "critical"),
        ([(60.0, None), (72.0, 80.0)], "serious"),
        ([(60.0, 0.0)], "nominal"),
    ],
)
def test_the_hottest_sensor_by_its_own_limit_is_the_thermal_state(
    sensors: list[tuple[float, float | None]], state: str | None
) -> None:
    """Thresholds at 75, 85 and 95 % of a sensor's critical temperature, of 100 degrees where it names none."""
    assert thermal_state(sensors) == state


def test_cgroups_cut_cpus_and_memory(tmp_path: Path) -> None:
    """The smallest cpu.max and memory.max on the way up count, and available memory is what the limit leaves."""
    put(tmp_path, "proc/self/cgroup", "1:cpu:/old\n0::/outer/inner\n")
    put(tmp_path, "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    put(tmp_path, "sys/fs/cgroup/outer/inner/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/outer/cpu.max", "50000 100000\n")
    put(tmp_path, "sys/fs/cgroup/outer/memory.max", "256000000\n")
    put(tmp_path, "sys/fs/cgroup/outer/memory.current", "200000000\n")
    assert machine.cpus(tmp_path) == 0.5
    assert machine.memory_gb(tmp_path) == 0.256
    assert Probe(tmp_path).sample().memory_available_gb == 0.056


def test_without_cgroups_affinity_and_the_machine_count(tmp_path: Path) -> None:
    """Whole cores that this process may run on, all memory."""
    assert machine.cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert machine.memory_gb(tmp_path) > 0.1


def test_machine_id_is_steady_private_and_another_on_another_machine(tmp_path: Path) -> None:
    """Derived from the system's id, which cannot be read back from it."""
    state = StateDir(tmp_path / "state")
    put(tmp_path / "a", "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    put(tmp_path / "b", "etc/machine-id", "0123456789abcdef0123456789abcdee\n")
    first = machine.machine_id(state, tmp_path / "a")
    assert first == machine.machine_id(state, tmp_path / "a")
    assert first != machine.machine_id(state, tmp_path / "b")
    assert len(first) == 32
    assert "0123456789abcdef" not in first


def test_a_machine_without_an_id_keeps_a_random_one(tmp_path: Path) -> None:
    """In the state directory, 0600, the same every time; an empty system file counts as none."""
    put(tmp_path, "etc/machine-id", "\n")
    state, other = StateDir(tmp_path / "s1"), StateDir(tmp_path / "s2")
    first = machine.machine_id(state, tmp_path)
    assert first == machine.machine_id(state, tmp_path)
    assert first != machine.machine_id(other, tmp_path)
    assert stat.S_IMODE((tmp_path / "s1" / "machine_id").stat().st_mode) == 0o600


def an_nvidia_smi(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in index order and their used memory together, in GB of 10^9 bytes."""
    an_nvidia_smi(tmp_path, "echo 'NVIDIA A100, 1024'; echo 'NVIDIA \"B\", 2048'", monkeypatch)
    found = asyncio.run(gpus.ask())
    assert found.names == ("NVIDIA A100", 'NVIDIA "B"')
    assert found.memory_used_gb == round(3072 * 1024 * 1024 / 1e9, 3)


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "exec sleep 60"])
def test_a_broken_nvidia_smi_is_no_gpu_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """Failing, talking nonsense or hanging: within the limit there are simply no GPUs."""
    an_nvidia_smi(tmp_path, script, monkeypatch)

    async def go() -> gpus.Gpus:
        async with asyncio.timeout(60):
            return await gpus.ask(timeout_s=0.3)

    assert asyncio.run(go()) == gpus.Gpus()


def test_unknown_gpu_memory_is_unknown_not_nothing() -> None:
    """`[N/A]` makes the sum None; the names stay."""
    assert gpus.parse("GB10, [N/A]\n") == gpus.Gpus(names=("GB10",))


def test_a_hanging_sensor_delays_no_heartbeat() -> None:
    """While the one sampling thread is stuck, heartbeats go on with what was known; a failure leaves fields empty."""
    stuck = threading.Event()

    def sample() -> Sample:
        stuck.wait(30)
        return Sample(at_s=0.0)

    async def go() -> None:
        vitals = Vitals(sample)
        standing = Standing(process_id="p", daemon=1, resume_key="")
        try:
            async with asyncio.timeout(60):
                for _ in range(3):
                    await vitals.look()
                    assert vitals.heartbeat(standing).cpu_usage is None
        finally:
            stuck.set()
            vitals.close()

    asyncio.run(go())


def test_a_failing_sensor_costs_its_fields_alone() -> None:
    """An exception of a driver is logged, and the heartbeat goes out."""

    def sample() -> Sample:
        raise OSError("bad sensor")

    async def go() -> None:
        vitals = Vitals(sample)
        await vitals.look()
        beat = vitals.heartbeat(Standing(process_id="p", daemon=2, resume_key=""))
        assert beat.memory_pressure is None
        assert beat.seq > 2 * 2**32
        vitals.close()

    asyncio.run(go())
