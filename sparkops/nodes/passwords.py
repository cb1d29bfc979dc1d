"""Passwords of people: asked at most once, tried on one node before any other sees them.

A password that is wrong on one node is most likely wrong on all, and fifty wrong tries lock an account. So the first
try of each password is alone; the others wait for its outcome, and don't try what was refused.
"""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal

from sparkops.core.errors import AuthenticationFailed, BecomeFailed, NodeError
from sparkops.core.secrets import Secret
from sparkops.nodes.target import Target

Kind = Literal["ssh", "sudo"]


class LoginRefused(AuthenticationFailed):
    """The node's SSH refused this password."""


class SudoRefused(BecomeFailed):
    """The node's sudo refused this password."""


_REFUSALS: dict[Kind, type[NodeError]] = {"ssh": LoginRefused, "sudo": SudoRefused}
_WORDS: dict[Kind, str] = {"ssh": "SSH", "sudo": "sudo"}


def terminal() -> Callable[[str], str] | None:
    """How to ask a person (a prompt in, a password out), or None where nobody can be asked."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
    return getpass.getpass


class Passwords:
    """The passwords of one run. Any thread may use it.

    `ask` is given a prompt and returns what a person typed; None where nobody can be asked. `nodes` are the names
    that the prompt shows.
    """

    def __init__(self, ask: Callable[[str], str] | None = None, nodes: Sequence[str] = ()) -> None:
        self._ask = ask
        self._nodes = tuple(nodes)
        self._asking = threading.Lock()
        self._sorting = threading.Lock()
        self._asked: dict[str, Secret] = {}
        self._trials: dict[tuple[Kind, str, Secret], _Trial] = {}

    @property
    def can_ask(self) -> bool:
        """Somebody is there to be asked."""
        return self._ask is not None

    def known(self, kind: Kind, target: Target, scope: str = "") -> Secret | None:
        """The password that is declared for this node, or was asked for already."""
        declared = target.ssh_password if kind == "ssh" else target.become_password
        if declared is not None and not scope:
            return declared
        return self._asked.get(f"{kind} {scope}")

    @contextmanager
    def attempt(self, kind: Kind, target: Target, scope: str = "") -> Generator[Secret, None, None]:
        """A password to try within the `with` block, which raises LoginRefused or SudoRefused if it comes to that.

        Raises AuthenticationFailed or BecomeFailed at once where nobody can be asked or where another node has
        refused this very password. `scope` names a machine on the way (a jump host) whose password is another one.
        """
        secret = self.known(kind, target, scope) or self._ask_once(kind, target, scope)
        with self._sorting:
            trial = self._trials.setdefault((kind, scope, secret), _Trial())
        with trial.turn():
            if trial.refused_by:
                raise _REFUSALS[kind].of(
                    "password-not-retried", where=target.name, refused_by=trial.refused_by, sort=_WORDS[kind]
                )
            try:
                yield secret
            except _REFUSALS[kind]:
                if not trial.proven:
                    trial.refused_by = scope or target.name
                raise
            trial.proven = True

    def passphrase(self, path: str) -> Secret | None:
        """The passphrase of a key file, asked for; None where nobody can be asked."""
        if self._ask is None:
            return None
        with self._asking:
            return Secret(self._typed(f"Passphrase for {path}: "), path)

    def _ask_once(self, kind: Kind, target: Target, scope: str) -> Secret:
        with self._asking:
            key = f"{kind} {scope}"
            if key not in self._asked:
                if self._ask is None:
                    raise self._nobody(kind, target, scope)
                whom = scope or _listed(self._nodes or (target.name,))
                self._asked[key] = Secret(self._typed(f"{_WORDS[kind]} password for {whom}: "), f"asked {key}")
            return self._asked[key]

    def _typed(self, prompt: str) -> str:
        assert self._ask is not None
        try:
            return self._ask(prompt)
        except EOFError:
            return ""

    @staticmethod
    def _nobody(kind: Kind, target: Target, scope: str) -> NodeError:
        if kind == "sudo":
            return BecomeFailed.of("sudo-password-needed", where=target.name)
        return AuthenticationFailed.of("ssh-password-needed", where=target.name, place=scope or "the node")


class _Trial:
    """What is known about one password: nothing, proven on a node, or refused by one."""

    def __init__(self) -> None:
        self.proven = False
        self.refused_by = ""
        self._first = threading.Lock()

    @contextmanager
    def turn(self) -> Generator[None, None, None]:
        if self.proven:
            yield
            return
        self._first.acquire()
        alone = not (self.proven or self.refused_by)
        if not alone:
            self._first.release()
        try:
            yield
        finally:
            if alone:
                self._first.release()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)
