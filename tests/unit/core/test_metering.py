"""What running costs, to the millionth; months; and what a look at an account costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.amounts import UNIT, Ask, Price, Share
from coordinator.core.ids import JobId, ProviderId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, RankRow
from coordinator.core.tenants import metering
from coordinator.core.tenants.account import Accounts
from coordinator.core.tenants.months import begins_ms, ends_ms, month_of, next_month

T = TenantName("t")
ONE_AN_HOUR = Price(cpu=UNIT)


def a_row(number: int = 1, *, ranks: int = 1, started_ms: int = 0, price: Price = ONE_AN_HOUR) -> AttemptRow:
    return AttemptRow(
        job_id=JobId(1),
        step=0,
        task=number,
        attempt=1,
        state=AttemptState.RUNNING,
        created_at_ms=0,
        started_at_ms=started_ms,
        ranks=tuple(
            RankRow(provider_id=ProviderId(f"p{rank}"), share=Share(ask=Ask()), price=price) for rank in range(ranks)
        ),
    )


def test_every_day_of_a_century_is_in_its_month() -> None:
    """As the calendar has it, leap years and centuries included, from the first to the last millisecond."""
    day = datetime(1999, 12, 31, tzinfo=UTC)
    for _ in range(101 * 366):
        first_ms = int(day.timestamp()) * 1_000
        month = day.year * 100 + day.month
        assert month == month_of(first_ms) == month_of(first_ms + 86_399_999)
        if day.day == 1:
            assert first_ms == begins_ms(month)
        day += timedelta(days=1)


def test_one_month_begins_where_the_one_before_ends() -> None:
    assert (202701, 202612) == (next_month(202612), month_of(ends_ms(202612) - 1))
    assert begins_ms(202701) == ends_ms(202612)


@given(
    cpus=st.integers(0, 10**9),
    gpus=st.integers(0, 10**7),
    memory=st.integers(0, 10**12),
    price=st.builds(Price, cpu=st.integers(0, 10**12), gpu=st.integers(0, 10**12), memory=st.integers(0, 10**12)),
    ran_ms=st.integers(0, 10**10),
)
def test_a_charge_is_the_exact_price_rounded_up_once(
    cpus: int, gpus: int, memory: int, price: Price, ran_ms: int
) -> None:
    """Against fractions: hours x (CPUs x price + GPUs x price + 10^9 bytes x price)."""
    exact = Fraction(ran_ms, 3_600_000) * (
        Fraction(cpus * price.cpu + gpus * price.gpu, UNIT) + Fraction(memory * price.memory, 10**9)
    )
    charged = metering.charge(metering.rate_of(Ask(cpus=cpus, gpus=gpus, memory=memory), price), ran_ms)
    assert charged - 1 < exact <= charged


def test_what_is_accrued_is_a_function_of_the_moment_alone() -> None:
    """However many run, since whenever, and however often it was looked at before: two sums."""
    accounts = Accounts()
    for number in range(100):
        metering.start(accounts, T, a_row(number, started_ms=number * 1_000), cover=5)
    looked = accounts.of(T)
    for now_ms in (100_000, 150_000, 3_600_000):
        exact = sum(Fraction(now_ms - number * 1_000, 3_600_000) * UNIT for number in range(100))
        over = sum(max(Fraction(0), Fraction(now_ms - n * 1_000, 3_600_000) * UNIT - 5) for n in range(100))
        assert -(-exact // 1) == metering.spent(looked, now_ms)
        assert -(-over // 1) == metering.committed(looked, now_ms)


def test_a_rank_that_ended_accrues_no_more_and_the_last_one_leaves_nothing_behind() -> None:
    accounts = Accounts()
    row = a_row(ranks=3)
    metering.start(accounts, T, row, cover=0)
    metering.stop_rank(accounts, T, row.attempt_id, 1)
    assert 2 * UNIT == metering.spent(accounts.of(T), 3_600_000)
    for rank in (0, 2):
        metering.stop_rank(accounts, T, row.attempt_id, rank)
    account = accounts.of(T)
    assert (0, 0, {}) == (account.rate, account.base, account.meters)
    assert (0, 0, 0) == (account.over_rate, account.over_base, account.over_cover)


def test_what_ended_long_before_its_reservation_was_used_up_is_forgotten() -> None:
    """A million short tasks that were expected to take a year: a bounded heap, not a million entries."""
    accounts = Accounts()
    for number in range(10_000):
        row = a_row(number)
        metering.start(accounts, T, row, cover=10**12)
        metering.stop_rank(accounts, T, row.attempt_id, 0)
    assert len(accounts.of(T).crossings) <= 2 * metering.OUTDATED_MAX


def test_free_capacity_has_no_meter() -> None:
    accounts = Accounts()
    metering.start(accounts, T, a_row(price=Price()), cover=0)
    assert not accounts.by_tenant


def test_overrun_begins_the_moment_a_reservation_is_used_up() -> None:
    """Not a millisecond early, and at each later one it is the whole of what is beyond."""
    accounts = Accounts()
    metering.start(accounts, T, a_row(), cover=UNIT)
    account = accounts.of(T)
    assert 0 == metering.committed(account, 3_600_000)
    assert 1 == metering.committed(account, 3_600_001)
    assert UNIT == metering.committed(account, 7_200_000)
