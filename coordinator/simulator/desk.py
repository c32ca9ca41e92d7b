"""The core at a desk: whatever is told is decided, agents answer in the same moment, and whoever waits is placed, until
nobody has anything more to say.

For worlds without an engine: nothing is made durable, and nothing is on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from coordinator.core import events
from coordinator.core.commands import Decision, Enrolled
from coordinator.core.decide import decide
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.ids import ConnId, Ms, PoolName, ProviderId, RequestId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Promises, Resources, Role, TokenRow
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import Isolation
from coordinator.simulator.violation import Violation

PLACES_MAX = 10_000
"""Place events in a row: more is a scheduler that never comes to rest."""
NEVER_MS: Ms = 100 * 366 * 86_400_000
QUIET = Policy(
    heartbeat_interval_ms=NEVER_MS,
    heartbeat_budget_per_s=1e12,
    lost_after_ms=NEVER_MS,
    beat_save_every_ms=NEVER_MS,
    alive_every_ms=NEVER_MS,
    stall_ms=NEVER_MS,
    outage_ms=NEVER_MS,
)
"""The usual policy, but that silence means nothing: nobody beats here."""
ADMIN = "admin"


def admin_row(at_ms: Ms) -> TokenRow:
    """By whose token machines enrol."""
    return TokenRow(token_id=TokenId(ADMIN), role=Role.ADMIN, digest=ADMIN, created_at_ms=at_ms)


class Desk:
    """`carry_out` is given every decision: it answers by `say`, and tells nothing by itself."""

    def __init__(
        self, state: ClusterState, policy: Policy, now: Callable[[], Ms], carry_out: Callable[[Decision], None]
    ) -> None:
        self.state = state
        self.decided = 0
        """Events so far."""
        self._policy, self._now, self._carry_out = policy, now, carry_out
        self._requests = 0
        self._said: deque[events.AnyEvent] = deque()

    def request(self) -> RequestId:
        """The next number of a request."""
        self._requests += 1
        return RequestId(self._requests)

    def enrol(self, name: ProviderId, pool: PoolName = DEFAULT_POOL) -> None:
        """A machine that nobody knew, let in by the admin of `admin_row`."""
        event = events.ProviderEnrol(
            at_ms=self._now(),
            request_id=self.request(),
            provider_id=name,
            machine_id=name,
            token_digest=ADMIN,
            credential_digest=f"credential of {name}",
            credential_id=TokenId(f"credential-{name}"),
            pool=pool,
        )
        granted = self.tell(event).replies[0].result
        assert isinstance(granted, Enrolled), f"{name} is not enrolled: {granted}"

    def connect(self, conn_id: ConnId, name: ProviderId, resources: Resources, *, data: bool) -> None:
        """Its agent's first word on a new connection, after a boot. `data`: it brings and saves files."""
        promises = Promises(work=True, isolation=Isolation.SANDBOX, kills_all=True, freezes_all=True, data=data)
        hello = events.AgentHello(
            at_ms=self._now(),
            conn_id=conn_id,
            provider_id=name,
            machine_id=name,
            boot_id=f"boot-{conn_id}",
            process_id=f"process-{conn_id}",
            agent_version="1",
            peer="",
            fresh_resume_digest="",
            resources=resources,
            promises=promises,
        )
        self.tell(hello)

    def say(self, event: events.AnyEvent) -> None:
        """An agent's answer: heard before anybody is placed."""
        self._said.append(event)

    def tell(self, event: events.AnyEvent) -> Decision:
        """Decide it and what follows from it."""
        decision = self.decide(event)
        self.come_to_rest()
        return decision

    def decide(self, event: events.AnyEvent) -> Decision:
        """Decide it alone: `come_to_rest` is to follow in the same moment."""
        self.decided += 1
        decision = decide(self.state, event, self._policy)
        self._carry_out(decision)
        return decision

    def come_to_rest(self) -> None:
        """Raises Violation when the queue asks for a place for ever."""
        for _ in range(PLACES_MAX):
            while self._said:
                self.decide(self._said.popleft())
            if not self.state.work.place_due:
                return
            self.decide(events.Place(at_ms=self._now()))
        raise Violation(f"the queue asks for a place for ever at {self._now()}")
