"""Where the ranks parted: on the recorded faults, and on dumps that are made up to be awkward."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.attribution.desk.recorder import answer
from analytics.attribution.flight_recorder import dumps, parting
from coordinator.core.errors import Code, CoordError

TRACES = Path(__file__).resolve().parents[5] / "shared" / "data" / "logs" / "nvrx_fr_traces"
CASES = ("gpu_error_1st", "gpu_error_2nd", "lock_gil_1st", "lock_gil_2nd")


def opener(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def an_entry(
    sequence: int, group: str = "7", name: str = "nccl:all_reduce", at: int = 0, **other: Any
) -> dict[str, Any]:
    made = {
        "process_group": [group, "DATA"], "pg_id": 1, "collective_seq_id": sequence, "profiling_name": name,
        "time_created_ns": at or sequence, "input_sizes": [[4, 8]], "input_dtypes": ["Float"], "state": "scheduled",
        "is_p2p": False,
    }  # fmt: skip
    return made | other


def a_dump(enqueued: int, completed: int, entries: list[dict[str, Any]], ranks: str = "[0, 1, 2]") -> dict[str, Any]:
    status = {"last_enqueued_collective": enqueued, "last_completed_collective": completed}
    return {"version": "2.9", "pg_config": {"7": {"desc": "DATA", "ranks": ranks}}, "pg_status": {"1": status},
            "entries": entries}  # fmt: skip


def written(directory: Path, by_rank: dict[int, Any], pickled: bool = False) -> parting.Parting:
    for rank, dump in by_rank.items():
        data = pickle.dumps(dump, protocol=2) if pickled else json.dumps(dump).encode()
        (directory / f"_dump_{rank}").write_bytes(data)
    return parting.analyse(dumps.load(str(directory), opener))


@pytest.mark.parametrize("case", CASES)
def test_the_ranks_of_an_injected_fault_are_found(case: str) -> None:
    """The ranks that the injection names, all of them and no other."""
    where = TRACES / "fr_traces" / case
    if not where.is_dir():
        pytest.skip(f"{where} is not there")
    truth = re.findall(r"Rank (\d+), fault_type", (where / "fault_injection.log").read_text())
    found = parting.analyse(dumps.load(str(where), opener))
    assert tuple(sorted(int(rank) for rank in truth)) == found.missing_ranks
    assert (16, (), (), False) == (found.ranks, found.without_dump, found.refused, found.undecided)


@pytest.mark.parametrize("case", CASES)
def test_the_table_is_the_reference_one(case: str) -> None:
    """Process group, description, operation, type and missing ranks of each row, as the original analyser has them.

    Sizes of an all_to_all differ between ranks, and whose is printed is arbitrary.
    """
    reference = TRACES / "reference_outputs" / f"{case}_reference.txt"
    if not reference.is_file():
        pytest.skip(f"{reference} is not there")
    expected = []
    for line in reference.read_text().strip().splitlines()[1:]:
        group, description, operation, _size, dtype, missing = (cell.strip() for cell in line.split("|"))
        expected.append((group, description.rpartition(",")[0], operation, dtype, missing))
    found = parting.analyse(dumps.load(str(TRACES / "fr_traces" / case), opener))
    actual = [
        (r.process_group, r.description, r.operation, r.dtype, ",".join(str(rank) for rank in r.missing_ranks))
        for r in found.rows
    ]
    assert expected == actual


@pytest.mark.parametrize("pickled", (False, True))
def test_json_and_pickles_say_the_same(tmp_path: Path, pickled: bool) -> None:
    """Rank 1 never came to the sixth collective."""
    waits = a_dump(6, 5, [an_entry(6)])
    found = written(tmp_path, {0: waits, 1: a_dump(5, 5, []), 2: waits}, pickled)
    assert (1,) == found.missing_ranks
    (row,) = found.rows
    assert ("7", "nccl:all_reduce", 6, "4x8", "Float", (1,), ()) == (
        row.process_group, row.operation, row.sequence, row.size, row.dtype, row.missing_ranks, row.stalled_ranks,
    )  # fmt: skip


def test_a_rank_without_a_dump_is_missing_where_others_wait(tmp_path: Path) -> None:
    """A process that was killed wrote none; the others all stand at the same collective."""
    waits = a_dump(6, 5, [an_entry(6)])
    found = written(tmp_path, {0: waits, 1: waits})
    assert ((2,), (2,)) == (found.missing_ranks, found.without_dump)


def test_a_rank_whose_dump_is_refused_is_not_blamed(tmp_path: Path) -> None:
    """Of a dump that cannot be read nothing is said but that."""
    waits = a_dump(6, 5, [an_entry(6)])
    (tmp_path / "_dump_2").write_bytes(b"\x80\x02c__builtin__\neval\n.")
    found = written(tmp_path, {0: waits, 1: waits})
    assert ((), ()) == (found.missing_ranks, found.without_dump)
    ((rank, why),) = found.refused
    assert 2 == rank and "makes no plain data" in why


def test_ranks_that_go_together_did_not_part(tmp_path: Path) -> None:
    """All enqueued, none completed: a slow collective is no missing rank."""
    same = a_dump(6, 5, [an_entry(6)], ranks="[0, 1]")
    found = written(tmp_path, {0: same, 1: same})
    assert ((), ()) == (found.missing_ranks, found.rows)
    assert "did not part" in parting.table(found)


def test_sends_and_receives_say_nothing(tmp_path: Path) -> None:
    """In a pipeline the first stage is always ahead."""
    found = written(
        tmp_path,
        {
            0: a_dump(9, 5, [an_entry(0, name="nccl:send 0->1", is_p2p=True)], "[0, 1]"),
            1: a_dump(6, 5, [an_entry(0, name="nccl:recv 1<-0", is_p2p=True)], "[0, 1]"),
        },
    )
    assert () == found.missing_ranks


def test_ranks_that_call_different_collectives_are_told(tmp_path: Path) -> None:
    """The same number, two operations: the program's own fault, and who is the odd one."""
    usual, odd = a_dump(6, 5, [an_entry(6)]), a_dump(6, 5, [an_entry(6, name="nccl:broadcast")])
    found = written(tmp_path, {0: usual, 1: odd, 2: usual})
    (row,) = found.rows
    assert ("nccl:all_reduce", "1: nccl:broadcast") == (row.operation, row.mismatch)


