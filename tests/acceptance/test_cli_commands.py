"""Client commands against a real coordinator with a real agent: what they print, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.demo.history import as_csv, generate
from tests.acceptance.cli_runs import Coord, Done, Server
from tests.acceptance.processes import GUARD_S, Agent, wait_for

GOLEM = Path(__file__).parents[3] / "shared" / "data" / "golem_network" / "sessions.csv.xz"


class Fleet(NamedTuple):
    """A coordinator with agent `w1`, and 40 made-up nodes of 20 days."""

    coord: Coord
    server: Server
    directory: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    with Server(directory) as server:
        client = server.start()
        coord = Coord(server.data)
        history = directory / "history.csv"
        history.write_text("".join(as_csv(generate(seed=3, nodes=40, days=20, until=int(time.time()) - 60))))
        with Agent(directory, server, "w1", "--label", "room=b12"):
            assert coord("import", "sessions", str(history)).code == 0
            wait_for(lambda: [e.liveness for e in client.providers().entries] == ["online"], "the agent being online")
            wait_for(lambda: coord("query", "network").code == 0, "figures")
            yield Fleet(coord, server, directory)


LISTINGS = (
    ("providers", "list"),
    ("query", "reliability"),
    ("query", "sessions", "server-001", "--window", "30d"),
    ("query", "heartbeats", "w1"),
    ("query", "heartbeats", "w1", "--hourly"),
    ("token", "list"),
    ("pool", "list"),
    ("alerts",),
)


@pytest.mark.parametrize("command", LISTINGS, ids=" ".join)
def test_every_listing_has_every_format(fleet: Fleet, command: tuple[str, ...]) -> None:
    """JSON with `entries`; lines, CSV and names agree with it in number and content; tables fit 80 columns."""
    coord = fleet.coord
    formats = ("json", "jsonl", "csv", "name", "table", "json")

    def all_of_them() -> list[Done] | None:
        """At one moment: a heartbeat that comes between two of them makes one longer."""
        with ThreadPoolExecutor(len(formats)) as pool:
            answers = list(pool.map(lambda one: coord(*command, "-o", one), formats))
        return answers if len(answers[0].json()["entries"]) == len(answers[-1].json()["entries"]) else None

    whole, lines, cells, names, shown, _ = wait_for(all_of_them, "a moment without a heartbeat", 60)
    entries = whole.json()["entries"]
    assert [json.loads(line).keys() for line in lines.out.splitlines()] == [entry.keys() for entry in entries]
    rows = list(csv.DictReader(io.StringIO(cells.out)))
    assert len(rows) == len(names.out.splitlines()) == len(entries)
    assert all(list(row) == list(entry) for row, entry in zip(rows, entries, strict=True))
    table = shown.out.splitlines()
    assert len(table) == (len(entries) + 1 if entries else 0)
    assert max((len(line) for line in table), default=0) <= 80
    assert "\x1b" not in "".join(table)


def test_reliability_filters_sorts_and_adds_the_forecast(fleet: Fleet) -> None:
    """By score, at least the one asked for; a forecast where the node is online, null where it is not."""
    argv = ("query", "reliability", "--min-score", "0.5", "--horizon", "8h", "--limit", "0", "-o", "json")
    answer = fleet.coord(*argv).json()
    scores = [entry["liveness_score"] for entry in answer["entries"]]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.5
    assert answer["filters"]["min_score"] == 0.5 and answer["matched"] == len(scores)
    for entry in answer["entries"]:
        assert (entry["forecast"] is not None) == entry["online"]
        if entry["forecast"] is not None:
            assert {"horizon_s", "probability", "low", "high"} <= entry["forecast"].keys()
            assert entry["forecast"]["horizon_s"] == 28800


def test_a_limit_is_kept_over_pages_and_zero_means_all(fleet: Fleet) -> None:
    """More sessions than one page holds come as one answer."""
    argv = ("query", "sessions", "laptop-001", "--window", "30d", "-o", "json")
    everything = [one["session_id"] for one in fleet.coord(*argv, "--limit", "0").json()["entries"]]
    assert len(everything) == len(set(everything)) > 100
    some = fleet.coord(*argv, "--limit", "60").json()["entries"]
    assert [one["session_id"] for one in some] == everything[:60], "an open one grows meanwhile: they go by their ids"


def test_a_forecast_is_null_for_a_node_that_is_not_there(fleet: Fleet) -> None:
    """JSON null, a sentence for people, status 0 both times."""
    away = next(
        entry["provider_id"]
        for entry in fleet.coord("query", "reliability", "--limit", "0", "-o", "json").json()["entries"]
        if not entry["online"]
    )
    assert fleet.coord("query", "forecast", away, "-o", "json").json() is None
    told = fleet.coord("query", "forecast", away)
    assert told.code == 0 and "not online" in told.err
    here = fleet.coord("query", "forecast", "newcomer-001", "--horizon", "4h")
    assert here.code == 0 and "stays 4h with" in here.out


def test_the_heatmap_and_its_json_tell_the_same_week(fleet: Fleet) -> None:
    """Seven rows of 24; a server's week is full."""
    grid = fleet.coord("query", "availability", "server-001", "-o", "json").json()["hourly_availability"]
    assert [len(row) for row in grid] == [24] * 7
    drawn = fleet.coord("query", "availability", "server-001").out.splitlines()
    assert [line.split()[0] for line in drawn if line[:3] in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")] == [
        "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun",
    ]  # fmt: skip
    assert fleet.coord("query", "availability", "--time-zone", "Asia/Kathmandu").code == 0


