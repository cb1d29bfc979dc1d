"""The keys that may let us in: those of the agent and those in files, each read once for all nodes.

Loading a key and talking to the agent cost more than the handshake that uses them, so one `Keyring` serves a whole run.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from sparkops.core.secrets import Secret
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.ssh.config import DEFAULT_KEYS, Hop
from sparkops.nodes.transport import last_line

PASSPHRASE_TRIES = 3
MOST_OFFERED = 5
"""sshd ends a connection after six refusals (MaxAuthTries), and the last one is left for asking what else it takes."""


@dataclass(slots=True)
class Identity:
    """A key and where it comes from, for messages. `key` is None for an encrypted file that is not open yet."""

    where: str
    key: paramiko.PKey | None = None
    trouble: str = ""


class _Agent(AgentSSH):
    """One agent's connection; signing is one question at a time on it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._turn = threading.Lock()
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(60.0)
            peer.connect(path)
            self._connect(peer)  # type: ignore[attr-defined]
        except BaseException:
            peer.close()
            raise

    def _send_message(self, message: object) -> object:
        with self._turn:
            return super()._send_message(message)  # type: ignore[misc]


class _AgentKey(AgentKey):
    """A key of the agent. An agent that will not sign (a person said no) makes the node refuse this key, no more."""

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (paramiko.SSHException, OSError):
            empty = paramiko.Message()
            empty.add_string(algorithm or self.get_name())
            empty.add_string(b"")
            return empty.asbytes()


@dataclass(slots=True)
class _File:
    """A key file's state: read once, asked for once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    identities: list[Identity] | None = None


class Keyring:
    """All keys of a run. Any thread may use it."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._lock = threading.Lock()
        self._files: dict[Path, _File] = {}
        self._agents: dict[str, tuple[AgentKey, ...]] = {}

    def identities(self, hop: Hop, *, ask: bool = True) -> Iterator[Identity]:
        """The keys to offer, in order: the files named for this machine (signed for by the agent where it has them, so
        that no passphrase is needed), the agent's others, and last, with `ask`, the encrypted files, for which a person
        is asked.

        One that can't be read, or was named and does not exist, comes with its `trouble` and no key.
        """
        held = {key.asbytes(): key for key in self._agent(hop.agent)}
        locked: list[Path] = []
        offered: set[bytes] = set()
        for path in hop.identities:
            public = _public(path)
            if public is not None and public in held:
                offered.add(public)
                yield Identity(f"{path} in the agent", held[public])
                continue
            if not path.is_file():
                if path.name not in DEFAULT_KEYS:
                    yield Identity(str(path), trouble="is not there")
                continue
            if _encrypted(path):
                locked.append(path)
                continue
            for identity in self._open(path):
                if identity.key is not None:
                    offered.add(identity.key.asbytes())
                yield identity
        if not hop.only_those:
            for blob, key in held.items():
                if blob not in offered:
                    yield Identity(f"{key.comment or 'a key'} in the agent", key)
        for path in locked if ask else ():
            yield from self._open(path)

    def _agent(self, named: str) -> tuple[AgentKey, ...]:
        path = os.environ.get("SSH_AUTH_SOCK", "") if named in ("", "SSH_AUTH_SOCK") else named
        if path.startswith("$"):
            path = os.environ.get(path.strip("${}"), "")
        if not path or path == "none":
            return ()
        with self._lock:
            if path not in self._agents:
                try:
                    agent = _Agent(str(Path(path).expanduser()))
                    self._agents[path] = tuple(_AgentKey(agent, key.blob, key.comment) for key in agent.get_keys())
                except (OSError, paramiko.SSHException):
                    self._agents[path] = ()
            return self._agents[path]

    def _open(self, path: Path) -> list[Identity]:
        with self._lock:
            file = self._files.setdefault(path, _File())
        with file.lock:
            if file.identities is None:
                file.identities = self._read(path)
            return file.identities

    def _read(self, path: Path) -> list[Identity]:
        secret: Secret | None = None
        for _ in range(1 + PASSPHRASE_TRIES):
            try:
                return _load(path, secret)
            except (paramiko.PasswordRequiredException, TypeError):
                pass
            except (paramiko.SSHException, ValueError, OSError) as error:
                if secret is None:
                    return [
                        Identity(
                            str(path),
                            trouble=f"can't be read ({last_line(str(error)) or type(error).__name__})",
                        )
                    ]
            secret = self._passwords.passphrase(str(path))
            if secret is None or not secret.reveal():
                return [
                    Identity(str(path), trouble="is encrypted, and no passphrase was given (ssh-agent can hold it)")
                ]
        return [Identity(str(path), trouble="is encrypted, and the passphrase was wrong")]


def _load(path: Path, secret: Secret | None) -> list[Identity]:
    """The key of a file; with a certificate beside it, first under that. Raises what paramiko raises."""
    word = None if secret is None else secret.reveal().encode()
    key = paramiko.PKey.from_path(path, word)  # type: ignore[arg-type]
    if key.public_blob is None:
        return [Identity(str(path), key)]
    bare = type(key).from_private_key_file(str(path), password=None if secret is None else secret.reveal())
    return [Identity(f"{path} with its certificate", key), Identity(str(path), bare)]


def _public(path: Path) -> bytes | None:
    """The public key's wire form, from the `.pub` file beside a key."""
    try:
        return paramiko.PublicBlob.from_file(f"{path}.pub").key_blob  # type: ignore[attr-defined,no-any-return]
    except (OSError, ValueError):
        return None


def _encrypted(path: Path) -> bool:
    """Whether a key file wants a passphrase, judged by its text alone."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    if "ENCRYPTED" in text:
        return True
    body = "".join(line for line in text.splitlines() if "-----" not in line)
    # "openssh-key-v1\0" and the name of the cipher, which is `none` in a key without passphrase
    return text.startswith("-----BEGIN OPENSSH") and not body.startswith("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU")
