"""`coord attrsvc`: verdicts for launchers over HTTP, on a socket of this machine, of the logs under one directory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import logs, terminal
from cli.config import Config, Flag
from cli.options import config_option
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.timetext import asked_duration

if TYPE_CHECKING:
    from analytics.attribution.desk.desk import Desk
    from analytics.attribution.desk.settings import DeskSettings

UNIX = "unix://"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STOP_S = 5.0
IDLE_S = 15.0
"""A connection on which nothing is asked is closed: others want to come in."""
SETTLE_MS_MAX = Ms(600_000)


def default_socket() -> str:
    """In this user's own directory for such things."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime) if runtime else Path(f"/run/user/{os.getuid()}" if os.getuid() else "/run")
    return f"{UNIX}{directory / 'coord-attrsvc.sock'}"


@click.command(short_help="Verdicts for launchers, over a socket of this machine.")
@click.option(
    "--root", required=True, type=click.Path(path_type=Path, file_okay=False), help="Only logs under this directory."
)
@click.option("--listen", metavar="ADDRESS", help="unix:///PATH, or 127.0.0.1:PORT. [coord-attrsvc.sock of this user]")
@click.option(
    "--signatures", type=click.Path(path_type=Path, dir_okay=False), help="A table of your own; its rows come first."
)
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), help="Submissions are kept here over a restart."
)
@click.option("--settle", default="0s", show_default=True, help="A log must be quiet for so long at its end.")
@config_option
def attrsvc(
    root: Path, listen: str | None, signatures: Path | None, state: Path | None, settle: str, config_file: Path | None
) -> None:
    """Answer launchers that ask whether a failed run is worth starting again: POST and GET /logs.

    There are no tokens: the socket is its owner's (0600), and TCP is on loopback alone, where every user of this
    machine may ask. Whatever is asked for, only files under --root are read. Settings are those of [attribution];
    COORD_ATTRIBUTION_PROGRESSIVE=off has a POST start nothing.

    \b
    coord attrsvc --root /shared/logs
    coord attrsvc --root /shared/logs --listen 127.0.0.1:50050 --state /var/lib/attrsvc.jsonl
    ft_launcher --ft-attribution-endpoint http://127.0.0.1:50050 ...
    """
    from analytics.attribution.desk.desk import Desk
    from analytics.attribution.desk.registry import Registry
    from analytics.attribution.desk.rooted import Root
    from analytics.attribution.desk.settings import DeskSettings
    from analytics.attribution.engine import Rules
    from analytics.attribution.following.settings import AttributionSettings

    flags = [Flag("attribution.signatures", str(signatures), "--signatures")] if signatures is not None else []
    given = Config(file=config_file, flags=flags).section("attribution", AttributionSettings)
    settle_s = asked_duration(settle, "--settle", Ms(0), SETTLE_MS_MAX) / 1_000
    settings = DeskSettings.of(given, settle_s=settle_s)
    rules = Rules.load(Path(given.signatures) if given.signatures else None)
    registry = Registry(state, settings.jobs_max) if state is not None else None
    desk = Desk(Root(root), rules, settings, registry=registry)
    bound, address = bound_to(listen or default_socket())
    with bound:
        logs.to_stderr("info")
        asyncio.run(_serve(desk, settings, bound, address))


async def _serve(desk: Desk, settings: DeskSettings, bound: socket.socket, address: str) -> None:
    """Until SIGTERM or Ctrl-C."""
    from aiohttp import web

    from analytics.attribution.desk.front import Front
    from coordinator.service.api.connections import ApiRunner

    front = Front(desk, loopback=not address.startswith(UNIX))
    runner = ApiRunner(front.app, access_log=None, shutdown_timeout=STOP_S, keepalive_timeout=IDLE_S)
    await runner.setup()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    desk.start()
    try:
        await web.SockSite(runner, bound).start()
        terminal.say(f"coord attrsvc: listening on {address}, policy {settings.progressive}")
        sys.stderr.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
        if address.startswith(UNIX):
            await asyncio.to_thread(Path(address.removeprefix(UNIX)).unlink, missing_ok=True)
        await asyncio.to_thread(desk.close)


def bound_to(listen: str) -> tuple[socket.socket, str]:
    """The listening socket and how clients name it. CoordError: BAD_CONFIG, CONFLICT."""
    if listen.startswith(UNIX):
        return _bound_path(Path(listen.removeprefix(UNIX))), listen
    host, separator, port = listen.rpartition(":")
    host = host.strip("[]")
    if host not in LOOPBACK or not separator or not port.isdigit() or int(port) > 65_535:
        raise CoordError(
            Code.BAD_CONFIG, f"{listen!a} is no address for this: there are no tokens here",
            "write unix:///PATH or 127.0.0.1:PORT; for other machines use the same routes of coord serve",
        )  # fmt: skip
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, int(port)))
    except OSError as error:
        made.close()
        raise CoordError(Code.CONFLICT, f"{listen}: {error.strerror}", "choose another port; 0 is any") from error
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    return made, f"http://{shown}:{made.getsockname()[1]}"


def _bound_path(path: Path) -> socket.socket:
    """A socket that only this user may open. One that nobody listens at any more is removed; anything else stays."""
    if not path.is_absolute():
        raise CoordError(Code.BAD_CONFIG, f"{path} is no absolute path", "write unix:///run/attrsvc.sock")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _clear(path)
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise CoordError(
            Code.CONFLICT, f"{path}: {error.strerror or error}", "name a path in a directory that is yours"
        ) from error
    except CoordError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _clear(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise CoordError(Code.CONFLICT, f"{path} is there, and no socket", "name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise CoordError(Code.CONFLICT, f"somebody listens at {path} already", "stop that one, or name another path")
