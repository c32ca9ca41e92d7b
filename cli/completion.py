"""`coord completion`: the script that a shell sources, and live ids for it to offer."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from cli.config import Config
from cli.options import client_for
from coordinator.core.errors import CoordError

HOW = {
    "bash": 'eval "$(coord completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(coord completion zsh)"   # in ~/.zshrc',
    "fish": "coord completion fish > ~/.config/fish/completions/coord.fish",
}


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(tuple(HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL. It completes commands, options and live provider ids.

    \b
    eval "$(coord completion bash)"
    eval "$(coord completion zsh)"
    coord completion fish > ~/.config/fish/completions/coord.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "coord", "_COORD_COMPLETE")
    # click would run bash here to learn its version; the script itself needs none of it.
    click.echo(script.source_template % script.source_vars())
