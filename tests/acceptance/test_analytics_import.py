"""`coord import sessions` and then `coord query sql`: what was imported is counted, from the first moment on."""

from __future__ import annotations

import io
from pathlib import Path

from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Head, wait_for

BEGAN_S = 1_793_000_000


def history(providers: int, first: int = 0) -> io.BytesIO:
    """Ten sessions of each provider."""
    rows = ["provider_id,connected_at,disconnected_at,disconnect_reason"]
    for number in range(first, first + providers):
        rows += [f"n{number:03d},{BEGAN_S + n * 7200},{BEGAN_S + n * 7200 + 3600},read_error" for n in range(10)]
    return io.BytesIO("\n".join(rows).encode())


def counted(client: Client) -> object:
    """How many sessions SQL sees."""
    return client.sql("SELECT count(*) FROM sessions").entries[0][0]


def test_an_import_is_counted_by_the_next_query(tmp_path: Path) -> None:
    """Imported as soon as the coordinator listens, and again: each time the new count, with no pause between."""
    with Head(tmp_path) as head, head.start() as client:
        client.import_sessions(history(5))
        assert 50 == counted(client)
        client.import_sessions(history(5, first=5))
        assert 100 == counted(client)


def test_views_of_an_empty_fleet_are_published_and_refused_before(tmp_path: Path) -> None:
    """A query of a coordinator that just began is refused with what to do, or answered; never by a made-up 0 rows."""

    def published(client: Client) -> bool:
        try:
            assert 0 == counted(client)
        except CoordError as refused:
            assert (Code.ANALYTICS_UNAVAILABLE, "try again in a few seconds") == (refused.code, refused.hint)
            return False
        return all((head.data / "analytics" / "views" / f"{name}.parquet").exists() for name in ("sessions", "hours"))

    with Head(tmp_path) as head, head.start() as client:
        wait_for(lambda: published(client), "the first publication")
