"""`coord trace` on jobs of a real coordinator, as people run it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import Agent, when_online
from tests.browser import browser

GRAPH = """\
name = "night"

[[step]]
name = "prep"
command = ["sh", "-c", "sleep 0.2; echo prepared"]

[[step]]
name = "train"
needs = ["prep"]
matrix = { lr = [0.1, 0.01] }
command = ["sh", "-c", "sleep 0.4; echo lr {lr}"]
resources = { cpus = 1 }
"""


class Fleet(NamedTuple):
    """A coordinator with one agent, and a job that has ended there."""

    server: Server
    coord: Coord
    job: str


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    with Server(directory) as server:
        client, coord = server.start(), Coord(server.data)
        with Agent(directory, server, "w1", "--cpus", "1") as agent:
            when_online(client, agent)
            (directory / "night.toml").write_text(GRAPH)
            job = coord("submit", "-o", "name", str(directory / "night.toml")).out.strip()
            assert coord("job", "wait", job).code == 0
            yield Fleet(server, coord, job)


def test_a_job_is_analysed_where_it_ran(fleet: Fleet) -> None:
    """Its path is the time that `job show` gives, its causes are recorded ones, and what waited for a slot says so."""
    shown = fleet.coord("job", "show", fleet.job)
    assert f"coord trace analyze {fleet.job}" in shown.out
    job = fleet.coord("job", "show", fleet.job, "-o", "json").json()["job"]
    profile = fleet.coord("trace", "analyze", fleet.job, "-f", "json").json()
    path = profile["real_critical_path"]
    took = datetime.fromisoformat(job["ended_at"]) - datetime.fromisoformat(job["submitted_at"])
    assert path["makespan_ns"] // 1000 == took.total_seconds() * 1_000_000
    assert not any(segment["inferred"] for segment in path["segments"])
    assert any(segment["cause"].startswith("slot ") for segment in path["segments"])
    done = fleet.coord("trace", "analyze", fleet.job)
    assert done.code == 0, done.err
    assert done.out.startswith(f"job {fleet.job}: ") and "BECAUSE OF" in done.out and "train" in done.out


def test_of_a_job_that_waits_the_way_to_what_it_waits_for_is_said(fleet: Fleet) -> None:
    """Its time until now has no cause on record: those are written when something of it is granted."""
    job = fleet.coord("submit", "-o", "name", "--gpus", "8", "--", "true").out.strip()
    done = fleet.coord("trace", "analyze", job)
    assert done.code == 0 and f"coord job why {job}" in done.err
    assert fleet.coord("job", "cancel", job).code == 0
    assert "coord job why" not in fleet.coord("trace", "analyze", fleet.job).err


def test_a_job_is_fetched_exported_and_compared(fleet: Fleet, tmp_path: Path) -> None:
    """What is fetched can be analysed as files; each export has its tasks."""
    for kind in ("spans", "lineage"):
        done = fleet.coord("trace", "fetch", kind, fleet.job, "--to", str(tmp_path / f"{kind}.jsonl"))
        assert done.code == 0, done.err
    again = fleet.coord("trace", "analyze", str(tmp_path), "-f", "json").json()
    assert set(again["data_ids"]) >= {f"{fleet.job}.0.0", f"{fleet.job}.1.0", f"{fleet.job}.1.1"}
    done = fleet.coord("trace", "export", fleet.job, "--perfetto")
    assert done.code == 0, done.err
    assert f"{fleet.job}.1.1" in done.out
    done = fleet.coord("trace", "compare", fleet.job, fleet.job)
    assert done.code == 0 and "both took the same time" in done.out
    done = fleet.coord("trace", "analyze", fleet.job, "--slots", "2")
    assert done.code == 0 and "on 2 slots" in done.out


def test_a_jobs_page_is_drawn_as_it_is_served(fleet: Fleet, tmp_path: Path) -> None:
    """Under the policy that it is served with, by a browser that shows the token: no fault, no other request."""
    url = f"{fleet.server.url}/v1/traces/workflows/analyze/{fleet.job}?format=html"
    with browser(tmp_path) as page:
        page.authorize(fleet.server.token("admin"))
        page.open(url, "document.documentElement?.dataset.ready !== undefined")
        assert page.value("document.title").endswith(fleet.job)
        assert page.value("D.spans.start.length") > 8
        page.screenshot(tmp_path / "job.png")
        assert page.faults == []
        assert set(page.requests) == {url}
