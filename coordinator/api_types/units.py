"""What the structs of the API share: how a time and an amount are written."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Timestamp = str
"""RFC 3339, UTC, milliseconds."""
Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""Beyond this JSON's numbers are not exact everywhere."""
