"""coord.toml, COORD_* and flags: which one counts, where it came from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.config import SECTIONS, Config, Flag, settings_of, struct_of
from cli.settings import ServeSettings
from coordinator.agent.config import AgentConfig
from coordinator.core.errors import Code, CoordError
from coordinator.core.policy import Policy


def config(tmp_path: Path, text: str = "", flags: list[Flag] | None = None, **environ: str) -> Config:
    file = tmp_path / "coord.toml"
    file.write_text(text)
    return Config(file=file, flags=flags or [], environ={"HOME": str(tmp_path), **environ})


def refused(make: Any) -> CoordError:
    with pytest.raises(CoordError) as caught:
        make()
    assert caught.value.code is Code.BAD_CONFIG
    return caught.value


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    """Rising precedence: default, file, environment, flag."""
    text = "[policy]\nlost_after_ms = 40000\nchallenge_ms = 6000\nrejoin_ms = 50000\n"
    environ = {"COORD_POLICY_CHALLENGE_MS": "7s", "COORD_POLICY_REJOIN_MS": "70s"}
    found = config(tmp_path, text, [Flag("policy.rejoin_ms", "90s", "--set")], **environ).section("policy", Policy)
    assert found == Policy(lost_after_ms=40_000, challenge_ms=7_000, rejoin_ms=90_000)


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    """`config show` names the line, the variable, the flag, or the default."""
    shown = {
        one.setting: one.origin
        for one in config(
            tmp_path, '\n[serve]\nlisten = "127.0.0.1:1"\n', [Flag("data", "/x", "--data")], COORD_URL="http://h:1"
        ).shown()
    }
    assert shown["serve.listen"] == f"{tmp_path / 'coord.toml'}:3"
    assert shown["client.url"] == "COORD_URL"
    assert shown["data"] == "--data"
    assert shown["policy.lost_after_ms"] == "default"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("lost_after_ms = '1s'", "lost_after_ms = 1000", "lost_after_ms=30000"),
        ("heartbeat_interval_ms = '10s'", "heartbeat_interval_ms = 10000", "lost_after_ms=60000"),
        ("suspect_after_intervals = 1.0", "ping_after_intervals = 1.2", "raise"),
        ("suspect_after_intervals = 7", "lost_after_ms = 30000", "lower"),
        ("term_ms = '12s'", "term_ms = 12000", "raise"),
    ],
)
def test_patience_that_contradicts_itself_is_refused(tmp_path: Path, text: str, said: str, hint: str) -> None:
    """A provider is pinged, then suspect, then lost: settings that would turn this around say so at the start."""
    wrong = refused(lambda: config(tmp_path, f"[policy]\n{text}\n").section("policy", Policy))
    assert said in wrong.message and hint in wrong.hint


def test_patience_at_its_least_is_taken(tmp_path: Path) -> None:
    """Six intervals are enough."""
    quick = config(tmp_path, "[policy]\nheartbeat_interval_ms = 1000\nlost_after_ms = 6000\n")
    assert quick.section("policy", Policy).lost_after_ms == 6000


def test_an_unknown_key_is_an_error_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    """Never ignored: a misspelt deadline is no deadline."""
    wrong = refused(lambda: config(tmp_path, "[policy]\n\nlost_aftr_ms = 1\n").section("policy", Policy))
    assert "coord.toml:3" in wrong.message and "policy.lost_aftr_ms" in wrong.message
    assert "lost_after_ms" in wrong.hint


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[polcy]\nx = 1\n", "polcy", "policy"),
        ("dta = '/x'\n", "dta", "data"),
        ("[serve]\nlisten = 7\n", "serve.listen", ""),
        ("[policy]\nlost_after_ms = 'soon'\n", "soon", "30s"),
        ("[policy]\nlost_after_ms = 1.5\n", "1.5", ""),
        ("[policy]\nlost_after_ms = -1\n", "above 0", ""),
        ("[policy]\nheartbeat_interval_ms = 0\n", "above 0", ""),
        ("[engine]\nretry_s = nan\n", "above 0", ""),
        ("[store]\nballast_bytes = -1\n", "at least 0", ""),
        ("[policy\n", "cannot be read", ""),
        ("[server]\nport = 1\n", "server.port", ""),
        ("[api]\njoin_suffix = 'x'\n", "api.join_suffix", ""),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, said: str, hint: str) -> None:
    """Section, key, type, value and syntax; fields that composition fills are no settings."""
    wrong = refused(lambda: config(tmp_path, text).shown())
    assert said in wrong.message and hint in wrong.hint


def test_zero_is_taken_where_it_means_something(tmp_path: Path) -> None:
    """No ballast is a choice; no heartbeat interval is a mistake."""
    assert {one.setting: one.value for one in config(tmp_path, "[store]\nballast_bytes = 0\n").shown()}[
        "store.ballast_bytes"
    ] == 0


def test_a_variable_of_a_known_section_is_checked_and_others_are_left_alone(tmp_path: Path) -> None:
    """COORD_JOB_ID is for somebody else; COORD_POLICY_X is a mistake."""
    assert config(tmp_path, COORD_JOB_ID="7").section("policy", Policy) == Policy()
    wrong = refused(lambda: config(tmp_path, COORD_POLICY_X="1").section("policy", Policy))
    assert "COORD_POLICY_X" in wrong.message


def test_an_unknown_section_of_a_flag_is_refused(tmp_path: Path) -> None:
    """`--set polcy.x=1` suggests policy."""
    wrong = refused(lambda: config(tmp_path, "", [Flag("polcy.x", "1", "--set")]))
    assert "policy" in wrong.hint


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """--config and COORD_CONFIG are promises; the default places are not."""
    refused(lambda: Config(file=tmp_path / "none.toml", environ={}))
    refused(lambda: Config(environ={"COORD_CONFIG": str(tmp_path / "none.toml")}))
    assert Config(environ={"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}).file is None


def test_lists_maps_and_paths_can_come_from_the_environment(tmp_path: Path) -> None:
    """Text with commas becomes a list, with = a map; ~ is the home."""
    found = config(tmp_path, COORD_AGENT_LABELS="a=b,c=d", COORD_AGENT_GPUS="x, y").section("agent", AgentConfig)
    assert found.labels == {"a": "b", "c": "d"} and found.gpus == ("x", "y")
    tls = config(tmp_path, COORD_SERVE_TLS_CERT="~/cert.pem").section("serve", ServeSettings).tls_cert
    assert tls == Path("~/cert.pem").expanduser()


def test_a_secret_is_no_setting(tmp_path: Path) -> None:
    """A join token in the file is refused: secrets come from the environment or a file of their own."""
    wrong = refused(lambda: config(tmp_path, "[agent]\njoin_token = 'x'\n").section("agent", AgentConfig))
    assert "join_token" in wrong.message


def test_the_data_directory_is_flag_then_variable_then_file_then_the_users_own(tmp_path: Path) -> None:
    """And the default needs no rights of root unless we are root."""
    assert config(tmp_path, "data = '/f'\n", COORD_DATA="/e").data() == Path("/e")
    assert config(tmp_path, "data = '/f'\n").data() == Path("/f")
    assert config(tmp_path, XDG_DATA_HOME="/home/me/share").data() == Path("/home/me/share/coord")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_can_be_given_as_text(section: str, tmp_path: Path) -> None:
    """Its default, written as text in a variable, is read back as the same value."""
    plain = {one.setting: one for one in config(tmp_path).shown() if one.setting.startswith(section + ".")}
    environ = {
        f"COORD_{setting.replace('.', '_').upper()}": _as_text(one.value)
        for setting, one in plain.items()
        if one.value not in (None, "", (), {})
    }
    again = {one.setting: one.value for one in Config(environ={"HOME": str(tmp_path), **environ}).shown()}
    assert {setting: again[setting] for setting in plain} == {setting: one.value for setting, one in plain.items()}
    assert set(plain) == {f"{section}.{key}" for key in settings_of(section, struct_of(section))}


def _as_text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)
