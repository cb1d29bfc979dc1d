"""The option --offline, and the hub's repositories as a command may ask for them."""

from __future__ import annotations

import os

import click

from sparkops.checkpoints.repositories import Repositories
from sparkops.core.secrets import Secret

offline_option = click.option(
    "--offline", is_flag=True, help="Ask no hub: of models that are in no knowledge, only what is in the cache"
)


def token() -> Secret | None:
    """The user's token for the hub, HF_TOKEN of the environment."""
    found = os.environ.get("HF_TOKEN")
    return Secret(found, "HF_TOKEN") if found else None


def repositories(offline: bool) -> Repositories:
    """The repositories, with the user's token and cache."""
    return Repositories(offline=offline, token=token())
