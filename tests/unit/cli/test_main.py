"""The entry: what is found, what is suggested, what every command's help holds, and exit statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli import exits
from cli.main import COMMANDS, behind_the_command, main, root
from cli.options import FiniteRange
from cli.providers import print_providers
from coordinator.api_types.fleet import Providers
from coordinator.core.errors import Code, CoordError


def commands(
    command: click.Command = root, context: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with its path."""
    here = context or click.Context(root, info_name="coord")
    yield here.command_path, command, here
    if isinstance(command, click.Group):
        for name in command.list_commands(here):
            inner = command.get_command(here, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=here))


ALL = list(commands())


@pytest.mark.parametrize(("path", "command", "context"), ALL, ids=[path for path, _, _ in ALL])
def test_every_command_explains_itself_with_an_example(
    path: str, command: click.Command, context: click.Context
) -> None:
    """--help has a text, an example that begins with the command, and words on every option."""
    text = command.get_help(context)
    examples = [line.strip() for line in (command.help or "").partition("\b\n")[2].splitlines()]
    words = "coord" if path == "coord" else path
    assert any(words in example for example in examples), f"{path} shows no example of itself"
    assert max(len(line) for line in text.splitlines()) <= 120
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{path} {option.opts} says nothing"


def test_the_short_help_of_the_list_is_the_commands_own() -> None:
    """The list is printed without importing the commands, and says the same as they do."""
    context = click.Context(root, info_name="coord")
    for entries in COMMANDS.values():
        for name, entry in entries.items():
            command = root.get_command(context, name)
            assert command is not None and command.get_short_help_str(120) == entry.short


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("providrs",), "providers"),
        (("query", "reliabilty"), "reliability"),
        (("providers", "list", "--limt", "3"), "--limit"),
        (("simulate", "--seed", "x"), "--seed"),
        (("providers", "list", "-o", "yaml"), "table"),
        (("providers", "show"), "PROVIDER"),
        (("token", "create"), "--role"),
    ],
)
def test_a_wrong_command_line_is_refused_with_what_was_meant(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str
) -> None:
    """Status 2, nothing on stdout, the nearest name or the choices, and where help is."""
    code, out, err = run(capsys, *argv)
    assert (code, out) == (exits.USAGE, "")
    assert said in err and "--help" in err


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (["--data", "D", "providers", "list"], ["providers", "list", "--data", "D"]),
        (["--url=U", "--config", "C", "alerts"], ["alerts", "--url=U", "--config", "C"]),
        (["--data", "D", "query", "sql", "--", "SELECT 1"], ["query", "sql", "--data", "D", "--", "SELECT 1"]),
        (["--data", "D", "db", "check", "--data=E"], ["db", "check", "--data=E"]),
        (["--data", "D"], ["--data", "D"]),
        (["providers", "list"], ["providers", "list"]),
        ([], []),
    ],
)
def test_some_options_may_stand_before_the_command(asked: list[str], meant: list[str]) -> None:
    """They mean the same there; what stands behind the command wins."""
    assert behind_the_command(asked) == meant


def test_an_option_before_the_command_reaches_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "--data", str(tmp_path / "none"), "db", "check", "--offline")
    assert code == exits.of(Code.NOT_FOUND) and f"there is no data directory {tmp_path / 'none'}" in err


def test_any_other_option_before_the_command_says_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "-o", "json", "providers", "list")
    assert code == exits.USAGE and "coord COMMAND -o" in err


def test_such_an_option_without_a_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--data", "somewhere")
    assert code == exits.USAGE and "Missing command" in err


