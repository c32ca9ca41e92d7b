"""`coord config show`: every setting, its value, and who said so."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from msgspec import Struct

from cli import output
from cli.config import Config, Shown
from cli.options import config_option, data_option, given, output_option


class SettingEntry(Struct, frozen=True, kw_only=True):
    """One setting. `origin`: default, a file and line, a variable, or a flag."""

    setting: str
    value: object
    default: object
    origin: str


class Settings(Struct, frozen=True, kw_only=True):
    file: str | None
    entries: tuple[SettingEntry, ...]


COLUMNS = (
    output.Column("SETTING", lambda entry: entry.setting),
    output.Column("VALUE", lambda entry: _text(entry.value), colour=lambda e: "" if e.origin == "default" else "1"),
    output.Column("FROM", lambda entry: entry.origin),
    output.Column("DEFAULT", lambda entry: _text(entry.default), wide=True),
)


@click.group(short_help="Show the settings and where each came from.")
def config() -> None:
    """Settings come from coord.toml, then COORD_<SECTION>_<KEY>, then flags: the last one counts.

    \b
    coord config show
    coord config show --changed -o wide
    """


@config.command()
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@data_option
@config_option
@output_option
def show(changed: bool, data: Path | None, config_file: Path | None, output: output.Format) -> None:
    """Print each setting with its value and where it came from. Secrets are no settings: none is shown.

    \b
    coord config show
    COORD_POLICY_LOST_AFTER_MS=45s coord config show --changed
    """
    print_settings(Config(file=config_file, flags=given(data=("--data", data))), output, changed=changed)


def print_settings(config: Config, form: output.Format, *, changed: bool) -> None:
    """The listing of `config show`."""
    shown = [_entry(one) for one in config.shown() if not changed or one.origin != "default"]
    answer = Settings(file=str(config.file) if config.file else None, entries=tuple(shown))
    output.listing(answer, COLUMNS, form, name=lambda e: str(e.setting), empty="every setting is at its default")


def _entry(one: Shown) -> SettingEntry:
    return SettingEntry(setting=one.setting, value=_plain(one.value), default=_plain(one.default), origin=one.origin)


def _plain(value: object) -> object:
    return msgspec.to_builtins(value, enc_hook=str)


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return ",".join(f"{name}={item}" for name, item in value.items()) or "-"
        case list() | tuple():
            return ",".join(str(item) for item in value) or "-"
        case None | "":
            return "-"
        case _:
            return str(value)
