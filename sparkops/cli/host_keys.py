"""The question whether a host key is the machine's own, for the commands that meet a machine for the first time."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sparkops.cli.prompts import confirm
from sparkops.nodes.ssh.host_keys import HostKey
from sparkops.operate.first_contact.trust import Shown, accepted

option = click.option(
    "--accept-key",
    "fingerprints",
    multiple=True,
    metavar="SHA256:…",
    help="The key's fingerprint as the machine itself prints it, instead of the question (repeatable)",
)


def tell(shown: Shown, *, err: bool = False) -> None:
    """The keys of a machine, with `err` on standard error."""
    click.echo(f"{shown.node} ({shown.address})", err=err)
    for word, keys in (("known", shown.known), ("new", shown.new)):
        for key in keys:
            click.echo(f"  {word:5}  {key.type:20} {key.fingerprint}", err=err)


def vouched(shown: Shown, fingerprints: Sequence[str], *, yes: bool = False) -> tuple[HostKey, ...]:
    """The new keys that a person vouches for: by --accept-key, or by an answer; none where the answer is no.

    Raises HostKeyError where the accepted key is not shown, InventoryError without a terminal.
    """
    if fingerprints:
        return accepted(shown, fingerprints)
    question = f"  Is this the key of {shown.node}?"
    refusal = {"node": shown.node, "fingerprint": shown.new[0].fingerprint}
    return shown.new if confirm(question, yes, "host-key-unconfirmed", **refusal) else ()
