"""The structs of HTTP about tokens."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp


class TokenRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`role`: admin, tenant, read-only or join."""

    role: str
    note: str = ""
    expires_in_s: float | None = None
    pool: str | None = None
    tenant: str | None = None


class TokenEntry(Struct, frozen=True, kw_only=True):
    """A token without its text."""

    token_id: str
    role: str
    note: str
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    provider_id: str | None
    pool: str | None
    tenant: str | None


class TokenMade(Struct, frozen=True, kw_only=True):
    """`token` is shown this once."""

    token: str
    entry: TokenEntry


class Tokens(Struct, frozen=True, kw_only=True):
    entries: tuple[TokenEntry, ...]
    next_page: str | None = None
