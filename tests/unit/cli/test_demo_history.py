"""The made-up history: always the same, well formed, and of five characters that differ."""

from __future__ import annotations

import itertools
from collections import defaultdict

from cli.demo.history import CHARACTERS, DAY_S, HEADER, Stint, as_csv, generate
from coordinator.core.rows import EndReason

UNTIL = 1_795_000_000


def fleet(seed: int = 1) -> dict[str, list[Stint]]:
    by_node: dict[str, list[Stint]] = defaultdict(list)
    for stint in generate(seed=seed, nodes=100, days=30, until=UNTIL):
        by_node[stint.provider_id].append(stint)
    return by_node


def online_share(stints: list[Stint]) -> float:
    first = min(stint.begin for stint in stints)
    return sum((stint.end or UNTIL) - stint.begin for stint in stints) / (UNTIL - first)


def test_the_same_seed_gives_the_same_history_and_another_one_another() -> None:
    """Seeded: what is shown can be shown again."""
    assert fleet(1) == fleet(1)
    assert fleet(1) != fleet(2)


def test_sessions_of_a_node_follow_each_other_within_the_span() -> None:
    """No overlap, no empty session, nothing in the future, at most one open and that the last."""
    for stints in fleet().values():
        for before, after in itertools.pairwise(stints):
            assert before.end is not None and before.end <= after.begin
        for stint in stints:
            assert UNTIL - 30 * DAY_S <= stint.begin < (stint.end if stint.end is not None else UNTIL) <= UNTIL
            assert (stint.reason == "") == (stint.end is None)
            assert stint.reason in {"", *EndReason}


def test_the_characters_differ_as_their_names_say() -> None:
    """Servers are nearly always there, office PCs about a quarter of the week, laptops come and go most."""
    shares: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, list[int]] = defaultdict(list)
    for name, stints in fleet().items():
        kind = name.rpartition("-")[0]
        shares[kind].append(online_share(stints))
        counts[kind].append(len(stints))
    assert set(shares) == set(CHARACTERS)
    assert min(shares["server"]) > 0.97
    assert 0.15 < sum(shares["office"]) / 20 < 0.40
    assert 0.6 < sum(shares["spot"]) / 20 < 0.95
    assert min(counts["laptop"]) > 2 * max(counts["office"])
    assert all(len(stints) == 1 for name, stints in fleet().items() if name.startswith("newcomer"))


def test_office_pcs_are_on_at_work_and_off_at_the_weekend() -> None:
    """No session begins on a Saturday or Sunday, nor in the night."""
    for name, stints in fleet().items():
        if name.startswith("office"):
            for stint in stints:
                assert (stint.begin // DAY_S + 3) % 7 < 5
                assert 5 <= stint.begin % DAY_S / 3600 < 12 or stint.begin == UNTIL - 30 * DAY_S


def test_the_csv_is_what_the_import_takes() -> None:
    """Header, then a row a session; an open one has an empty end."""
    lines = list(as_csv(iter([Stint("a", 1, 2, "read_error"), Stint("b", 3, None, "")])))
    assert lines == [HEADER + "\n", "a,1,2,read_error\n", "b,3,,\n"]