def test_sql_answers_with_its_own_columns_and_refuses_files(fleet: Fleet) -> None:
    """Rows as JSON objects, from stdin too; reading a file is refused with a reason."""
    question = "SELECT 1 AS one, 'a' AS letter"
    assert fleet.coord("query", "sql", question, "-o", "csv").out == "one,letter\n1,a\n"
    assert json.loads(fleet.coord("query", "sql", "-", "-o", "jsonl", stdin=question.encode()).out) == {
        "one": 1,
        "letter": "a",
    }
    refused = fleet.coord("query", "sql", "SELECT * FROM read_csv('/etc/passwd')")
    assert refused.code == 65 and "root:" not in refused.out + refused.err


def test_network_and_backtest_answer(fleet: Fleet) -> None:
    """Figures of the whole fleet; forecasts of the past against what came."""
    assert fleet.coord("query", "network", "-o", "json").json()["providers"] >= 40
    answer = fleet.coord("query", "backtest", "--horizons", "4h,8h", "--every", "24h", "-o", "json").json()
    assert [horizon["horizon_s"] for horizon in answer["horizons"]] == [14400, 28800]
    assert fleet.coord("query", "backtest", "-o", "wide").out.count("calibration") == 3


def test_drain_resume_and_what_they_show(fleet: Fleet) -> None:
    """The note and the state are in the listing; resume undoes it."""
    coord = fleet.coord
    assert coord("providers", "drain", "w1", "--note", "new disk").code == 0
    shown = coord("providers", "show", "w1")
    assert "drained" in shown.out and "new disk" in shown.out and "room=b12" in shown.out
    assert coord("providers", "resume", "w1").code == 0
    assert coord("providers", "show", "w1", "-o", "json").json()["drained"] is False
    refused = coord("providers", "forget", "w1")
    assert refused.code == 2 and "--yes" in refused.err


def test_tokens_are_shown_once_and_roles_hold(fleet: Fleet) -> None:
    """The text alone on stdout; a read-only token reads and changes nothing; a revoked one does neither."""
    coord = fleet.coord
    made = coord("token", "create", "--role", "read-only", "--note", "dashboard", "--expires", "7d")
    text = made.out.strip()
    assert made.out == text + "\n" and text.startswith("coord-read-only-")
    token_id = next(e["token_id"] for e in coord("token", "list", "-o", "json").json()["entries"] if e["note"])
    assert text not in coord("token", "list", "-o", "json").out
    elsewhere = {"COORD_DATA": str(fleet.directory / "none"), "COORD_URL": fleet.server.url, "COORD_TOKEN": text}
    assert coord("providers", "list", "-o", "name", env=elsewhere).out == "w1\n"
    assert coord("pool", "create", "x", env=elsewhere).code == 77
    from_file = coord(
        "pool", "list", "--token-file", "-", env=elsewhere | {"COORD_TOKEN": ""}, stdin=text.encode() + b"\n"
    )
    assert from_file.code == 0
    dashboard = next(e for e in coord("token", "list", "-o", "json").json()["entries"] if e["note"] == "dashboard")
    assert token_id and coord("token", "revoke", dashboard["token_id"]).code == 0
    assert coord("providers", "list", env=elsewhere).code == 77


