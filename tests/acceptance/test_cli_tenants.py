"""`coord tenant`, `coord usage`, `coord pool price` and tenants' tokens against a real coordinator and agent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli import exits
from coordinator.core.errors import Code
from tests.acceptance.cli_runs import Coord, Done, Server
from tests.acceptance.processes import Agent, wait_for, when_online

REFUSED = exits.of(Code.QUOTA)


class Fleet(NamedTuple):
    """A coordinator with an agent of four CPUs; its admin, and whoever has a tenant's token."""

    admin: Coord
    server: Server
    directory: Path

    def tenant(self, name: str, *options: str) -> Coord:
        """A new tenant; its coord runs with its token alone."""
        done = self.admin("tenant", "create", name, *options)
        assert done.code == 0, done.err
        path = self.directory / f"{name}.token"
        assert self.admin("token", "create", "--role", "tenant", "--tenant", name, "--out", str(path)).code == 0
        elsewhere = self.directory / name
        elsewhere.mkdir()
        return Coord(elsewhere, {"COORD_URL": self.server.url, "COORD_TOKEN": path.read_text().strip()})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("tenants")
    with Server(directory) as server:
        client = server.start()
        with Agent(directory, server, "w1", "--cpus", "4") as agent:
            when_online(client, agent)
            yield Fleet(Coord(server.data), server, directory)


def rows_of(done: Done) -> list[list[str]]:
    return [line.split() for line in done.out.splitlines()[1:]]


def test_a_tenant_is_made_shown_changed_and_goes_when_nothing_is_left_of_it(fleet: Fleet) -> None:
    """Its token keeps it; what was not named stays as it was."""
    coord = fleet.admin
    own = fleet.tenant("maths", "--cpus", "64", "--memory", "512GiB", "--budget", "1000", "--weight", "3")
    assert coord("tenant", "create", "maths").code == exits.of(Code.CONFLICT)
    assert coord("tenant", "set", "maths", "--note", "\x1b[2J").code == exits.USAGE
    assert coord("tenant", "set", "maths", "--memory", "none", "--note", "room B12").code == 0
    shown = coord("tenant", "show", "maths", "-o", "json").json()["tenant"]
    assert (shown["quota"]["cpus"], shown["quota"]["memory"], shown["weight"]) == (64_000_000, None, 3)
    told = coord("tenant", "show", "maths")
    assert "room B12" in told.out and "cpus" in told.out and "budget" in told.out
    assert own("tenant", "show", "maths").code == 0
    assert own("tenant", "show", "default").code == exits.of(Code.NOT_FOUND)
    assert coord("tenant", "delete", "maths").code == exits.of(Code.CONFLICT)
    tokens = coord("token", "list", "--tenant", "maths", "-o", "json").json()["entries"]
    assert [one["tenant"] for one in tokens] == ["maths"]
    assert coord("token", "revoke", tokens[0]["token_id"]).code == 0
    assert own("job", "list").code == exits.of(Code.UNAUTHENTICATED)
    assert coord("tenant", "delete", "maths").code == 0
    assert coord("tenant", "show", "maths").code == exits.of(Code.NOT_FOUND)


def test_a_job_for_a_tenant_that_there_is_not_says_how_one_is_made(fleet: Fleet) -> None:
    done = fleet.admin("submit", "--tenant", "nobody", "--", "true")
    assert done.code == exits.of(Code.NOT_FOUND) and "coord tenant create nobody" in done.err


def test_a_refusal_names_every_limit_at_once_and_submits_nothing(fleet: Fleet) -> None:
    """In a table with what was asked, used and reserved; the dry run says the same before."""
    own = fleet.tenant("small", "--cpus", "2", "--memory", "1GiB", "--gpus", "1")
    asked = ("--cpus", "2", "--memory", "1GiB", "--gpus", "1", "--", "true")
    dry = own("submit", "--dry-run", *asked)
    assert dry.code == exits.FOUND_PROBLEMS and dry.out.count("REFUSED") == 3
    done = own("submit", *asked)
    assert done.code == REFUSED and done.out == ""
    table = {line.split()[0]: line.split()[1:6] for line in done.err.splitlines() if line.split()}
    assert table["cpus"] == ["2", "0", "0", "2", "1.8"] and table["gpus"] == ["1", "0", "0", "1", "0.9"]
    assert table["memory"][:2] == ["1", "GiB"]
    assert own("job", "list", "-o", "json").json()["entries"] == []
    assert own("submit", "--dry-run", "--cpus", "1.8", "--", "true").code == 0


