"""LiveViews: what readers see follows the notes, and forgets what they say is gone."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import commands
from coordinator.core.decide import decide
from coordinator.core.events import TokenCreate
from coordinator.core.ids import RequestId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Role
from coordinator.core.state import ClusterState
from coordinator.service.tokens import digest_of
from coordinator.service.views import LiveViews

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
