"""Room for one more token: those that open nothing any more are removed when the bound is reached."""

from __future__ import annotations

from coordinator.core.commands import Decision, Delete, TokenForgotten
from coordinator.core.errors import Code, CoordError
from coordinator.core.policy import Policy
from coordinator.core.rows import Role
from coordinator.core.state import ClusterState


def make_room(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Make room by removing the tokens that open nothing any more; TOO_MANY when there are none."""
    dead = [t for t in state.tokens.values() if t.role is not Role.AGENT and state.valid_token(t.digest) is None]
    if not dead:
        raise CoordError(
            Code.TOO_MANY, f"{policy.tokens_max} tokens exist, no more are taken", "revoke some: coord token list"
        )
    for row in dead:
        state.remove_token(row.token_id)
        out.writes.append(Delete("token", row.token_id))
        out.notes.append(TokenForgotten(row))
