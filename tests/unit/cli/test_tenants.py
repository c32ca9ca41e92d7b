"""Tenants, limits, use, prices and refusals: what is written is exact, what is shown says everything at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from msgspec.structs import replace

from cli import access, exits, humane, output, pool, refusals, tenant, usage
from cli.main import main
from cli.quantities import DIMENSIONS, amount_text, limit_of
from coordinator.api_types.access import TokenEntry, TokenMade
from coordinator.api_types.fleet import PoolEntry, Pools
from coordinator.api_types.tenants import Ledger, PriceEntry, Tenants, UsageBy, UsageLine, Usages
from coordinator.core.errors import Code, CoordError, Refusal
from coordinator.core.rows import Quota
from tests.unit.cli.jobs import AT
from tests.unit.cli.tenants import GIB, UNIT, a_charge, a_dimension, a_tenant, a_usage

Out = pytest.CaptureFixture[str]

# ---- amounts


def test_every_dimension_of_a_quota_has_its_words() -> None:
    """One that is added to the core is added here."""
    assert set(Quota.__struct_fields__) == set(DIMENSIONS)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("cpus", "64", 64 * UNIT), ("gpus", "0.5", UNIT // 2), ("memory", "512GiB", 512 * GIB), ("running", "20", 20),
        ("storage", "1.1TB", 1_100_000_000_000), ("budget", "0.000001", 1), ("budget", "1000", 10**9),
        ("budget", "none", None), ("queued", "0", 0), ("egress", "0.3GB", 300_000_000),
    ],
)  # fmt: skip
def test_a_limit_is_read_exactly(name: str, text: str, limit: int | None) -> None:
    """No float is between what was written and what holds."""
    assert limit == limit_of(name, text, f"--{name}")


@pytest.mark.parametrize(
    ("name", "text"),
    [("cpus", "-1"), ("budget", "1e3"), ("budget", "0.0000001"), ("running", "1.5"), ("memory", "lots"), ("gpus", "")],
)
def test_what_is_no_amount_is_refused(name: str, text: str) -> None:
    with pytest.raises(CoordError) as refused:
        limit_of(name, text, f"--{name}")
    assert refused.value.code is Code.BAD_REQUEST and "write it like" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "amount", "text"),
    [
        ("cpus", 1_500_000, "1.5"), ("memory", 512 * GIB, "512 GiB"), ("ingress", 5 * 10**9, "5 GB"),
        ("memory", 512 * GIB * 9 // 10, "460.8 GiB"), ("budget", 12_500_000, "12.5"), ("running", 7, "7"),
        ("budget", None, "-"), ("storage", 0, "0 B"), ("new_one", 3, "3"),
    ],
)  # fmt: skip
def test_an_amount_is_shown_in_its_unit(name: str, amount: int | None, text: str) -> None:
    assert text == amount_text(name, amount)


@pytest.mark.parametrize("size", [0, 1, 1000, 1023, 1536, 10**12, 2**40, 10**18])
def test_a_size_that_is_shown_without_a_fraction_is_the_size(size: int) -> None:
    text = humane.size_text(size)
    assert "." in text or size == humane.size(text)


@pytest.mark.parametrize(("name", "text"), [("cpus", "99999999999"), ("memory", "100000TiB"), ("budget", "9" * 11)])
def test_a_limit_beyond_what_is_counted_is_refused_here(name: str, text: str) -> None:
    """With what to say instead, and not with the words of a parser on the other side."""
    with pytest.raises(CoordError, match="more than is counted"):
        limit_of(name, text, f"--{name}")


# ---- tenants


def options(*argv: str, of: click.Command = tenant.create) -> dict[str, Any]:
    context = of.make_context("create", ["physics", *argv])
    return tenant.changes_of(context.params)


def test_every_option_of_a_tenant_reaches_the_request() -> None:
    asked = options(
        "--cpus", "64", "--gpus", "8", "--memory", "512GiB", "--running", "20", "--queued", "200", "--storage", "1TB",
        "--ingress", "2TB", "--egress", "3TB", "--budget", "1000", "--weight", "3", "--priority-max", "10", "--on-full",
        "refuse", "--on-budget", "stop", "--default-runtime", "90m", "--note", "room B12",
    )  # fmt: skip
    assert asked.pop("quota") == {
        "cpus": 64 * UNIT, "gpus": 8 * UNIT, "memory": 512 * GIB, "running": 20, "queued": 200, "storage": 10**12,
        "ingress": 2 * 10**12, "egress": 3 * 10**12, "budget": 10**9,
    }  # fmt: skip
    assert asked == {
        "weight": 3, "priority_max": 10, "on_full": "refuse", "on_budget": "stop", "runtime_ms": 5_400_000,
        "note": "room B12",
    }  # fmt: skip


def test_what_is_not_named_is_not_sent_and_none_lifts_a_limit() -> None:
    assert {} == options(of=tenant.change)
    assert {"quota": {"cpus": None}} == options("--cpus", "none", of=tenant.change)


def test_changing_nothing_is_a_mistake(capsys: Out) -> None:
    assert main(["tenant", "set", "physics", "--url", "http://127.0.0.1:9"]) != 0
    assert capsys.readouterr().out == ""


def test_a_listing_names_the_limits(capsys: Out) -> None:
    entries = (a_tenant(cpus=64 * UNIT, memory=GIB, budget=10**9, running=5), a_tenant("free"))
    tenant.print_tenants(Tenants(entries=entries), "table")
    _, limited, free = capsys.readouterr().out.splitlines()
    assert "64 cpus, memory 1 GiB, 5 running, budget 1000" in limited and "no limits" in free


def test_a_tenant_shows_what_is_used_reserved_and_left_of_each_limit(capsys: Out) -> None:
    """Up to the guardrail; what has neither limit nor use is left away."""
    use = a_usage(
        a_dimension("cpus", used=32 * UNIT, limit=64 * UNIT), a_dimension("gpus"), a_dimension("storage", used=5),
        a_dimension("budget", used=400 * UNIT, reserved=100 * UNIT, limit=1000 * UNIT),
    )  # fmt: skip
    tenant.print_tenant(tenant.TenantView(tenant=a_tenant(), usage=use), "table")
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.partition("QUOTA")[2].splitlines()[1:]}
    assert set(lines) == {"cpus", "storage", "budget"}
    assert lines["cpus"][1:5] == ["32", "0", "64", "25.6"]
    assert lines["budget"][1:6] == ["400", "100", "1000", "400", "[########--........|.]"]
    assert "nothing new starts, what runs stops" in out and "25.0 %" in out


@pytest.mark.parametrize(
    ("used", "reserved", "drawn"),
    [(0, 0, "[..................|.]"), (1, 0, "[#.................|.]"), (10, 85, "[##-----------------.]"),
     (150, 0, "[####################]")],
)  # fmt: skip
def test_a_bar_is_never_longer_than_its_frame(used: int, reserved: int, drawn: str) -> None:
    """Whatever is used shows; what is beyond the limit fills it."""
    assert drawn == tenant.bar(a_dimension("budget", used=used, reserved=reserved, limit=100))


def test_how_far_limits_are_filled_is_said_where_that_is_not_to_their_end() -> None:
    """Who gives 2 GPUs learns at once that one whole one fits."""
    usage = a_usage(
        a_dimension("gpus", limit=2 * UNIT), a_dimension("running", limit=5), a_dimension("budget", limit=10 * UNIT),
        a_dimension("cpus"),
    )  # fmt: skip
    assert tenant.rails_text(usage) == "1.8 gpus, budget 9"


def test_a_note_moves_nobody_s_cursor(capsys: Out) -> None:
    """Text from outside is escaped in tables, and JSON has it harmless."""
    evil = Tenants(entries=(replace(a_tenant(), note="\x1b[2Jx"),))
    forms: tuple[output.Format, ...] = ("table", "wide", "json", "jsonl", "csv")
    for form in forms:
        tenant.print_tenants(evil, form)
        out = capsys.readouterr().out
        assert "2Jx" in out and ("\x1b" not in out or form == "csv")  # a CSV file is data, and no terminal


# ---- use and charges


def test_use_is_a_line_a_tenant_and_every_dimension_of_a_single_one(capsys: Out) -> None:
    one = a_usage(a_dimension("cpus", used=UNIT, limit=4 * UNIT), a_dimension("budget", used=5, limit=10 * UNIT))
    other = a_usage(a_dimension("cpus", used=2 * UNIT), tenant="bio")
    usage.print_usage(Usages(entries=(one, other)), "table")
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "physics" and "1/4" in first and "0.000005/10" in first
    assert second.split()[0] == "bio" and second.split()[3] == "2"
    usage.print_usage(Usages(entries=(one,)), "table")
    assert "2026-11" in (out := capsys.readouterr().out) and "budget" in out


def test_sums_are_exact_and_together(capsys: Out) -> None:
    lines = tuple(
        UsageLine(key=key, cost=cost, cost_text=text, ran_ms=7_200_000, cpu_ms=14_400_000, gpu_ms=0, charges=3)
        for key, cost, text in (("2026-11-01", 1, "0.000001"), ("2026-11-02", 10**15, "1000000000"))
    )
    usage.print_sums(UsageBy(by="day", tenant=None, month=202611, entries=lines), "table")
    out, err = capsys.readouterr()
    assert out.split()[0] == "DAY" and "0.000001" in out and "4.000" in out
    assert "together 1000000000.000001" in err


def test_the_ledger_is_charge_by_charge(capsys: Out) -> None:
    usage.print_ledger(Ledger(entries=(a_charge(),), next_page="x"), "table")
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == [
        "1", "2026-11-22", "04:31:05", "physics", "12.0.0.1", "alpha", "lab", "1m", "30s", "0.5", "0", "1", "GiB",
        "0.0005",
    ]  # fmt: skip
    assert "--limit 0" in err


def test_a_name_in_csv_is_no_formula(capsys: Out) -> None:
    """Whoever opens the ledger in a spreadsheet calculates nothing of a tenant's making; numbers stay numbers."""
    usage.print_ledger(Ledger(entries=(a_charge(provider_id="=1+1", rank=-1),)), "csv")
    cells = capsys.readouterr().out.splitlines()[1].split(",")
    assert "'=1+1" in cells and "-1" in cells


