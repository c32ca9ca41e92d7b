"""`coord mcp`: the same answers for agents that speak the Model Context Protocol, over standard input and output."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import click

from cli import logs
from cli.options import Reach, reaches
from coordinator.core.errors import Code, CoordError


@click.command(short_help="Tools for agents, over standard input and output.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default="the working directory",
    help="Only logs under this directory.",
)  # fmt: skip
@click.option(
    "--signatures", type=click.Path(path_type=Path, dir_okay=False), help="A table of your own; its rows come first."
)
@reaches
def mcp(root: Path, signatures: Path | None, reach: Reach) -> None:
    """Serve the Model Context Protocol until standard input ends: verdicts on logs and flight recorder dumps under
    --root, and questions to the coordinator that change nothing. Needs the extra: pip install 'coord[mcp]'.

    \b
    coord mcp --root /shared/logs
    coord mcp --root . --url http://head:7070
    """
    if importlib.util.find_spec("mcp") is None or importlib.util.find_spec("mcp.server.mcpserver") is None:
        hint = "pip install 'coord[mcp]' (mcp 2.3 or later)"
        raise CoordError(Code.BAD_CONFIG, "the Model Context Protocol's SDK is not installed", hint)
    from analytics.attribution.desk.desk import Desk
    from analytics.attribution.desk.rooted import Root
    from analytics.attribution.desk.settings import DeskSettings
    from analytics.attribution.engine import Rules
    from analytics.attribution.following.settings import AttributionSettings
    from cli.mcptools import server

    given = reach.config.section("attribution", AttributionSettings)
    extra = signatures if signatures is not None else Path(given.signatures) if given.signatures else None
    settings = DeskSettings.of(given)
    logs.to_stderr("warning")
    desk = Desk(Root(root), Rules.load(extra), settings)
    desk.start()
    try:
        server(desk, reach.client, version("coord")).run("stdio")
    finally:
        desk.close()
