"""People with data: they upload files and name them, take names away, and give their jobs inputs, outputs and state."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from coordinator.core.data import events
from coordinator.core.data.rows import ArtifactRow, BlobRow
from coordinator.core.errors import Code
from coordinator.core.events import AnyEvent
from coordinator.core.ids import Ms, RequestId, TenantName
from coordinator.core.work.jobspec import CheckpointRule, Input, JobSpec, StepSpec, When
from coordinator.simulator.depot import Depot
from coordinator.simulator.durable import Disk
from coordinator.simulator.goods import shared
from coordinator.simulator.treasurer import EVERYBODY

BY = "token:admin"
NAMES = ("model", "table", "corpus", "settings")


class Curator:
    """Does one thing every few seconds."""

    def __init__(self, depot: Depot, disk: Disk, dice: Random, unit_ms: Ms) -> None:
        self.calm = False
        self._depot, self._disk, self._dice, self._unit_ms = depot, disk, dice, unit_ms
        self._later()

    def _later(self) -> None:
        self._depot.after(2, 12, self._act)

    def _act(self) -> None:
        if self.calm:
            return
        self._later()
        dice = self._dice
        tenant, name = dice.choice(EVERYBODY), dice.choice(NAMES)
        if dice.random() < 0.25:
            self._depot.ask(lambda now, request_id: self._remove(now, request_id, tenant, name), lambda result: None)
            return
        digest = shared(dice.randrange(100)) if dice.random() < 0.7 else self._depot.truth.fresh()

        def done(why: Code | None) -> None:
            if why is None and dice.random() < 0.6:
                self._depot.ask(put, lambda result: None)

        def put(now: Ms, request_id: RequestId) -> AnyEvent:
            known = next(iter(self._depot.known(tenant, (digest,))), None)
            return events.ArtifactPut(
                at_ms=now, request_id=request_id, tenant=tenant, by=BY, name=name, digest=digest, known=known
            )

        self._depot.upload(tenant, digest, BY, done, tries=2)

    def _remove(self, now: Ms, request_id: RequestId, tenant: TenantName, name: str) -> AnyEvent:
        known = self._disk.rows.get(("artifact", (tenant, name)))
        return events.ArtifactRemove(
            at_ms=now,
            request_id=request_id,
            tenant=tenant,
            by=BY,
            name=name,
            known=known if isinstance(known, ArtifactRow) else None,
        )

    # ---- jobs

    def with_data(self, spec: JobSpec, tenant: TenantName) -> JobSpec:
        """Some of its steps take inputs, declare outputs, save their state."""
        there = [row for row in self._disk.rows.values() if isinstance(row, BlobRow) and row.tenant == tenant]
        steps: list[StepSpec] = []
        for step in spec.steps:
            steps.append(self._step(step, steps, there))
        return replace(spec, steps=tuple(steps))

    def _step(self, step: StepSpec, before: list[StepSpec], there: list[BlobRow]) -> StepSpec:
        dice = self._dice
        inputs: list[Input] = []
        if there and dice.random() < 0.3:
            inputs.append(Input(path="in/data", digest=dice.choice(there).digest))
        if step.when is When.SUCCEEDED:
            inputs += [Input(path="before", step=n, pattern="**") for n in step.needs if before[n].outputs]
        rule = None
        if dice.random() < 0.5:
            auto = dice.random() < 0.3
            every_ms = None if auto else dice.choice((None, 2, 5, 15))
            rule = CheckpointRule(
                auto=auto,
                every_ms=every_ms * self._unit_ms if every_ms is not None else None,
                keep=dice.choice((1, 2, 3)),
            )
            length = str(dice.choice((15, 60, 120)) * self._unit_ms)
            step = replace(step, command=(step.command[0], length, step.command[2]), time_limit_ms=None)
        outputs = ("out/*",) if dice.random() < 0.4 else ()
        return replace(step, inputs=tuple(inputs), outputs=outputs, checkpoint=rule)

    def inputs_of(self, spec: JobSpec, tenant: TenantName) -> tuple[BlobRow, ...]:
        """What the store has of them now."""
        named = {given.digest: None for step in spec.steps for given in step.inputs if given.step is None}
        return self._depot.known(tenant, tuple(named))
