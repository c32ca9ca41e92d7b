"""The tables of a cluster that shares GPUs: nodes, and pods with parts of a GPU (columns of Alibaba's openb 2023)."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import PoolName, ProviderId
from coordinator.core.rows import Resources
from coordinator.simulator.history.fleet import Fleet, Machine, of_nodes
from coordinator.simulator.history.workload import Job, Workload

MIB = 1024 * 1024
MILLI = UNIT // 1_000
NO_GPU = "cpu"
"""The pool of nodes without GPUs; the others are in the pool of their model."""


def read_nodes(rows: Iterable[dict[str, str]]) -> Fleet:
    """`sn, cpu_milli, memory_mib, gpu, model`: nodes that are always there, in the pool of their GPU's model."""
    machines: dict[ProviderId, Machine] = {}
    for number, row in enumerate(rows, 2):
        try:
            gpus, model = int(row["gpu"] or 0), row["model"] or "gpu"
            machines[ProviderId(row["sn"])] = Machine(
                resources=Resources(
                    cpus=int(row["cpu_milli"]) / 1_000,
                    memory_gb=int(row["memory_mib"]) * MIB / 1e9,
                    gpus=(model,) * gpus,
                ),
                pool=PoolName(model if gpus else NO_GPU),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(number, error) from None
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
            count, milli = int(row["num_gpu"] or 0), int(row["gpu_milli"] or 0)
            gpus = milli * MILLI if count == 1 else count * UNIT
            ask = Ask(cpus=int(row["cpu_milli"]) * MILLI, memory=int(row["memory_mib"]) * MIB, gpus=gpus)
            models = tuple(PoolName(model) for model in row["gpu_spec"].split("|") if model)
            job = Job(at_ms=round(float(row["creation_time"]) * 1_000), run_ms=round(run_s * 1_000), ask=ask)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(number, error) from None
        if run_s <= 0:
            never += 1
            continue
        jobs.append(Job(at_ms=job.at_ms, run_ms=job.run_ms, ask=ask, pools=models))
    jobs.sort(key=lambda job: job.at_ms)
    return Workload(jobs=tuple(jobs), left_out={"never ran, or for an unknown time": never} if never else {})


def _bad(number: int, error: Exception) -> CoordError:
    return CoordError(Code.BAD_IMPORT, f"line {number} cannot be read: {error}", "are these openb's columns?")
