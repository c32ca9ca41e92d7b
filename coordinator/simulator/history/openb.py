"""The tables of a cluster that shares GPUs: nodes, and pods with parts of a GPU (columns of Alibaba's openb 2023)."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import PoolName, ProviderId, check_name
from coordinator.core.rows import Resources
from coordinator.simulator.history.fleet import NODES_MAX, Fleet, Machine, of_nodes
from coordinator.simulator.history.workload import AT_MAX_MS, RUN_MAX_MS, Job, Workload, may_grow

MIB = 1024 * 1024
MILLI = UNIT // 1_000
GPUS_MAX, MILLI_MAX, MIB_MAX = 64, 10**9, 10**9
"""Of one node or pod."""
NO_GPU = "cpu"
"""The pool of nodes without GPUs; the others are in the pool of their model."""


def read_nodes(rows: Iterable[dict[str, str]]) -> Fleet:
    """`sn, cpu_milli, memory_mib, gpu, model`: nodes that are always there, in the pool of their GPU's model."""
    machines: dict[ProviderId, Machine] = {}
    for number, row in enumerate(rows, 2):
        try:
            gpus, model = _within("gpu", row["gpu"] or "0", GPUS_MAX), check_name(row["model"] or "gpu", "pool")
            machines[ProviderId(check_name(row["sn"], "provider"))] = Machine(
                resources=Resources(
                    cpus=_within("cpu_milli", row["cpu_milli"], MILLI_MAX) / 1_000,
                    memory_gb=_within("memory_mib", row["memory_mib"], MIB_MAX) * MIB / 1e9,
                    gpus=(model,) * gpus,
                ),
                pool=PoolName(model if gpus else NO_GPU),
            )
        except (KeyError, TypeError, ValueError, OverflowError, CoordError) as error:
            raise _bad(number, error) from None
        if len(machines) > NODES_MAX:
            raise CoordError(Code.TOO_MANY, f"the fleet has more than {NODES_MAX} nodes", "cut it into parts")
    return of_nodes(machines)


def read_pods(rows: Iterable[dict[str, str]]) -> Workload:
    """Pods that ran, as jobs of one node: from `creation_time`, for `deletion_time - scheduled_time`.

    `gpu_milli` is the part of one GPU that it asked for; `gpu_spec` names models it may have (`A|B`).
    """
    jobs: list[Job] = []
    never = 0
    for number, row in enumerate(rows, 2):
        try:
            if not row["scheduled_time"] or not row["deletion_time"]:
                never += 1
                continue
            run_s = float(row["deletion_time"]) - float(row["scheduled_time"])
            count = _within("num_gpu", row["num_gpu"] or "0", GPUS_MAX)
            milli = _within("gpu_milli", row["gpu_milli"] or "0", 1_000)
            gpus = milli * MILLI if count == 1 else count * UNIT
            ask = Ask(
                cpus=_within("cpu_milli", row["cpu_milli"], MILLI_MAX) * MILLI,
                memory=_within("memory_mib", row["memory_mib"], MIB_MAX) * MIB,
                gpus=gpus,
            )
            models = tuple(PoolName(check_name(model, "pool")) for model in row["gpu_spec"].split("|") if model)
            at_ms = float(row["creation_time"]) * 1_000
            if not (0 <= at_ms <= AT_MAX_MS and run_s * 1_000 <= RUN_MAX_MS):
                raise ValueError(f"creation_time {at_ms / 1_000:g} or a run of {run_s:g} s is out of range")
            job = Job(at_ms=round(at_ms), run_ms=round(run_s * 1_000), ask=ask)
        except (KeyError, TypeError, ValueError, OverflowError, CoordError) as error:
            raise _bad(number, error) from None
        if run_s <= 0:
            never += 1
            continue
        may_grow(jobs)
        jobs.append(Job(at_ms=job.at_ms, run_ms=job.run_ms, ask=ask, pools=models))
    jobs.sort(key=lambda job: job.at_ms)
    return Workload(jobs=tuple(jobs), left_out={"never ran, or for an unknown time": never} if never else {})


def _within(name: str, text: str, most: int) -> int:
    """A whole number from 0 to `most`; ValueError for any other."""
    number = int(text) if len(text) < 20 else -1
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {text[:20]!a}, no number from 0 to {most}")
    return number


def _bad(number: int, error: Exception) -> CoordError:
    return CoordError(Code.BAD_IMPORT, f"line {number} cannot be read: {error}", "are these openb's columns?")
