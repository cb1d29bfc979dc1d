"""The Docker SDK on this machine, speaking with a node's engine through the worker's frames.

Every connection of the SDK is one end of a socket pair; the other end is carried as the worker's call `docker.relay`.
Nothing listens anywhere, so nobody else on this machine can reach the node's Docker.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import docker
import requests.adapters
import urllib3

from sparkops.core.errors import SparkopsError
from sparkops.nodes.session import WINDOW, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

CHUNK = 256 << 10


def docker_client(session: Session, *, timeout: float = 60.0) -> docker.DockerClient:
    """A client of the node's engine, as long as the session lives; close it after use.

    `timeout` is in seconds of silence. The session's worker needs the module `docker` (kinds that use it bring it).
    Raises what the session raises, UnknownState where the node has no answering engine.
    """
    version = str(session.call("docker.api", timeout=timeout))
    client = docker.DockerClient(base_url="http://node.invalid:2375", version=version, timeout=timeout)  # type: ignore[arg-type]
    client.api.trust_env = False
    client.api.mount("http://", _Adapter(session))
    return client


def copy(source: Session, target: Session, reference: str, *, timeout: float = 900.0) -> int:
    """Send an image from one node to another through this machine, as a stream; returns the bytes sent.

    What arrives has no registry digest: it is compared by content. Raises docker.errors.APIError for a refusal.
    """
    sent = 0
    with (
        contextlib.closing(docker_client(source, timeout=timeout)) as giver,
        contextlib.closing(docker_client(target, timeout=timeout)) as taker,
    ):

        def counted() -> Any:
            nonlocal sent
            for chunk in giver.images.get(reference).save(chunk_size=CHUNK, named=reference):
                sent += len(chunk)
                yield chunk

        for _ in taker.api.load_image(counted(), quiet=True) or ():  # type: ignore[no-untyped-call]
            pass
    return sent


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' way to the one engine, whatever the host in the URL."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pool = _Pool(session)
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> urllib3.HTTPConnectionPool:
        return self._pool

    def get_connection(self, url: str | bytes, proxies: Mapping[str, str] | None = None) -> urllib3.HTTPConnectionPool:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, session: Session) -> None:
        super().__init__("node.invalid", maxsize=4)
        self._session = session

    def _new_conn(self) -> Any:
        return _Connection(self._session)


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, session: Session) -> None:
        super().__init__("node.invalid")
        self._session = session

    def connect(self) -> None:
        """A fresh socket pair, one end carried to the node."""
        near, far = socket.socketpair()
        try:
            _Carried(self._session, far)
        except BaseException:
            near.close()
            far.close()
            raise
        near.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
        self.sock = near


class _Carried:
    """One end of a socket pair as the worker's call `docker.relay`: a thread for each direction."""

    def __init__(self, session: Session, end: socket.socket) -> None:
        self._session = session
        self._end = end
        self._channel = session.channel("docker.relay")
        self._credit = threading.Semaphore(WINDOW)
        self._over = threading.Event()
        for carry in (self._to_node, self._from_node):
            threading.Thread(target=carry, name=f"docker of {session.node}", daemon=True).start()

    def _to_node(self) -> None:
        with contextlib.suppress(OSError, SparkopsError):
            while data := self._end.recv(CHUNK):
                self._credit.acquire()
                if self._over.is_set():
                    return
                self._session.post({"id": self._channel.number, "data": data})
            if not self._over.is_set():
                self._channel.end()

    def _from_node(self) -> None:
        """Until the call is over. An end that is no longer read from ends the call: nobody wants the rest."""
        try:
            while True:
                message = self._session.take(self._channel.inbox)
                if isinstance(message.get("data"), bytes):
                    self._end.sendall(message["data"])
                    self._session.post({"id": self._channel.number, "credit": 1})
                credit = message.get("credit")
                for _ in range(min(credit, WINDOW) if isinstance(credit, int) else 0):
                    self._credit.release()
                if "result" in message or "error" in message:
                    return
        except (OSError, SparkopsError):
            return
        finally:
            self._over.set()
            self._credit.release()
            with contextlib.suppress(SparkopsError):
                self._channel.close()
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
            self._end.close()
