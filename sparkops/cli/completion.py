"""`sparkops completion`: the script that a shell loads to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(
    "completion",
    epilog="""\b
Examples:
  sparkops completion bash > ~/.local/share/bash-completion/completions/sparkops
  sparkops completion zsh  > "${fpath[1]}/_sparkops"
  sparkops completion fish > ~/.config/fish/completions/sparkops.fish""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell."""
    from sparkops.cli.app import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "sparkops", "_SPARKOPS_COMPLETE").source())
