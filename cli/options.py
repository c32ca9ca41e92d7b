"""Options that many commands share, and the client that those commands talk through."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import click

from cli import output
from cli.config import Config, Flag
from cli.settings import ClientSettings
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.client import Client

P = ParamSpec("P")
R = TypeVar("R")
ADDRESS_BYTES_MAX = 4096


class FiniteRange(click.FloatRange):
    """A range of numbers; `nan` and `inf`, which Python reads as numbers and JSON cannot say, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


def data_option(command: Callable[P, R]) -> Callable[P, R]:
    return click.option(
        "--data", type=click.Path(path_type=Path, file_okay=False), help="Data directory; else COORD_DATA."
    )(command)


def config_option(command: Callable[P, R]) -> Callable[P, R]:
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="Settings; else COORD_CONFIG."
    )(command)


def output_option(command: Callable[P, R]) -> Callable[P, R]:
    """`-o`: how the result is printed."""
    return click.option(
        "-o", "--output", type=click.Choice(output.FORMATS), default="table", show_default=True, help="How to print it."
    )(command)


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """`-o` of an answer that is no listing."""
    return click.option(
        "-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True,
        help="How to print it.",
    )(command)  # fmt: skip


class Reach(NamedTuple):
    """The coordinator that a command's options, environment or data directory name; not asked for anything yet."""

    config: Config
    token: str | None

    def client(self) -> Client:
        return client_for(self.config, self.token)


def reaches(command: Callable[..., R]) -> Callable[..., R]:
    """Give the command a `reach`, and the options that it comes from."""

    @click.option("--url", help="Of the coordinator; else COORD_URL, else the data directory's.")
    @click.option("--token-file", type=click.File("r"), help="File with the token (- for stdin); else COORD_TOKEN.")
    @click.option("--ca", type=click.Path(path_type=Path, dir_okay=False), help="CA certificates to trust (PEM).")
    @data_option
    @config_option
    @functools.wraps(command)
    def with_reach(
        *args: Any,
        url: str | None,
        token_file: Any,
        ca: Path | None,
        data: Path | None,
        config_file: Path | None,
        **kwargs: Any,
    ) -> R:
        flags = given(data=("--data", data), client_url=("--url", url), client_ca=("--ca", ca))
        token = token_of(token_file) if token_file is not None else None
        return command(*args, reach=Reach(Config(file=config_file, flags=flags), token), **kwargs)

    return with_reach


def token_of(file: IO[str]) -> str:
    """The token in a file that was named: an empty one is a mistake, and no other token stands in for it."""
    token = file.read().strip()
    if not token:
        raise CoordError(Code.BAD_REQUEST, f"{file.name} holds no token", "name a file that holds the text of a token")
    return token


def talks(command: Callable[..., R]) -> Callable[..., R]:
    """Give the command a `client`, open while it runs."""

    @reaches
    @functools.wraps(command)
    def with_client(*args: Any, reach: Reach, **kwargs: Any) -> R:
        with reach.client() as client:
            return command(*args, client=client, **kwargs)

    return with_client


def given(**flags: tuple[str, object]) -> list[Flag]:
    """Flags that were given, as settings: `section_key=("--flag", value)`; the section ends at the first `_`."""
    named = []
    for name, (spelled, value) in flags.items():
        if value is not None:
            section, separator, key = name.partition("_")
            raw = str(value) if isinstance(value, Path) else value
            named.append(Flag(f"{section}.{key}" if separator else name, raw, spelled))
    return named


def client_for(config: Config, token: str | None = None) -> Client:
    """The client of the coordinator that `config` names.

    A URL that was given wants a token that was given; else the data directory has both.
    """
    from coordinator.client import Client

    settings = config.section("client", ClientSettings)
    data = config.data()
    url = settings.url or local_address(data)
    here = url.rstrip("/") == local_address(data, quiet=True)
    token = token or config.secret("COORD_TOKEN") or (local_token(data) if here else None)
    if token is None:
        local = local_address(data, quiet=True)
        if local and url.rstrip("/").partition("://")[2] == local.partition("://")[2]:
            raise CoordError(Code.UNREACHABLE, f"no coordinator answers at {url}", f"the one of {data} is at {local}")
        raise CoordError(
            Code.UNAUTHENTICATED,
            f"no token was given for {url}",
            "set COORD_TOKEN, or name a file with --token-file (- for stdin)",
        )
    pin = local_pin(data) if here and settings.ca is None else None
    return Client(url, token, ca=settings.ca, pin=pin, timeout_s=settings.timeout_s)


def local_address(data: Path, *, quiet: bool = False) -> str:
    """The URL that the coordinator of this data directory wrote down."""
    text = _line(data / "address", quiet=quiet)
    if not text and not quiet:
        raise CoordError(
            Code.UNREACHABLE,
            f"no coordinator was named, and none has left its address in {data}",
            "set COORD_URL and COORD_TOKEN, name a data directory with --data, or start one: coord up",
        )
    return text


def local_token(data: Path) -> str | None:
    """The admin token that the first start left in the data directory."""
    return _line(data / "tokens" / "admin.token") or None


def local_join_token(data: Path) -> str | None:
    """The join token that the first start left there."""
    return _line(data / "tokens" / "join.token") or None


def local_pin(data: Path) -> str | None:
    """The TLS key's fingerprint, as the join token carries it."""
    return (local_join_token(data) or "").partition(".")[2] or None


def _line(path: Path, *, quiet: bool = False) -> str:
    try:
        with path.open() as file:
            return file.read(ADDRESS_BYTES_MAX).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError as refused:
        if quiet:
            return ""
        raise CoordError(
            Code.FORBIDDEN, f"{path} belongs to another user", "run this as that user, or set COORD_URL and COORD_TOKEN"
        ) from refused