def test_one_that_waits_for_its_tenant_s_limit_says_so_and_starts_when_there_is_room(fleet: Fleet) -> None:
    """Providers are free all the time."""
    own = fleet.tenant("narrow", "--cpus", "1.2")
    first = own("submit", "-o", "name", "--", "sleep", "600").out.strip()
    wait_for(lambda: own("job", "show", first, "-o", "json").json()["job"]["state"] == "running", "the first runs")
    try:
        second = own("submit", "-o", "name", "--", "true").out.strip()
        why = own("job", "why", second)
        assert "quota:cpus" in why.out and "may help" in why.out and "limits of tenant narrow" in why.out
        listed = own("job", "list", "--state", "pending", "-o", "json").json()["entries"]
        assert [one["job_id"] for one in listed] == [int(second)]
    finally:
        assert own("job", "cancel", first).code == 0
    assert own("job", "wait", second, "--timeout", "30s").code == 0


def test_what_is_charged_adds_up_to_the_millionth(fleet: Fleet) -> None:
    """Of the ledger, of the job, of the tenant's month; in a spreadsheet as in JSON. Another tenant sees none of it."""
    coord = fleet.admin
    own, other = fleet.tenant("payer", "--budget", "1000"), fleet.tenant("other")
    assert coord("pool", "price", "default", "--cpu", "3600").code == 0
    try:
        job = own("submit", "--cpus", "0.5", "--expected", "1s", "--array", "1-3", "-o", "name", "--", "sleep", "0.2")
        number = job.out.strip()
        assert own("job", "wait", number, "--timeout", "30s").code == 0
        wait_for(lambda: len(own("usage", "--ledger", "-o", "json").json()["entries"]) == 3, "three charges")
    finally:
        assert coord("pool", "price", "default", "--cpu", "0").code == 0
    ledger = own("usage", "--ledger", "-o", "json").json()["entries"]
    entry = own("job", "show", number, "-o", "json").json()["job"]
    total = sum(one["cost"] for one in ledger)
    assert total == entry["cost"] > 0
    assert [one["cost"] for one in ledger] == [500 * one["ran_ms"] for one in ledger], "half a CPU, a unit a second"
    (usage,) = own("usage", "-o", "json").json()["entries"]
    (budget,) = [one for one in usage["dimensions"] if one["name"] == "budget"]
    assert (budget["used"], budget["reserved"]) == (total, 0)
    read = list(csv.DictReader(io.StringIO(own("usage", "--ledger", "-o", "csv").out)))
    assert [int(row["cost"]) for row in read] == [one["cost"] for one in ledger]
    (line,) = own("usage", "--by", "job", "-o", "json").json()["entries"]
    assert line["cost"] == total
    assert other("usage", "--ledger", "-o", "json").json()["entries"] == []
    hidden = other("usage", "payer")
    assert hidden.code != 0 and hidden == other("usage", "nobody"), "it is as if there were no such tenant"


def test_an_attempt_says_why_it_is_where_it_is(fleet: Fleet) -> None:
    number = fleet.admin("submit", "--priority", "5", "-o", "name", "--", "true").out.strip()
    assert fleet.admin("job", "wait", number, "--timeout", "30s").code == 0
    shown = fleet.admin("job", "show", number).out
    assert f"{number}.0.0.1 on w1: the only one that could take it" in shown and "priority" in shown


def test_a_priority_above_the_tenant_s_own_bound_is_refused(fleet: Fleet) -> None:
    own = fleet.tenant("modest", "--priority-max", "3")
    assert own("submit", "--priority", "3", "-o", "name", "--", "true").code == 0
    done = own("submit", "--priority", "4", "--", "true")
    assert done.code != 0 and "3" in done.err


def test_pools_show_what_they_cost(fleet: Fleet) -> None:
    """What is not named stays."""
    coord = fleet.admin
    assert coord("pool", "create", "spot").code == 0
    assert coord("pool", "price", "spot", "--cpu", "0.04", "--gpu", "1.2").code == 0
    assert coord("pool", "price", "spot", "--memory", "0.000001").code == 0
    assert "0.04 an hour" in coord("pool", "show", "spot").out
    (spot,) = [one for one in coord("pool", "list", "-o", "json").json()["entries"] if one["name"] == "spot"]
    assert spot["price"] == {"cpu": 40_000, "gpu": 1_200_000, "memory": 1}
    assert coord("pool", "price", "spot", "--cpu", "0.0000001").code != 0