def test_months_are_written_as_people_do() -> None:
    assert 202611 == usage.month_of("2026-11") and "2026-11" == usage.month_text(202611)
    for wrong in ("2026-13", "11-2026", "now", "2026-1"):
        with pytest.raises(click.UsageError):
            usage.month_of(wrong)


def test_one_by_one_and_summed_at_once_is_a_mistake(capsys: Out) -> None:
    argv = ["usage", "--ledger", "--by", "job", "--url", "http://127.0.0.1:9", "--token-file", os.devnull]
    assert main(argv) != 0
    assert capsys.readouterr().out == ""


# ---- refusals


def test_a_refusal_names_every_dimension_in_one_table(capsys: Out) -> None:
    """On stderr, with amounts in their units."""
    refused = CoordError(
        Code.QUOTA, "tenant physics has no room: gpus: 7 used, and so on", "ask for less",
        (
            Refusal(dimension="gpus", used=7 * UNIT, reserved=0, request=8 * UNIT, limit=8 * UNIT, guardrail=7_200_000),
            Refusal(dimension="budget", used=5, reserved=10, request=UNIT, limit=UNIT, guardrail=900_000),
        ),
    )  # fmt: skip
    refusals.tell(refused)
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in err.splitlines() if line.strip()}
    assert out == "" and "and so on" not in err and "ask for less" in err
    assert rows["gpus"][1:6] == ["8", "7", "0", "8", "7.2"]
    assert rows["budget"][1:6] == ["1", "0.000005", "0.00001", "1", "0.9"]


