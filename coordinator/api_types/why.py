"""The structs of HTTP answers that say why a job stands as it does, and what one that was not submitted would be."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp


class Obstacle(Struct, frozen=True, kw_only=True):
    """One constraint and how many of the enrolled providers it alone rules out."""

    constraint: str
    providers: int
    text: str
    ever: bool
    """Waiting may help."""


class StepWhy(Struct, frozen=True, kw_only=True):
    """Why a step's tasks run or do not run."""

    step: int
    name: str
    tasks: int
    waiting: int
    running: int
    verdict: str
    """runs, wait, never or ended."""
    text: str
    hint: str
    """The nearest change that would help."""
    able_now: int
    """Providers that could take a task of it this moment."""
    able_ever: int
    """Providers that could with nothing else on them."""
    eta: Timestamp | None
    """When it is expected to start, those ahead of it in the queue counted, where run times or limits tell."""
    obstacles: tuple[Obstacle, ...]
    ahead: int = 0
    """Places in the queue before it."""


class JobWhy(Struct, frozen=True, kw_only=True):
    """Why a job stands as it does, step by step."""

    job_id: int
    state: str
    reason: str
    providers: int
    """Enrolled ones."""
    steps: tuple[StepWhy, ...]


class StepPlan(Struct, frozen=True, kw_only=True):
    """A step as it would be run."""

    step: int
    name: str
    needs: tuple[str, ...]
    when: str
    tasks: int
    nodes: int
    resources: tuple[str, ...]
    """The alternatives in words, the preferred one first."""
    commands: tuple[tuple[str, ...], ...]
    """Argument lists of the first tasks."""
    settings: dict[str, str]
    """Whatever was not left at its default, in words."""


class DimensionAsk(Struct, frozen=True, kw_only=True):
    """A limited dimension of a tenant's quota, and what a job would ask of it. Units as in `api_tenants`."""

    name: str
    used: int
    reserved: int
    request: int
    limit: int
    guardrail: int
    fits: bool


class Preview(Struct, frozen=True, kw_only=True):
    """A job that was not submitted: what it consists of, and who could run it now."""

    name: str
    tenant: str
    tasks: int
    deadline: Timestamp | None
    steps: tuple[StepPlan, ...]
    providers: int
    """Enrolled ones."""
    why: tuple[StepWhy, ...]
    estimate: int = 0
    """What would be reserved for it, in millionths of the unit of account."""
    estimate_text: str = "0"
    dimensions: tuple[DimensionAsk, ...] = ()
    """The tenant's limited dimensions."""
