"""`coord completion`: the script that a shell sources, and live ids for it to offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.config import Config, Flag
from cli.options import client_for, given
from coordinator.core.errors import CoordError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from coordinator.client import Client

SHELLS = ("bash", "zsh", "fish")
PATIENCE_S = 1.0
"""Somebody waits with a finger on the tab key."""
PROVIDERS_MAX = 1000


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL. It completes commands, options, and names of what is there.

    \b
    eval "$(coord completion bash)"
    eval "$(coord completion zsh)"
    coord completion fish > ~/.config/fish/completions/coord.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "coord", "_COORD_COMPLETE")
    # click would run bash here to learn its version; the script itself needs none of it.
    click.echo(script.source_template % script.source_vars())


def live_providers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of enrolled providers that begin like this. Silence when nobody answers at once."""
    from click.shell_completion import CompletionItem

    try:
        with quick_client(ctx) as client:
            entries = client.providers(limit=PROVIDERS_MAX).entries
    except CoordError:
        return []
    return [CompletionItem(e.provider_id, help=e.liveness) for e in entries if e.provider_id.startswith(incomplete)]


def live_tenants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of tenants that begin like this. Silence when nobody answers at once."""
    from click.shell_completion import CompletionItem

    try:
        with quick_client(ctx) as client:
            entries = client.tenants.list(limit=PROVIDERS_MAX).entries
    except CoordError:
        return []
    return [CompletionItem(one.name) for one in entries if one.name.startswith(incomplete)]


def live_pools(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of pools that begin like this. Silence when nobody answers at once."""
    from click.shell_completion import CompletionItem

    try:
        with quick_client(ctx) as client:
            entries = client.pools().entries
    except CoordError:
        return []
    return [CompletionItem(one.name) for one in entries if one.name.startswith(incomplete)]


def quick_client(ctx: click.Context) -> Client:
    """A client of the coordinator that the half-written command line means, and that does not wait for long."""
    flags = given(data=("--data", ctx.params.get("data")), client_url=("--url", ctx.params.get("url")))
    return client_for(Config(flags=[*flags, Flag("client.timeout_s", PATIENCE_S, "completion")]))


def live_artifacts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of artifacts that begin like this. Silence when nobody answers at once."""
    from click.shell_completion import CompletionItem

    if any(sign in incomplete for sign in "*?["):
        return []
    try:
        with quick_client(ctx) as client:
            entries = client.artifacts.list(name=f"{incomplete}*", limit=PROVIDERS_MAX).entries
    except CoordError:
        return []
    return [CompletionItem(one.name) for one in entries]


def files_or_artifacts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files here, which the shell completes itself, or names of artifacts behind `artifact:`."""
    from click.shell_completion import CompletionItem

    prefix = "artifact:"
    if incomplete.startswith(prefix):
        found = live_artifacts(ctx, param, incomplete.removeprefix(prefix))
        return [CompletionItem(prefix + one.value) for one in found]
    return [CompletionItem(incomplete, type="file")]
