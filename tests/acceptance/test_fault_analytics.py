"""The analytics worker killed, stopped, and its warehouse deleted or damaged: the coordinator serves on meanwhile,
says how old its figures are, and the same figures come back."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from coordinator.api_types.reliability import Features
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Head, wait_for

T = TypeVar("T")
DAY_S = 86_400
BEGAN_S = int(time.time()) // DAY_S * DAY_S - 20 * DAY_S
"""Sessions of two weeks from then on: figures look two weeks back, and all providers are seen in these today."""
AS_OF = datetime.fromtimestamp(BEGAN_S + 18 * DAY_S, UTC).isoformat()
SETTINGS = ("--set", "analytics.timeout_s=2s", "--set", "upkeep.alerts_s=200ms", "--set", "analytics.backoff_max_s=1s")


def history() -> bytes:
    """Twenty providers of two weeks: the higher the number, the shorter the stays and the more of them failed."""
    rows = ["provider_id,connected_at,disconnected_at,disconnect_reason"]
    for number in range(1, 21):
        step_s = DAY_S // number
        for n in range(14 * number):
            began = BEGAN_S + n * step_s
            reason = "read_error" if n % 3 == 0 else "clean_close"
            rows.append(f"n{number:02d},{began},{began + step_s * 3 // 4},{reason}")
    return "\n".join(rows).encode()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A coordinator with that history, its figures computed."""
    with Head(tmp_path_factory.mktemp("head"), *SETTINGS) as head:
        with head.start() as client:
            client.import_sessions(io.BytesIO(history()))
            wait_for(lambda: up(client), "the worker being up")
        yield head


@pytest.fixture
def client(head: Head) -> Iterator[Client]:
    with head.client() as client:
        yield client


def up(client: Client) -> bool:
    return client.readyz().analytics == "up"


def worker(head: Head) -> int:
    """Its process id."""

    def find() -> int | None:
        for path in Path(f"/proc/{head.pid}/task").glob("*/children"):
            for pid in path.read_text().split():
                with suppress(FileNotFoundError):  # it may be gone again
                    if b"analytics.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
        return None

    return wait_for(find, "the worker's process")


def in_time(ask: Callable[[], T]) -> T:
    """What is answered, asked again while it takes more than two seconds, as on a busy machine."""

    def once() -> T | None:
        try:
            return ask()
        except CoordError as error:
            assert error.code in (Code.TIMEOUT, Code.ANALYTICS_UNAVAILABLE), error
            return None

    return wait_for(once, "an answer")


def figures(client: Client) -> list[Features]:
    """Everybody's features as of one past moment, without when they were computed."""
    entries = in_time(lambda: client.reliability(as_of=AS_OF, limit=0, horizon="8h")).entries
    assert len(entries) == 20
    return [msgspec.structs.replace(entry, updated_at="") for entry in entries]


def served(client: Client) -> bool:
    """Whether the coordinator's own work goes on."""
    made = client.create_token(role="read-only", note="during the fault")
    client.revoke_token(made.entry.token_id)
    return client.healthz().status == "ok" and client.providers().entries == ()


def deleted(warehouse: Path) -> None:
    for path in warehouse.parent.glob("warehouse.duckdb*"):
        path.unlink()


def damaged(warehouse: Path) -> None:
    size = warehouse.stat().st_size
    with warehouse.open("r+b") as file:
        file.write(os.urandom(size))


def with_its_views(warehouse: Path) -> None:
    deleted(warehouse)
    for path in (warehouse.parent / "views").iterdir():
        path.unlink()


@pytest.mark.parametrize("harm", [deleted, damaged, with_its_views])
def test_a_killed_worker_comes_back_with_the_same_figures(
    head: Head, client: Client, harm: Callable[[Path], None]
) -> None:
    """kill -9, with the warehouse deleted or overwritten: it is made anew from the store."""
    before, first = figures(client), worker(head)
    harm(head.data / "analytics" / "warehouse.duckdb")
    os.kill(first, signal.SIGKILL)
    assert served(client)
    wait_for(lambda: up(client) and worker(head) != first, "the next worker")
    assert figures(client) == before
    wait_for(lambda: counted(client) == 14 * sum(range(1, 21)), "the views that SQL reads being there again")
    wait_for(lambda: not standing(client), "the end of the alert")


def counted(client: Client) -> object:
    """How many sessions SQL sees."""
    return in_time(lambda: client.sql("SELECT count(*) FROM sessions")).entries[0][0]


def standing(client: Client) -> bool:
    return any(entry.kind == "analytics_down" and not entry.resolved_at for entry in client.alerts().entries)


def test_a_warehouse_deleted_under_the_worker_costs_nothing_now(head: Head, client: Client) -> None:
    """The worker goes on with the file it has open."""
    before = figures(client)
    deleted(head.data / "analytics" / "warehouse.duckdb")
    assert figures(client) == before
    assert in_time(lambda: client.reliability(limit=0)).matched == 20


def test_a_stopped_worker_leaves_old_figures_with_their_age(head: Head, client: Client) -> None:
    """SIGSTOP: what was asked before is answered as it was then, with its age; the rest is refused in time and says
    why; the coordinator's own work goes on. Continued, everything is answered again, the same."""
    before, now, pid = figures(client), in_time(lambda: client.reliability(limit=0)), worker(head)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert client.reliability(limit=0) == now
        assert client.age_s is not None and client.age_s >= 1
        age_s = client.readyz().figures_age_s
        assert age_s is not None
        with pytest.raises(CoordError) as refused:
            client.liveness("n07")
        assert "did not answer within 2 s" in refused.value.message
        assert served(client)
        later_s = client.readyz().figures_age_s
        assert later_s is not None and later_s > age_s
    finally:
        os.kill(pid, signal.SIGCONT)
    assert in_time(lambda: client.liveness("n07")).provider_id == "n07"
    assert figures(client) == before
    assert worker(head) == pid
