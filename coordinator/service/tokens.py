"""Secrets: how their texts are made, and what is kept of them. A text is shown once and stored nowhere."""

from __future__ import annotations

import hashlib
import secrets

from coordinator.core.ids import TokenId
from coordinator.core.rows import Role


def new_token_text(role: Role) -> str:
    """256 random bits behind the role's name: `coord-<role>-<secret>`."""
    return f"coord-{role.value}-{secrets.token_urlsafe(32)}"


def new_resume_key() -> str:
    """128 random bits: it lives for one connection, beside a credential."""
    return secrets.token_urlsafe(16)


def new_token_id() -> TokenId:
    """A short random name for a token, safe to show."""
    return TokenId(secrets.token_hex(6))


def digest_of(secret: str) -> str:
    """SHA-256 of the text, in hex. Our secrets are random, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