def test_the_other_scheme_of_this_machines_coordinator_is_told_apart_from_a_missing_token(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The data directory knows how it is reached."""
    (tmp_path / "address").write_text("http://127.0.0.1:7999\n")
    code, _, err = run(capsys, "alerts", "--data", str(tmp_path), "--url", "https://127.0.0.1:7999")
    assert code == exits.of(Code.UNREACHABLE) and "is at http://127.0.0.1:7999" in err


def test_a_history_that_is_not_there_is_said_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whether there is a coordinator or not."""
    code, _, err = run(capsys, "import", "sessions", "nofile.csv", "--data", str(tmp_path))
    assert code == exits.of(Code.NOT_FOUND) and "nofile.csv cannot be read" in err


@pytest.mark.parametrize("place", ["/proc/x", "/sys/x"])
def test_a_place_that_takes_no_files_is_no_data_directory(capsys: pytest.CaptureFixture[str], place: str) -> None:
    """Permissions alone would let root try."""
    code, out, _ = run(capsys, "doctor", "--data", place, "-o", "json")
    found = {one["check"]: one for one in json.loads(out)["entries"]}
    assert code == exits.FOUND_PROBLEMS
    assert found["data directory"]["state"] == "problem" and "cannot be made" in found["data directory"]["found"]
    assert "takes no files" in found["disk fsync"]["found"]


def test_an_agent_that_does_not_answer_is_perhaps_the_one_beside_the_coordinator(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint names its state directory, where there is one."""
    (tmp_path / "data" / "agent").mkdir(parents=True)
    monkeypatch.setenv("COORD_DATA", str(tmp_path / "data"))
    code, _, err = run(capsys, "agent", "status", "--state", str(tmp_path / "none"))
    assert code == exits.of(Code.UNREACHABLE) and f"--state {tmp_path / 'data' / 'agent'}" in err


def test_a_missing_option_names_its_choices_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "token", "create")
    assert code == exits.USAGE and "Choose from: admin, tenant, read-only, join" in err and "\\x" not in err


def test_an_empty_token_file_is_a_mistake_and_no_other_token_stands_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.token"
    empty.write_text("\n")
    for command in (["providers", "list", "--token-file"], ["agent", "--state", str(tmp_path), "--join-token-file"]):
        code, _, err = run(capsys, *command, str(empty))
        assert code == exits.USAGE and "empty.token holds no token" in err


def test_a_history_that_cannot_be_written_is_no_fault_of_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "demo", "--history-only", str(tmp_path / "missing" / "history.csv"))
    assert code == exits.USAGE and "history.csv cannot be written: No such file" in err


@pytest.mark.parametrize(("filtered", "words"), [(False, "is enrolled"), (True, "no provider fits")])
def test_an_empty_list_says_whether_a_filter_made_it_so(
    capsys: pytest.CaptureFixture[str], filtered: bool, words: str
) -> None:
    print_providers(Providers(entries=(), next_page=None), "table", filtered=filtered)
    assert words in capsys.readouterr().err


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    """They are results: stdout, status 0."""
    assert run(capsys, "--help")[0] == 0
    code, out, _ = run(capsys, "--version")
    assert code == 0 and out.startswith("coord ")
    code, out, _ = run(capsys, "query", "reliability", "--help")
    assert code == 0 and "--min-score" in out


def test_without_a_command_the_help_is_shown_and_the_status_is_that_of_a_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script that forgot the command notices."""
    code, out, err = run(capsys)
    assert (code, out) == (exits.USAGE, "") and "providers" in err


def test_every_error_code_has_a_status_and_every_status_a_meaning() -> None:
    """One table, complete; 70 is the store's alone, so that a supervisor can leave it alone."""
    assert set(exits.BY_CODE) == set(Code)
    assert set(exits.BY_CODE.values()) <= set(exits.MEANING)
    assert [code for code, status in exits.BY_CODE.items() if status == 70] == [Code.STORE_BROKEN]
    assert exits.OK not in exits.BY_CODE.values()


def test_an_error_shows_message_and_hint_harmlessly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile coordinator's message cannot drive the terminal."""

    def refuse(*_: object, **__: object) -> None:
        raise CoordError(Code.NOT_FOUND, "no \x1b[2J such", "do\x9bthis")

    monkeypatch.setattr(root, "main", refuse)
    code, _, err = run(capsys, "anything")
    assert code == 66
    assert "\x1b" not in err and "\x9b" not in err and "such" in err and "this" in err


def test_interrupts_and_a_reader_that_went_away_have_their_statuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 as a shell reports SIGINT; a click abort is one too."""
    for error in (KeyboardInterrupt(), click.Abort()):

        def stop(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(root, "main", stop)
        assert run(capsys, "anything")[0] == 130


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_what_json_cannot_say_is_no_number_for_any_option(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Python reads `nan` as a number, below no bound and above none. All that take fractions are of one type."""
    code, _, err = run(capsys, "submit", "--cpus", number, "--", "true")
    assert code == exits.USAGE and "--cpus" in err
    fractions = {
        f"{path} {option.opts[0]}": type(option.type)
        for path, command, _ in ALL
        for option in command.params
        if isinstance(option.type, click.FloatRange | type(click.FLOAT))
    }
    assert FiniteRange is fractions["coord submit --cpus"]
    assert {FiniteRange} == set(fractions.values())
