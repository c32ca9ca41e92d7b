"""Every field of a job file, as the structs that /openapi.json and the reference page's test read.

The known keys come from here. What a value means is checked in `steps`, `resources`, `arrays` and `parse`, which list
everything that is wrong at once; a decoder would stop at the first.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.core.work.jobspec import PRIORITY_MAX, PRIORITY_MIN

Length = Annotated[str, Meta(description="a length of time: 90s, 2h, 1h30m", examples=["1h30m"])]
Size = Annotated[str, Meta(description="bytes with a unit: 512MiB, 16GiB, 4GB", examples=["16GiB"])]


class ResourcesModel(Struct, frozen=True, kw_only=True):
    """What one rank of a task needs."""

    cpus: Annotated[float, Meta(ge=0, description="CPUs; parts of one are allowed")] = 1.0
    gpus: Annotated[float, Meta(ge=0, description="GPUs; 0.5 is half of one, 1.5 one and a half of another")] = 0.0
    memory: Size | UnsetType = UNSET
    named: dict[str, float] | UnsetType = UNSET
    """Of whatever else a provider offers."""


class RetryModel(Struct, frozen=True, kw_only=True):
    """When a task that failed is tried again."""

    limit: Annotated[int, Meta(ge=0, description="failures that are tried again")] = 3
    losses: Annotated[int, Meta(ge=0, description="lost providers that are made up for")] = 10
    delay: Length = "5s"
    factor: Annotated[float, Meta(ge=1, description="each further delay is so many times the one before")] = 2.0
    delay_max: Length = "10m"
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    elsewhere: bool = False
    verdict: Annotated[str, Meta(description="obey, advise or off: what the verdict on a failure is worth")] = "obey"


class InputModel(Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """Something that is there before a task starts, and where."""

    source: Annotated[str, Meta(description="./FILE, ./DIR/, STEP:FILES, artifact:NAME or artifact:DIGEST")]
    to: Annotated[str, Meta(description="beneath the working directory")] | UnsetType = UNSET
    size: Annotated[int, Meta(ge=0, description="bytes, of an artifact; checked where it is given")] | UnsetType = UNSET
    executable: bool = False


class CheckpointModel(Struct, frozen=True, kw_only=True):
    """How the state of a task is saved and restored."""

    path: Annotated[str, Meta(description="a directory beneath the working directory")] | UnsetType = UNSET
    every: Annotated[str, Meta(description="a length of time, or auto")] | UnsetType = UNSET
    keep: Annotated[int, Meta(ge=1, description="the last so many are kept")] = 2
    signal: str | UnsetType = UNSET
    grace: Length = "1m"


class EstimateModel(Struct, frozen=True, kw_only=True):
    """What all tasks of a job together are declared to use. It is reserved under the tenant's quotas until they end."""

    cost: Annotated[
        str | float, Meta(description='units of account, exact to a millionth: 12.5 or "12.5"; else made from prices')
    ] | UnsetType = UNSET  # fmt: skip
    storage: Size | UnsetType = UNSET
    """Bytes that stay; the next two travel to and from providers."""
    ingress: Size | UnsetType = UNSET
    egress: Size | UnsetType = UNSET


class StepFields(Struct, frozen=True, kw_only=True):
    """What says how a task is run. At the top level of a file it describes a job of one step."""

    command: tuple[str, ...] | UnsetType = UNSET
    """The argument list."""
    shell: str | UnsetType = UNSET
    """Instead of a command: a text for /bin/sh -c."""
    array: str | tuple[str | int, ...] | UnsetType = UNSET
    matrix: dict[str, tuple[str | int | float | bool, ...]] | UnsetType = UNSET
    resources: ResourcesModel | tuple[ResourcesModel, ...] | UnsetType = UNSET
    nodes: Annotated[int, Meta(ge=1)] = 1
    pool: str | UnsetType = UNSET
    pools: tuple[str, ...] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    isolation: str = "none"
    min_score: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    min_forecast: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    time_limit: Length | UnsetType = UNSET
    expected_runtime: Length | UnsetType = UNSET
    grace: Length = "10s"
    env: dict[str, str] | UnsetType = UNSET
    directory: str | UnsetType = UNSET
    stdin: str | UnsetType = UNSET
    retry: RetryModel | UnsetType = UNSET
    on_lost: str = "auto"
    overlap: str = "forbid"
    log_full: str = "truncate"
    log_max: Size | UnsetType = UNSET
    max_fails: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    max_running: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    runtime: str = "plain"
    arrangement: str = "pack"
    inputs: tuple[str | InputModel, ...] = ()
    outputs: tuple[str, ...] = ()
    checkpoint: CheckpointModel | UnsetType = UNSET
    stall_after: Length | UnsetType = UNSET


class StepModel(StepFields, frozen=True, kw_only=True):
    """One step of several."""

    name: str
    needs: tuple[str, ...] = ()
    when: str = "succeeded"


class JobFile(StepFields, frozen=True, kw_only=True):
    """A job: `step` is a list of steps, or the fields of its only step stand beside `name`."""

    name: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    deadline: str | UnsetType = UNSET
    """A time, or a length from now."""
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] = 0
    estimate: EstimateModel | UnsetType = UNSET
    defaults: StepFields | UnsetType = UNSET
    """What holds for every step that does not say otherwise."""
    step: tuple[StepModel, ...] | UnsetType = UNSET


SHARED = frozenset(StepFields.__struct_fields__)
"""Fields of a step that `defaults` may hold, too."""
STEP = frozenset(StepModel.__struct_fields__)
JOB = frozenset({"name", "tenant", "deadline", "priority", "estimate", "defaults", "step"})
RESOURCES = frozenset(ResourcesModel.__struct_fields__)
RETRY = frozenset(RetryModel.__struct_fields__)
ESTIMATE = frozenset(EstimateModel.__struct_fields__)
INPUT = frozenset(InputModel.__struct_encode_fields__)
CHECKPOINT = frozenset(CheckpointModel.__struct_fields__)