def test_a_refusal_for_a_quota_has_an_exit_status_of_its_own() -> None:
    assert [code for code in Code if exits.of(code) == exits.of(Code.QUOTA)] == [Code.QUOTA]


# ---- pools and tokens


def test_pools_show_their_prices(capsys: Out) -> None:
    lab = PoolEntry(
        name="lab", note="", created_at=AT, providers=2, price=PriceEntry(cpu=40_000, gpu=1_200_000, memory=5_000)
    )
    pool.print_pools(Pools(entries=(lab,)), "table")
    assert capsys.readouterr().out.splitlines()[1].split()[-4:-1] == ["0.04", "1.2", "0.005"]
    pool.print_pool(lab, None)
    assert "0.005 an hour" in capsys.readouterr().out
    assert "0.04 a CPU, 1.2 a GPU, 0.005 a GB, by the hour" == pool.price_text(lab.price)
    assert "free" == pool.price_text(PriceEntry())
    with pytest.raises(CoordError, match="no pool"):
        pool.named(Pools(entries=(lab,)), "hall")


def made() -> TokenMade:
    entry = TokenEntry(
        token_id="4f1c", role="tenant", note="", created_at=AT, expires_at=None, revoked_at=None, provider_id=None,
        pool=None, tenant="physics",
    )  # fmt: skip
    return TokenMade(token="coord-tenant-secret", entry=entry)


def test_a_token_goes_into_a_file_that_its_owner_alone_may_read(tmp_path: Path, capsys: Out) -> None:
    """And nowhere else: neither stdout nor stderr has it, in JSON neither."""
    for form in ("table", "json"):
        path = tmp_path / form
        with access.private(path) as file:
            access.print_made(made(), form, file, path)
        assert path.read_text() == "coord-tenant-secret\n" and path.stat().st_mode & 0o777 == 0o600
        out, err = capsys.readouterr()
        assert "secret" not in out + err and "of tenant physics" in err


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    """It may hold a token that is shown nowhere else. Neither is a link followed."""
    (tmp_path / "old").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("old", "link"):
        with pytest.raises(CoordError) as refused, access.private(tmp_path / name):
            pass
        assert refused.value.code is Code.CONFLICT
    assert (tmp_path / "old").read_text() == "x" and not (tmp_path / "elsewhere").exists()


def test_a_token_that_was_refused_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CoordError), access.private(tmp_path / "new"):
        raise CoordError(Code.NOT_FOUND, "no such tenant")
    assert not (tmp_path / "new").exists()
