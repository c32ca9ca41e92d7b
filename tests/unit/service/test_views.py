"""LiveViews: what readers see follows the notes, and forgets what they say is gone."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import commands
from coordinator.core.decide import decide
from coordinator.core.events import Place, TenantDelete, TenantSet, TokenCreate
from coordinator.core.ids import RequestId, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptState, Role
from coordinator.core.state import ClusterState
from coordinator.service.tokens import digest_of
from coordinator.service.views import LiveViews
from tests.unit.service.relay_rig import an_attempt
from tests.unit.service.test_pressure import Rig

NOW_MS = 1_800_000_000_000


def _made(state: ClusterState, name: str, expires_at_ms: int | None = None) -> commands.Decision:
    event = TokenCreate(
        at_ms=NOW_MS,
        request_id=RequestId(1),
        token_id=TokenId(name),
        digest=digest_of(name),
        role=Role.READ_ONLY,
        expires_at_ms=expires_at_ms,
    )
    return decide(state, event, Policy(tokens_max=2))


def test_a_token_opens_until_it_is_revoked_or_expires() -> None:
    """`authenticate` knows it by its text, and no longer once it opens nothing."""
    state, views = ClusterState("c"), LiveViews()
    views.apply(_made(state, "short", NOW_MS + 10).notes)
    views.apply(_made(state, "long").notes)
    assert views.authenticate("short", NOW_MS + 9) is not None
    assert views.authenticate("short", NOW_MS + 10) is None
    views.apply([commands.TokenChanged(replace(state.tokens[TokenId("long")], revoked_at_ms=NOW_MS))])
    assert views.authenticate("long", NOW_MS) is None


def test_tokens_that_made_room_are_gone_from_the_views_too() -> None:
    """At the bound, dead tokens are removed from the state and from what readers hold."""
    state, views = ClusterState("c"), LiveViews()
    views.apply(_made(state, "dead", NOW_MS + 1).notes)
    views.apply(_made(state, "alive").notes)
    state.now_ms = NOW_MS + 2
    views.apply(_made(state, "new").notes)
    assert {"alive", "new"} == set(views.tokens) == set(state.tokens)


def test_a_lost_attempt_is_fenced_in_the_views_after_a_restart_too() -> None:
    """As it was published when it happened, and as it is derived from what is loaded."""
    rig = Rig()
    views = LiveViews()
    rig.submit()
    rig.run_first()
    (first,) = rig.fleet.state.work.attempts
    for seconds in range(1, 60):
        rig.fleet.at(seconds)
        rig.fleet.tick()
        rig.fleet.decide(Place(at_ms=rig.fleet.now_ms))
    for decision in rig.fleet.decisions:
        views.apply(decision.notes)
    lost = views.attempts.get(first)
    assert lost is not None and lost.row.state is AttemptState.LOST
    fresh = LiveViews()
    fresh.load(rig.fleet.state)
    loaded = fresh.attempts.get(first)
    assert loaded is not None and loaded == replace(lost, tenant=loaded.tenant)
    assert first not in {view.row.attempt_id for view in fresh.attempts.live()}


def test_a_fence_stays_when_something_else_of_the_attempt_changes_and_goes_when_it_comes_back() -> None:
    """The release of its capacity is no pardon; an end that counted after all is."""
    views, lost = LiveViews(), an_attempt(state=AttemptState.LOST)
    views.apply([commands.AttemptChanged(row=lost, tenant=TenantName("default"), fenced=True)])
    released = replace(lost, ranks=tuple(replace(rank, released=True) for rank in lost.ranks))
    views.apply([commands.AttemptChanged(row=released, tenant=TenantName("default"))])
    view = views.attempts.get(lost.attempt_id)
    assert view is not None and view.fenced
    ended = an_attempt(state=AttemptState.COMPLETED, out_bytes=3)
    views.apply([commands.AttemptChanged(row=ended, tenant=TenantName("default"))])
    view = views.attempts.get(lost.attempt_id)
    assert view is not None and not view.fenced


def test_tenants_are_shown_as_they_became_durable_and_after_a_load() -> None:
    """Made, changed, deleted; the default one only where it has a row."""
    state, views = ClusterState("c"), LiveViews()

    def said(event: TenantSet | TenantDelete) -> None:
        views.apply(decide(state, event, Policy()).notes)

    lab = TenantName("lab")
    said(TenantSet(at_ms=NOW_MS, request_id=RequestId(1), name=lab, create=True, weight=3))
    assert 3 == views.tenants[lab].weight
    said(TenantSet(at_ms=NOW_MS, request_id=RequestId(2), name=lab, quota=(("cpus", 5),)))
    assert (3, 5) == (views.tenants[lab].weight, views.tenants[lab].quota.cpus)
    fresh = LiveViews()
    fresh.load(state)
    assert views.tenants == fresh.tenants == {lab: views.tenants[lab]}
    said(TenantDelete(at_ms=NOW_MS, request_id=RequestId(3), name=lab))
    assert not views.tenants
