"""The login at a machine whose host key is known: keys first, then a password if it accepts one.

It knows SSH's methods and their errors; where keys and passwords come from is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import paramiko

from sparkops.core.errors import AuthenticationFailed, ConnectionFailed
from sparkops.core.secrets import Secret
from sparkops.nodes.passwords import LoginRefused, Passwords
from sparkops.nodes.ssh.config import Hop
from sparkops.nodes.ssh.identities import MOST_OFFERED, Keyring
from sparkops.nodes.target import Target

LEAST_PATIENCE = 30.0
"""Seconds for one answer at least: PAM may ask servers of its own, and delays refusals."""


class Login:
    """One login at `hop`, on the way to (or at) `target`. `scope` is "" at the node itself, else the jump host."""

    def __init__(self, transport: paramiko.Transport, hop: Hop, target: Target, scope: str) -> None:
        self._transport = transport
        self._hop = hop
        self._target = target
        self._scope = scope
        self._place = f"the jump host {hop.place}" if scope else hop.place
        self._notes: list[str] = []
        transport.auth_timeout = max(hop.timeout, LEAST_PATIENCE)

    def run(self, keyring: Keyring, passwords: Passwords) -> None:
        """Log in. Raises AuthenticationFailed, and ConnectionFailed when the machine falls silent or hangs up."""
        ask = passwords.known("ssh", self._target, self._scope) is None
        takes = self._with_keys(keyring, ask)
        if takes is None:
            takes = self._try(lambda: self._transport.auth_none(self._hop.user)) or []
        if not takes:
            return
        method = next((each for each in ("password", "keyboard-interactive") if each in takes), None)
        if method is None:
            raise self._failed(f"it accepts {' or '.join(takes)} only")
        if not passwords.can_ask and ask and self._notes:
            raise self._failed("it accepts a password, and there is no terminal to ask for it")
        with passwords.attempt("ssh", self._target, self._scope) as secret:
            self._with_password(method, secret)

    def _with_keys(self, keyring: Keyring, ask: bool) -> Sequence[str] | None:
        """What it wants further: [] nothing, None where no key was any good and it did not say."""
        offered = 0
        for identity in keyring.identities(self._hop, ask=ask):
            if identity.key is None:
                self._notes.append(f"{identity.where} {identity.trouble}")
                continue
            if offered == MOST_OFFERED:
                self._notes.append(f"at most {MOST_OFFERED} keys are offered (see IdentitiesOnly)")
                break
            key = identity.key
            offered += 1
            takes = self._try(lambda key=key: self._transport.auth_publickey(self._hop.user, key))  # type: ignore[misc]
            if takes is not None:
                return takes
            self._notes.append(f"{identity.where} was refused")
        return None

    def _try(self, method: Callable[[], Sequence[str]]) -> Sequence[str] | None:
        """The outcome of one method: [] logged in, further methods it names, or None for a plain refusal."""
        began = time.monotonic()
        try:
            return list(method())
        except paramiko.BadAuthenticationType as refusal:
            return list(refusal.allowed_types)
        except (paramiko.AuthenticationException, EOFError, OSError, paramiko.SSHException) as refusal:
            if not self._transport.is_active():
                raise self._hung_up(refusal) from None
            if time.monotonic() - began >= self._transport.auth_timeout:
                seconds = self._transport.auth_timeout
                raise ConnectionFailed.of(
                    "login-timeout", where=self._target.name, place=self._place, seconds=seconds
                ) from None
            if not isinstance(refusal, paramiko.AuthenticationException):
                raise self._failed(str(refusal)) from None
            return None

    def _with_password(self, method: str, secret: Secret) -> None:
        user = self._hop.user
        if method == "password":
            takes = self._try(lambda: self._transport.auth_password(user, secret.reveal(), fallback=False))
        else:
            takes = self._try(lambda: self._transport.auth_interactive(user, _answerer(secret)))
        if takes is None or method in takes:
            raise LoginRefused.of("ssh-password-refused", where=self._target.name, place=self._place)
        if takes:
            raise self._failed(f"after the password it wants {' or '.join(takes)}")

    def _failed(self, why: str) -> AuthenticationFailed:
        tried = "; ".join(self._notes) or "there was no key to offer"
        return AuthenticationFailed.of(
            "login-denied",
            where=self._target.name,
            place=self._place,
            tried=tried,
            reason=why,
            address=self._hop.place,
        )

    def _hung_up(self, error: Exception) -> ConnectionFailed:
        if isinstance(error, _AsksMore):
            return self._failed(str(error))
        tried = "; ".join(self._notes) or "no key was offered"
        return AuthenticationFailed.of("login-disconnected", where=self._target.name, place=self._place, tried=tried)


class _AsksMore(paramiko.AuthenticationException):
    """The machine asks for something that is no password, such as a one-time code."""


def _answerer(secret: Secret) -> Callable[[str, str, list[tuple[str, bool]]], list[str]]:
    """Answers one hidden question by the password, and none a second time."""
    left = [secret.reveal()]

    def answer(title: str, instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
        if not fields:
            return []
        if len(fields) > 1 or fields[0][1] or not left:
            raise _AsksMore(f"it asks for more than a password ({fields[-1][0].strip(' :')!r})")
        return [left.pop()]

    return answer