def test_pools_come_and_go(fleet: Fleet) -> None:
    """Made once, refused twice, deleted when empty."""
    coord = fleet.coord
    assert coord("pool", "create", "lab", "--note", "room B12").code == 0
    again = coord("pool", "create", "lab")
    assert again.code == 73 and "lab" in again.err
    assert "lab" in coord("pool", "list", "-o", "name").out.split()
    assert coord("pool", "delete", "lab").code == 0
    assert coord("pool", "delete", "lab").code == 66


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("providers", "show", "nobody"), 66, "nobody"),
        (("providers", "show", "../../etc"), 66, ""),
        (("providers", "list", "--liveness", "onlin"), 2, "online"),
        (("query", "sessions", "nobody"), 66, "nobody"),
        (("query", "forecast", "w1", "--horizon", "soon"), 2, "8h"),
        (("query", "reliability", "--as-of", "yesterday"), 2, "ISO 8601"),
        (("query", "reliability", "--min-score", "7"), 2, "--min-score"),
        (("query", "availability", "w1", "--time-zone", "Mars/Olympus"), 2, "Mars"),
        (("query", "sql", "DROP TABLE sessions"), 65, ""),
        (("token", "create", "--role", "tenant"), 2, "--tenant"),
        (("token", "create", "--role", "join", "--expires", "x"), 2, "--expires"),
        (("token", "revoke", "nothing"), 66, "nothing"),
        (("import", "sessions", "none.csv"), 66, "none.csv"),
        (("db", "restore", "/nowhere"), 2, "/nowhere"),
        (("providers", "list", "--url", "nonsense"), 78, "http://HOST:PORT"),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_do(fleet: Fleet, argv: tuple[str, ...], code: int, said: str) -> None:
    """The documented status, nothing on stdout, a message that names what was asked, no traceback."""
    done = fleet.coord(*argv, env={"COORD_TOKEN": fleet.server.token("admin")})
    assert done.code == code, done.err
    assert done.out == "" and said in done.err and "Traceback" not in done.err
    assert done.err.startswith("coord: ")


def test_nobody_there_wrong_token_and_no_token_are_told_apart(fleet: Fleet) -> None:
    """69 with how to start one; 77 with where tokens come from."""
    none = {"COORD_DATA": str(fleet.directory / "none")}
    away = fleet.coord("providers", "list", env=none | {"COORD_URL": "http://127.0.0.1:9", "COORD_TOKEN": "x"})
    assert away.code == 69 and "127.0.0.1:9" in away.err
    wrong = fleet.coord("providers", "list", env=none | {"COORD_URL": fleet.server.url, "COORD_TOKEN": "x"})
    assert wrong.code == 77
    absent = fleet.coord("providers", "list", env=none | {"COORD_URL": fleet.server.url})
    assert absent.code == 77 and "COORD_TOKEN" in absent.err


def test_a_file_with_bad_rows_imports_nothing_and_names_the_lines(fleet: Fleet) -> None:
    """Status 65; the good rows of the same file are not there afterwards."""
    bad = fleet.directory / "bad.csv"
    bad.write_text(
        "provider_id,connected_at,disconnected_at,disconnect_reason\n"
        "good-1,1763700000,1763701000,read_error\n"
        "bad-1,1763700000,1763600000,read_error\n"
        "bad-2,yesterday,1763600000,read_error\n"
        "bad-3,1763700000,1763700100,bored\n"
    )
    done = fleet.coord("import", "sessions", str(bad))
    assert done.code == 65
    assert all(f"line {number}" in done.err for number in (3, 4, 5))
    assert fleet.coord("query", "sessions", "good-1").code == 66


def test_an_import_from_stdin_and_twice_is_once(fleet: Fleet) -> None:
    """The second time everything was known already; an open row gets its end later."""
    rows = b"provider_id,connected_at,disconnected_at,disconnect_reason\nstd-1,1763700000,,\n"
    first = fleet.coord("import", "sessions", "-", "-o", "json", stdin=rows).json()
    assert (first["rows"], first["added"]) == (1, 1)
    assert fleet.coord("import", "sessions", "-", "-o", "json", stdin=rows).json()["unchanged"] == 1
    ended = rows.replace(b",,", b",1763703600,read_error")
    assert fleet.coord("import", "sessions", "-", "-o", "json", stdin=ended).json()["closed"] == 1


@pytest.mark.alone
@pytest.mark.skipif(not GOLEM.exists(), reason="the shared data is not beside this repository")
def test_the_golem_history_imports_in_five_seconds_and_twice_the_same(fleet: Fleet) -> None:
    """17,181 sessions, compressed; the clock runs over the whole command."""
    began = time.monotonic()
    first = fleet.coord("import", "sessions", str(GOLEM), "-o", "json").json()
    assert time.monotonic() - began < 5
    with lzma.open(GOLEM, "rt") as file:
        lines = sum(1 for _ in file) - 1
    assert first["rows"] == first["added"] == lines == 17_181
    again = fleet.coord("import", "sessions", str(GOLEM), "-o", "json").json()
    assert again == first | {"added": 0, "unchanged": lines}


