"""``sidecar completion SHELL``: the script that completes verbs and options. It is click's; nothing is installed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(sidecar completion bash)"     # in ~/.bashrc
    zsh:   eval "$(sidecar completion zsh)"      # in ~/.zshrc
    fish:  sidecar completion fish | source      # in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the three are click's own
    click.echo(kind(ctx.find_root().command, {}, "sidecar", "_SIDECAR_COMPLETE").source())
