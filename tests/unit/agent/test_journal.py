"""What the keeper keeps on disk: nothing that was said is forgotten, and a damaged file costs its damaged lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.agent import journal
from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.journal import USERS, Ended, Forgotten, Held, Journal
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken

AN_EXIT = ExitInfo(cause=EndCause.EXITED, code=3, out_bytes=17)


def held(attempt: str = "1.0.0.1", number: int = 1, generation: int = 1, user: int = 0) -> Held:
    return Held(attempt=attempt, rank=0, token=LeaseToken(generation, number), place=1, user=user)


def test_what_was_committed_is_there_for_the_next(tmp_path: Path) -> None:
    """Leases, exits, fences and the count of users survive; what was forgotten does not."""
    first = Journal(tmp_path)
    for record in (held(), held("1.0.1.1", 2, user=7), Ended(attempt="1.0.0.1", exit=AN_EXIT), held("1.0.2.1", 3)):
        first.add(record)
    first.add(Forgotten(attempt="1.0.2.1"))
    assert first.commit()
    first.close()
    second = Journal(tmp_path)
    assert {"1.0.0.1": held(), "1.0.1.1": held("1.0.1.1", 2, user=7)} == second.held
    assert {"1.0.0.1": AN_EXIT} == second.exits
    assert 8 == second.next_user()
    assert "" != second.why_stale("1.0.2.2", LeaseToken(1, 2))
    assert "" == second.why_stale("1.0.2.2", LeaseToken(1, 3))
    second.close()


def test_what_was_not_committed_was_never_there(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.add(held())
    first.close()
    second = Journal(tmp_path)
    assert {} == second.held
    second.close()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_end_costs_the_last_record_alone(tmp_path: Path, cut: int) -> None:
    """A crash in the middle of a write: what was synced before it is read."""
    first = Journal(tmp_path)
    first.add(held())
    assert first.commit()
    first.add(held("1.0.1.1", 2))
    assert first.commit()
    first.close()
    path = tmp_path / "attempts.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    second = Journal(tmp_path)
    assert {"1.0.0.1": held()} == second.held
    second.close()


def test_an_unreadable_record_is_left_out(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.add(held())
    first.commit()
    first.close()
    path = tmp_path / "attempts.journal"
    path.write_bytes(b'{"type":"unheard of"}\n\xff\xfe\n' + path.read_bytes())
    second = Journal(tmp_path)
    assert {"1.0.0.1": held()} == second.held
    second.close()


def test_a_generation_that_was_seen_rules_out_lower_ones_for_every_task(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    book.add(held("1.0.0.1", 5, generation=3))
    assert "generation 2 is over" in book.why_stale("9.0.0.1", LeaseToken(2, 99))
    assert "" == book.why_stale("9.0.0.1", LeaseToken(3, 1))
    book.close()


def test_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of attempts that came and went leave no more than the bound and what counts."""
    monkeypatch.setattr(journal, "REWRITE_BYTES", 10_000)
    monkeypatch.setattr(journal, "TASKS_REMEMBERED", 50)
    book = Journal(tmp_path)
    largest = 0
    for number in range(300):
        name = f"1.0.{number}.1"
        for record in (held(name, number), Ended(attempt=name, exit=AN_EXIT), Forgotten(attempt=name)):
            book.add(record)
        assert book.commit()
        largest = max(largest, (tmp_path / "attempts.journal").stat().st_size)
    assert largest < 20_000
    assert "" != book.why_stale("1.0.299.2", LeaseToken(1, 298))
    book.close()


def test_a_full_disk_is_paid_with_the_ballast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write that does not fit costs the ballast and succeeds; what still does not fit is not said to be
    durable, and is tried again as a whole."""
    book = Journal(tmp_path)
    assert (tmp_path / "ballast").exists()
    real = Journal._write
    room = [False]

    def full_until_ballast_is_gone(fd: int, data: bytes) -> None:
        if (tmp_path / "ballast").exists() or not room[0]:
            raise OSError(28, "No space left on device")
        real(fd, data)

    monkeypatch.setattr(Journal, "_write", staticmethod(full_until_ballast_is_gone))
    book.add(held())
    assert not book.commit()
    assert not (tmp_path / "ballast").exists()
    assert not book.commit()
    room[0] = True
    assert book.commit()
    book.close()
    again = Journal(tmp_path)
    assert {"1.0.0.1": held()} == again.held
    again.close()


def test_a_directory_that_cannot_be_written_ends_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "_write", staticmethod(full))
    with pytest.raises(AgentStop) as stop:
        Journal(tmp_path)
    assert Exit.DISK == stop.value.exit_code


def test_a_user_id_in_use_is_given_to_nobody_else(tmp_path: Path) -> None:
    """After all ids were given out once, one whose attempt is held is left out until that is forgotten."""
    before = Journal(tmp_path)
    before.add(held("1.0.0.1", 1, user=1))
    before.add(held("1.0.1.1", 2, user=2))
    before.add(held("1.0.2.1", 3, user=USERS))
    assert USERS + 3 == before.next_user()
    before.add(Forgotten(attempt="1.0.0.1"))
    assert USERS + 1 == before.next_user()
    before.add(held("1.0.3.1", 4, user=USERS + 1))
    before.commit()
    before.close()
    again = Journal(tmp_path)
    assert USERS + 3 == again.next_user()
    again.close()
