"""`coord agent`: the options of the agent, and where it finds coordinator and join token when they are not named."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path
from typing import Any

import click
import msgspec

from cli import humane
from cli.config import Config
from cli.options import config_option, data_option, given, local_address, local_join_token
from cli.settings import ClientSettings
from coordinator.core.errors import Code, CoordError

PR_SET_PDEATHSIG = 1


@click.command(short_help="Run the agent of this machine.")
@click.option("--url", help="Of the coordinator; else COORD_URL, else the one it enrolled with.")
@click.option("--provider-id", help="Name to enrol under; fixed from then on. [the host's name]")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Where it keeps its identity.")
@click.option("--pool", help="Pool to enrol into. [the join token's]")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Shown with the provider; repeatable.")
@click.option("--cpus", type=click.FloatRange(0, min_open=True), help="CPUs offered. [detected]")
@click.option("--memory", metavar="SIZE", help="Memory offered, like 16GiB. [detected]")
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="A GPU offered; repeatable. [detected]")
@click.option("--join-token-file", type=click.File("r"), help="File with the join token (- for stdin).")
@click.option("--ca", type=click.Path(path_type=Path, dir_okay=False), help="CA certificates to trust (PEM).")
@click.option("--insecure", is_flag=True, default=None, help="Allow plain HTTP to another machine.")
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="Of stderr. [info]")
@click.option("--ends-with-parent", is_flag=True, hidden=True)
@data_option
@config_option
def agent(join_token_file: Any, ends_with_parent: bool, **options: Any) -> int:
    """Run the agent of this machine: it enrols once, then reports and takes work until it is stopped.

    The join token comes from COORD_JOIN_TOKEN, from --join-token-file, or from the data directory of a
    coordinator on this machine. It is needed once; the agent keeps a credential of its own in --state.

    \b
    coord agent --url https://head:7070 --join-token-file join.token
    COORD_JOIN_TOKEN=... coord agent --url https://head:7070 --pool lab --label room=b12
    coord agent --cpus 8 --memory 16GiB
    """
    if ends_with_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    token = join_token_file.read().strip() if join_token_file is not None else None
    from coordinator.agent import keeper

    return int(keeper.run(agent_config(token, **options)))


def agent_config(
    join_token: str | None,
    *,
    url: str | None,
    provider_id: str | None,
    state: Path | None,
    pool: str | None,
    labels: tuple[str, ...],
    cpus: float | None,
    memory: str | None,
    gpus: tuple[str, ...],
    ca: Path | None,
    insecure: bool | None,
    log_level: str | None,
    data: Path | None,
    config_file: Path | None,
) -> Any:
    """The AgentConfig that settings, environment and these flags make."""
    from coordinator.agent.config import AgentConfig

    flags = given(
        data=("--data", data),
        agent_coordinator=("--url", url),
        agent_provider_id=("--provider-id", provider_id),
        agent_state_dir=("--state", state),
        agent_pool=("--pool", pool),
        agent_labels=("--label", dict(_pair(text) for text in labels) or None),
        agent_cpus=("--cpus", cpus),
        agent_memory_gb=("--memory", humane.size(memory) / 1e9 if memory is not None else None),
        agent_gpus=("--gpu", gpus or None),
        agent_ca=("--ca", ca),
        agent_insecure=("--insecure", insecure),
        agent_log_level=("--log-level", log_level),
    )
    config = Config(file=config_file, flags=flags)
    settings = config.section("agent", AgentConfig)
    coordinator = settings.coordinator or config.section("client", ClientSettings).url
    local = local_address(config.data(), quiet=True)
    enrolled = (Path(settings.state_dir) / "identity.json").exists()
    if not coordinator and (not enrolled or (local and config.data_origin() != "default")):
        if not local:
            raise CoordError(
                Code.UNREACHABLE,
                "no coordinator was named, this agent is not enrolled, and none runs from " + str(config.data()),
                "name one with --url https://HOST:PORT and give its join token in COORD_JOIN_TOKEN",
            )
        coordinator = local
    token = join_token or config.secret("COORD_JOIN_TOKEN") or config.secret("COORD_TOKEN")
    if token is None and coordinator and coordinator == local:
        token = local_join_token(config.data())
    return msgspec.structs.replace(settings, coordinator=coordinator, join_token=token or "")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CoordError(Code.BAD_CONFIG, f"--label {text!a} is no label", "write --label room=b12")
    return name, value
