"""`coord serve` and `coord up`: the options of the coordinator; `cli.compose` puts it together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.config import Config, Flag
from cli.options import config_option, data_option, given
from coordinator.core.errors import Code, CoordError

R = TypeVar("R")


def server_options(command: Callable[..., R]) -> Callable[..., R]:
    """Options of both commands."""
    for option in reversed((
        data_option,
        click.option("--listen", metavar="HOST:PORT", help="Address; port 0 takes any free one. [127.0.0.1:7070]"),
        click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Certificate chain (PEM)."),
        click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its private key (PEM)."),
        click.option("--insecure-listen", is_flag=True, default=None, help="Listen beyond loopback without TLS."),
        click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="Of stderr. [info]"),
        click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Any setting; repeatable."),
        config_option,
    )):  # fmt: skip
        command = option(command)
    return command


@click.command(short_help="Run the coordinator.")
@server_options
def serve(**options: Any) -> int:
    """Run the coordinator: HTTP API and agents' WebSocket on one port.

    The first start makes the data directory (0700), an admin token and a join token (0600). Clients on this
    machine find them by themselves. SIGTERM and Ctrl-C stop it in order; a second one at once.

    \b
    coord serve
    coord serve --data /srv/coord --listen 0.0.0.0:7070 --tls-cert cert.pem --tls-key key.pem
    coord serve --set policy.lost_after_ms=45s
    """
    from cli import compose

    return compose.run(config_from(**options))


@click.command(short_help="Start a coordinator and one agent on this machine.")
@server_options
@click.option("--provider-id", help="Name of this machine's agent. [the host's name]")
def up(provider_id: str | None, **options: Any) -> int:
    """Run the coordinator and, beside it, one agent on this machine: the two-minute start.

    The agent isolates nothing: this is for one user. It ends with the coordinator.

    \b
    coord up
    coord up --data ./fleet --listen 127.0.0.1:0
    """
    from cli import compose
    from cli.local_agent import LocalAgent

    config = config_from(**options)
    return compose.run(config, beside=LocalAgent(provider_id))


def config_from(
    *,
    data: Path | None,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure_listen: bool | None,
    log_level: str | None,
    changes: tuple[str, ...],
    config_file: Path | None,
) -> Config:
    """The settings with these flags on top."""
    flags = given(
        data=("--data", data),
        serve_listen=("--listen", listen),
        serve_tls_cert=("--tls-cert", tls_cert),
        serve_tls_key=("--tls-key", tls_key),
        serve_insecure_listen=("--insecure-listen", insecure_listen),
        serve_log_level=("--log-level", log_level),
    )
    return Config(file=config_file, flags=[*flags, *(change(text) for text in changes)])


def change(text: str) -> Flag:
    """`section.key=value` of a --set."""
    setting, equals, value = text.partition("=")
    if not equals or "." not in setting:
        raise CoordError(
            Code.BAD_CONFIG, f"--set {text!a} names no setting and value", "write --set policy.lost_after_ms=45s"
        )
    return Flag(setting.strip(), value.strip(), "--set")
