"""`coord simulate --fleet --workload`: what it prints, draws and refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from cli.main import main

LOG = "; a log\n" + "\n".join(
    f"{n} {60 * n} -1 {600 + n} {1 + n % 3} -1 -1 -1 1200 -1 1 {n % 2} 1 -1 -1 -1 -1 -1" for n in range(30)
)
HISTORY = "provider_id,connected_at,disconnected_at,disconnect_reason\n" + "\n".join(
    f"m{n},{1_700_000_000 + 100 * n},{1_700_000_000 + 86_400 * (1 + n % 4)},read_error" for n in range(12)
)


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["simulate", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_log_on_nodes_is_compared_by_policy_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same jobs for each policy, the tenants of the log, nothing lost on nodes that stay; a picture beside it."""
    log, picture = tmp_path / "log.swf.gz", tmp_path / "waits.svg"
    log.write_bytes(gzip.compress(LOG.encode()))
    code, out, _ = replayed(
        capsys, "--fleet", "4x1", "--workload", str(log), "--policy", "fit", "--policy", "random", "-o", "json",
        "--picture", str(picture), "--weight", "user-1=2",
    )  # fmt: skip
    answer = json.loads(out)
    assert (0, ["fit", "random"]) == (code, [entry["policy"] for entry in answer["entries"]])
    assert [(30, 30, 0)] * 2 == [(e["jobs"], e["completed"], e["lost"]) for e in answer["entries"]]
    assert {"user-0": 1, "user-1": 2} == {t["tenant"]: t["weight"] for t in answer["entries"][0]["tenants"]}
    assert picture.read_text().startswith("<svg")


def test_a_history_under_a_made_up_load_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Machines that leave lose work; the warm-up and what is left out are said."""
    history = tmp_path / "history.csv"
    history.write_text(HISTORY)
    code, out, err = replayed(capsys, "--fleet", str(history), "--workload", "2h@50%", "--figures-every", "12h")
    assert 0 == code
    assert ["POLICY", "forecast", "random"] == [line.split()[0] for line in out.splitlines()]
    assert "12 providers" in err


def test_a_history_that_is_too_short_for_a_single_job_says_how_long_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions that are all still open tell of no time at all beyond the last one's beginning."""
    history = tmp_path / "history.csv"
    begins = "\n".join(f"m{n},{1_700_000_000 + 10 * n},," for n in range(10))
    history.write_text(f"provider_id,connected_at,disconnected_at,disconnect_reason\n{begins}\n")
    code, _, err = replayed(capsys, "--fleet", str(history), "--workload", "1h@30%")
    assert 2 == code
    assert "1h@30% makes no job in the 1m from the warm-up to the last known end of a session" in err


def test_ways_to_save_state_stand_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each policy with each of them; what is lost, and what saving took, are both waste."""
    history = tmp_path / "history.csv"
    history.write_text(HISTORY)
    code, out, _ = replayed(
        capsys, "--fleet", str(history), "--workload", "6h@50%", "--figures-every", "12h", "--policy", "fit",
        "--checkpoint", "none", "--checkpoint", "auto", "--checkpoint", "1h", "--checkpoint-cost", "1m", "-o", "json",
    )  # fmt: skip
    entries = json.loads(out)["entries"]
    assert (0, ["none", "auto", "1h"]) == (code, [entry["checkpoint"] for entry in entries])
    assert all(abs(entry["wasted_h"] - entry["lost_h"] - entry["saving_h"]) < 1e-9 for entry in entries)
    assert 0.0 == entries[0]["saving_h"] < entries[2]["saving_h"]
    assert entries[2]["lost_h"] < entries[0]["lost_h"]


def test_a_picture_that_cannot_be_written_costs_nobody_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are printed first, and the picture's own trouble is said in a line."""
    log = tmp_path / "log.swf"
    log.write_text(LOG)
    picture = tmp_path / "a.svg"
    picture.symlink_to("/dev/full")
    code, out, err = replayed(
        capsys, "--fleet", "4x1", "--workload", str(log), "--policy", "fit", "--picture", str(picture)
    )
    assert code != 0 and "30/30" in out and "No space left" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fleet", "4x1", "--workload", "1h@30%", "--checkpoint", "often"), "--checkpoint"),
        (("--fleet", "4x1"), "--workload"),
        (("--fleet", "4x1", "--workload", "nothing.swf"), "nothing.swf"),
        (("--fleet", "nothing.csv", "--workload", "1h@30%"), "nothing.csv"),
        (("--fleet", "4x1", "--workload", "1h@30%", "--picture", "a.bmp"), ".svg"),
        (("--fleet", "4x1", "--workload", "1h@30%", "--picture", "/nowhere/at/all/a.svg"), "no directory"),
        (("--fleet", "4x1", "--workload", "1h@30%", "--weight", "a=0"), "--weight"),
        (("--fleet", "4x1", "--workload", "1h@30%", "--weight", "user-77=3"), "it has default"),
    ],
)
def test_what_cannot_be_replayed_is_refused_by_name(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = replayed(capsys, *arguments)
    assert 0 != code
    assert told in err