def test_backup_check_and_restore_into_another_directory(fleet: Fleet) -> None:
    """The copy restores into a directory that serves the same fleet; a directory in use is refused."""
    coord = fleet.coord
    checked = coord("db", "check", "-o", "json").json()
    assert checked["problems"] == [] and checked["files"] >= 2
    copy = coord("db", "backup").out.strip()
    refused = coord("db", "restore", copy)
    assert refused.code == 73, refused.err
    other = fleet.directory / "other"
    other.mkdir()
    data = other / "data"
    assert coord("db", "restore", copy, "--data", str(data)).code == 0
    assert coord("db", "check", "--offline", "--data", str(data)).code == 0
    argv = ("query", "sessions", "laptop-001", "--window", "30d", "-o", "json")
    before = [entry for entry in coord(*argv).json()["entries"] if entry["disconnected_at"] is not None]
    assert before
    with Server(other) as second:
        second.start()
        here = Coord(second.data)
        assert [entry for entry in here(*argv).json()["entries"] if entry["disconnected_at"] is not None] == before
        assert here("providers", "list", "-o", "name").out == "w1\n"


def test_completion_offers_commands_and_live_ids(fleet: Fleet) -> None:
    """The scripts of three shells; the ids come from the coordinator."""
    for shell in ("bash", "zsh", "fish"):
        assert "_COORD_COMPLETE" in fleet.coord("completion", shell).out
    words = {"_COORD_COMPLETE": "bash_complete", "COMP_WORDS": "coord providers show w", "COMP_CWORD": "3"}
    assert fleet.coord(env=words).out == "plain,w1\n"
    away = words | {"COORD_DATA": str(fleet.directory / "none")}
    assert fleet.coord(env=away).out.strip() == ""


def test_doctor_finds_the_running_server_and_nothing_wrong(fleet: Fleet) -> None:
    """Every check by name; a directory that others can read is a problem with its remedy."""
    found = fleet.coord("doctor", "-o", "json")
    states = {entry["check"]: entry["state"] for entry in json.loads(found.out)["entries"]}
    assert {"python", "sqlite", "duckdb", "disk space", "disk fsync", "clock", "address", "open files"} <= set(states)
    assert {"isolation", "processes"} <= set(states) and states["isolation"] != "problem"
    assert states["data directory"] == "ok"
    loose = fleet.directory / "loose"
    loose.mkdir(mode=0o755)
    loose.chmod(0o755)
    bad = fleet.coord("doctor", "--data", str(loose))
    assert bad.code == 1 and "chmod" in bad.out


def test_config_show_names_the_origin(fleet: Fleet) -> None:
    """What was changed, and by what."""
    done = fleet.coord("config", "show", "--changed", env={"COORD_POLICY_LOST_AFTER_MS": "45s"})
    assert "policy.lost_after_ms  45000" in done.out and "COORD_POLICY_LOST_AFTER_MS" in done.out


def test_a_simulated_story_is_the_same_again(fleet: Fleet) -> None:
    """The same seed, byte for byte."""
    once = fleet.coord("simulate", "--seed", "7", "--steps", "300")
    assert once.code == 0 and len(once.out.splitlines()) > 3
    assert fleet.coord("simulate", "--seed", "7", "--steps", "300").out == once.out
    assert fleet.coord("simulate", "--seed", "7", "--steps", "300", "--quiet").out.count("\n") == 1


def test_a_recording_is_made_on_a_signal_and_replays(tmp_path: Path) -> None:
    """SIGUSR2 leaves the recent events in the data directory; decided again, every decision is the same."""
    with Server(tmp_path) as server:
        client = server.start()
        client.create_pool("lab")
        os.kill(server.pid, signal.SIGUSR2)
        (recording,) = wait_for(lambda: list((server.data / "recorder").glob("*-now.rec")), "the recording")
        wait_for(lambda: "recorded: " in server.text(), "the log line")
        done = Coord(server.data)("simulate", "--replay", str(recording))
        assert 0 == done.code, done.err
        assert "PoolCreate" in done.out
        assert "every decision is the same again" in done.out
        both = Coord(server.data)("simulate", "--replay", str(recording), "--seed", "1")
        assert 2 == both.code and "one world" in both.err


def test_a_reader_that_goes_away_is_no_error_message(fleet: Fleet) -> None:
    """`coord ... | head -1`: status 141 and silence."""
    read, write = os.pipe()
    os.close(read)
    argv = (sys.executable, "-m", "cli", "query", "reliability", "--limit", "0", "-o", "csv")
    done = subprocess.run(argv, env=fleet.coord.env, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


def test_ctrl_c_while_a_command_waits_is_130_and_silent(fleet: Fleet) -> None:
    """An import that waits for stdin is given up without a traceback."""
    argv = (sys.executable, "-m", "cli", "import", "sessions", "-")
    process = subprocess.Popen(argv, env=fleet.coord.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: _is_reading(process.pid), "the command reading its stdin")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=GUARD_S)
        assert process.returncode == 130
        assert b"Traceback" not in said
    finally:
        process.kill()
        process.wait()


def _is_reading(pid: int) -> bool:
    """Whether the process sleeps in a read of its stdin (system call 0, file descriptor 0)."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[:2] == ["0", "0x0"]