def test_without_status_the_entries_say_how_far(tmp_path: Path) -> None:
    """Older recorders keep no figures beside their entries."""
    waits = a_dump(0, 0, [an_entry(5, state="completed"), an_entry(6)], "[0, 1]") | {"pg_status": {}}
    gone = a_dump(0, 0, [an_entry(5, state="completed")], "[0, 1]") | {"pg_status": {}}
    assert (1,) == written(tmp_path, {0: waits, 1: gone}).missing_ranks


def test_where_everybody_waits_for_another_it_says_so(tmp_path: Path) -> None:
    """Two groups that wait for each other: the earlier parting is shown, as undecided."""
    config = {"7": {"desc": "A", "ranks": "[0, 1]"}, "8": {"desc": "B", "ranks": "[0, 1]"}}

    def one(a: int, b: int, entry: dict[str, Any]) -> dict[str, Any]:
        status = {
            name: {"last_enqueued_collective": n, "last_completed_collective": 5} for name, n in (("1", a), ("2", b))
        }
        return {"pg_config": config, "pg_status": status, "entries": [entry]}

    found = written(tmp_path, {0: one(6, 5, an_entry(6, at=10)), 1: one(5, 6, an_entry(6, "8", at=20, pg_id=2))})
    assert (True, (1,)) == (found.undecided, found.missing_ranks)


def test_a_prefix_finds_its_files_and_no_others(tmp_path: Path) -> None:
    """As TORCH_FR_DUMP_TEMP_FILE names them."""
    for name in ("nccl_0", "nccl_1", "nccl_x", "other_3", "nccl_99999999999"):
        (tmp_path / name).write_text(json.dumps(a_dump(6, 5, [an_entry(6)], "[0, 1]")))
    assert [0, 1] == sorted(dumps.load(str(tmp_path / "nccl_"), opener).by_rank)


def test_no_dump_is_not_found(tmp_path: Path) -> None:
    """An empty directory has none."""
    assert not dumps.present(str(tmp_path))
    with pytest.raises(CoordError) as caught:
        dumps.load(str(tmp_path), opener)
    assert Code.NOT_FOUND == caught.value.code


@pytest.mark.parametrize(
    "data", (b"", b"{", b"[]", b"[" * 100_000, b'{"entries": [{"process_group": 3}]}', b"\x80\x02}.")
)
def test_what_is_no_dump_is_refused_or_empty(tmp_path: Path, data: bytes) -> None:
    """Whatever the file holds, the others are still read."""
    (tmp_path / "_dump_1").write_bytes(data)
    found = written(tmp_path, {0: a_dump(5, 5, [], "[0]")})
    assert 0 in found.by_rank if isinstance(found, dumps.Found) else found.ranks >= 1


