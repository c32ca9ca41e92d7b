"""Who decides about tenants: quotas, weights and budgets, what pools cost, and all of it anew while work runs."""

from __future__ import annotations

from random import Random

from coordinator.core import events
from coordinator.core.amounts import UNIT, Price
from coordinator.core.ids import Ms, PoolName, TenantName
from coordinator.core.rows import OnBudget, OnFull, PoolRow, Quota, TenantRow
from coordinator.core.work.jobspec import PRIORITY_MAX
from coordinator.simulator.head import Head

DEFAULT = TenantName("default")
TENANTS = tuple(map(TenantName, ("physics", "bio", "guests")))
EVERYBODY = (DEFAULT, *TENANTS)
"""Who submits."""
DIMENSIONS = tuple(Quota.__struct_fields__)
GB = 10**9


class Treasurer:
    """Makes tenants before the story begins, and changes something at random later on."""

    def __init__(self, dice: Random, unit_ms: Ms) -> None:
        self._dice, self._unit_ms = dice, unit_ms

    def plant(self, began_ms: Ms) -> list[TenantRow | PoolRow]:
        """What there is before anybody asks."""
        dice = self._dice
        rows: list[TenantRow | PoolRow] = []
        for name in TENANTS:
            quota = Quota(**{d: self._limit(d) for d in DIMENSIONS if dice.random() < (0.6 if d == "budget" else 0.25)})
            rows.append(
                TenantRow(
                    name=name,
                    created_at_ms=began_ms,
                    quota=quota,
                    weight=dice.choice((1, 1, 2, 3)),
                    priority_max=dice.choice((0, 5, PRIORITY_MAX)),
                    on_full=dice.choice(list(OnFull)),
                    on_budget=dice.choice(list(OnBudget)),
                    runtime_ms=dice.choice((10, 60, 600)) * self._unit_ms,
                )
            )
        if dice.random() < 0.7:
            rows.append(PoolRow(name=PoolName("default"), created_at_ms=began_ms, price=self._price()))
        return rows

    def ask(self, head: Head) -> str:
        """Change one thing; returns what it was, for the story."""
        dice = self._dice
        at_ms, request_id = head.now_ms(), head.request()
        what = dice.choices(("set", "price", "read", "delete", "create"), (6, 2, 2, 1, 2))[0]
        name = dice.choice(EVERYBODY if what == "set" and dice.random() < 0.2 else TENANTS)
        match what:
            case "set":
                chosen = {dice.choice(DIMENSIONS): None, dice.choice((*DIMENSIONS, *("budget",) * 8)): None}
                limits = {d: self._limit(d) if dice.random() < 0.7 else None for d in chosen}
                head.post(
                    events.TenantSet(
                        at_ms=at_ms,
                        request_id=request_id,
                        name=name,
                        quota=tuple(limits.items()),
                        weight=dice.choice((None, 1, 3)),
                        priority_max=dice.choice((None, 0, PRIORITY_MAX)),
                        on_full=dice.choice((None, *OnFull)),
                        on_budget=dice.choice((None, *OnBudget)),
                    )
                )
                return f"limits {name}: {', '.join(f'{d} {limit}' for d, limit in limits.items())}"
            case "price":
                price = self._price() if dice.random() < 0.8 else Price()
                pool = PoolName(dice.choice(("default", "default", "lab")))
                head.post(events.PoolPrice(at_ms=at_ms, request_id=request_id, name=pool, price=price))
                return f"prices {pool} at {price.cpu}, {price.gpu}, {price.memory}"
            case "read":
                head.post(events.UsageRead(at_ms=at_ms, request_id=request_id))
                return "reads what is used"
            case "delete":
                head.post(events.TenantDelete(at_ms=at_ms, request_id=request_id, name=name))
                return f"deletes {name}"
            case _:
                head.post(events.TenantSet(at_ms=at_ms, request_id=request_id, name=name, create=True))
                return f"makes {name}"

    def lift_all(self, head: Head) -> None:
        """No limits any more: whatever waits for its tenant's room may go on."""
        for name in (DEFAULT, *TENANTS):
            head.post(
                events.TenantSet(
                    at_ms=head.now_ms(),
                    request_id=head.request(),
                    name=name,
                    quota=tuple((dimension, None) for dimension in DIMENSIONS),
                )
            )

    def _limit(self, dimension: str) -> int:
        """Small enough to be met."""
        dice = self._dice
        match dimension:
            case "cpus":
                return dice.choice((2, 3, 5, 9, 20)) * UNIT + dice.choice((0, 0, 1, -1))
            case "gpus":
                return dice.choice((0, 1, 2, 3)) * UNIT
            case "memory":
                return dice.choice((3, 5, 12)) * GB
            case "running" | "queued":
                return dice.choice((0, 1, 2, 4))
            case "budget":
                return int(dice.choice((10, 50, 200, 1_000)) * UNIT * dice.uniform(0.5, 1.5))
            case _:
                return dice.choice((1, 10)) * GB

    def _price(self) -> Price:
        """Some hundred units of account for what a world runs, and a price at which every charge is rounded."""
        dice = self._dice
        scale = 3_600_000 // self._unit_ms
        return Price(
            cpu=dice.choice((7, UNIT // 10, UNIT)) * scale // dice.choice((1, 3)),
            gpu=dice.choice((0, UNIT)) * scale,
            memory=dice.choice((0, 1, UNIT // 50)) * scale,
        )