def test_many_ranks_that_are_behind_take_no_longer_each(tmp_path: Path) -> None:
    """A group of a million names, of whom two left a dump: what is compared, is compared once."""
    ranks = json.dumps(list(range(1_000_000)))
    began = time.process_time()
    said = written(tmp_path, {0: a_dump(2, 1, [an_entry(2)], ranks), 1: a_dump(1, 1, [an_entry(1)], ranks)})
    assert time.process_time() - began < 5.0
    assert dumps.MEMBERS_MAX - 1 == len(said.missing_ranks)


def test_groups_of_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few bytes name them."""
    monkeypatch.setattr(parting, "PLACES_MAX", 2)
    with pytest.raises(CoordError, match="more than 2 members"):
        written(tmp_path, {0: a_dump(2, 1, [an_entry(2)])})


def test_entries_are_bounded_over_all_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes when there are enough is refused, and not blamed for it."""
    monkeypatch.setattr(dumps, "ALL_ENTRIES_MAX", 2)
    said = written(tmp_path, {rank: a_dump(1, 1, [an_entry(1)]) for rank in range(3)})
    assert (2, ((2, "the dumps have more than 2 entries altogether"),)) == (said.ranks, said.refused)
    assert () == said.missing_ranks


def test_what_is_no_file_is_refused_alone(tmp_path: Path) -> None:
    """A pipe that somebody holds open, and a directory: neither waits, fails, nor keeps a descriptor."""
    os.mkfifo(tmp_path / "_dump_7")
    (tmp_path / "_dump_8").mkdir()
    (tmp_path / "_dump_0").write_text(json.dumps(a_dump(1, 1, [an_entry(1)])))
    writer = os.open(tmp_path / "_dump_7", os.O_RDWR)
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        found = dumps.load(str(tmp_path), lambda path: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        assert before == len(list(Path("/proc/self/fd").iterdir()))
    finally:
        os.close(writer)
    assert [0] == list(found.by_rank)
    assert ((7, "it is no regular file"), (8, "it is no regular file")) == found.refused


def test_a_name_that_a_dump_gives_is_cut(tmp_path: Path) -> None:
    """It is shown in every row."""
    long = "x" * 100_000
    entries = [an_entry(number, name=long, input_dtypes=[long], input_sizes=[[1] * 50_000]) for number in (1, 2)]
    said = written(tmp_path, {0: a_dump(2, 1, entries), 1: a_dump(1, 1, entries[:1]), 2: a_dump(2, 1, entries)})
    assert said.rows and len(parting.table(said)) < 2_000


_numbers = st.integers(-2, 9) | st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 70, 1 << 250, True, 1.5])
_texts = st.sampled_from(["", "7", "0", "completed", "nccl:all_reduce", "\0", "\ud800", "é" * 300])
_any = st.none() | _numbers | _texts | st.lists(_numbers, max_size=3)
_entries = st.fixed_dictionaries(
    {"process_group": st.tuples(_texts, _texts) | _any},
    optional={
        "pg_id": _any, "collective_seq_id": _numbers, "profiling_name": _texts, "time_created_ns": _numbers,
        "input_sizes": st.lists(st.lists(_numbers, max_size=2), max_size=2),
        "input_dtypes": st.lists(_texts, max_size=2),
        "state": _texts, "is_p2p": st.booleans(), "frames": _any,
    },
)  # fmt: skip
_status = st.fixed_dictionaries({}, optional={"last_enqueued_collective": _numbers, "last_completed_collective": _any})
_ranks = st.sampled_from(["[0, 1, 2]", "", "9" * 40, "[1048577]", [0, 1], [-1, 5], [1 << 70], None])
_dumps = st.fixed_dictionaries(
    {"entries": st.lists(_entries, max_size=4)},
    optional={
        "pg_config": st.dictionaries(_texts, st.fixed_dictionaries({"desc": _texts}, optional={"ranks": _ranks})),
        "pg_status": st.dictionaries(st.sampled_from(["0", "1", "-1"]), _status),
        "version": _texts,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_dumps, min_size=1, max_size=3), st.booleans())
def test_whatever_dumps_hold_the_answer_can_be_sent_or_they_are_refused(made: list[Any], pickled: bool) -> None:
    """No error but a CoordError; and what is said fits into the answer of a request."""
    found: dict[int, dumps.Dump] = {}
    for rank, one in enumerate(made):
        try:
            found[rank] = dumps.decode(pickle.dumps(one, protocol=2) if pickled else json.dumps(one).encode())
        except CoordError as error:
            assert Code.BAD_REQUEST == error.code
    said = parting.analyse(dumps.Found(by_rank=found))
    assert msgspec.json.encode(answer(said)) and len(parting.table(said)) < 100_000
