"""Another node as the place that contents come from: a run's certificates, files by their number in the manifest.

`fetching` uses it as it uses a hub. It must not know of disks.
"""

import contextlib
import http.client
import re
import socket
import ssl
from typing import Any

from sparkops.worker import passage
from sparkops.worker.calls import Call, Refused
from sparkops.worker.fetching_http import Body, Remote, Retry

POLL = 0.5
"""Seconds until a file that is not proven there yet is asked for again."""
TRY = 5.0
"""Seconds in which a relay has to answer when it is tried."""
_CERTIFICATE = re.compile(r"CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED", re.IGNORECASE)


class Peer:
    """The node `node` at `address` and `port`, asked with `credentials`; `files` are the manifest's.

    `way` tells people how it is reached (`spark-01 over 192.168.100.1`).
    """

    silent = "run apply again: nothing that arrived is lost"
    damaged = "look at that node's disk and memory (sparkops checkpoint verify), then run apply again"

    def __init__(self, order: dict[str, Any], files: list[tuple[str, int, str]]) -> None:
        self.node, self.address, self.port = str(order["node"]), str(order["address"]), int(order["port"])
        self.way = f"{self.node} over {self.address}"
        self._numbers = {path: number for number, (path, _, _) in enumerate(files)}
        self.context = passage.context(order["credentials"], serving=False)

    def remote(self, path: str, size: int) -> Remote:
        """A file of the manifest."""
        return Remote(f"/{self._numbers[path]}", size, f"{path} from {self.way}")

    def client(self, stall: float) -> "Client":
        """A connection of one thread."""
        return Client(self, stall)

    def done(self) -> None:
        """Say that nothing more is needed. Who does not hear it finds out by itself."""
        client = Client(self, TRY)
        with contextlib.suppress(Retry, Refused):
            client.ask("POST", "/done", {}).read()
        client.close()


class Client:
    """A connection to a relay, kept open. `stall` is the seconds of silence that end a try."""

    def __init__(self, peer: Peer, stall: float) -> None:
        self._peer, self._stall = peer, stall
        self._open: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Let go of the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def get(self, remote: Remote, start: int, end: int) -> Body:
        """The bytes `start` to `end` (exclusive) of a file.

        Raises Retry, and Refused for what another try won't change.
        """
        response = self.ask("GET", remote.url, {"Range": f"bytes={start}-{end - 1}"})
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range") or "")
            if match is None or [int(each) for each in match.groups()] != [start, end - 1, remote.size]:
                self.close()
                raise Refused(f"{remote.label}: another range was answered than the one asked for", hint=Peer.damaged)
            return Body(response, start, end, ranged=True)
        text = response.read(1000).decode(errors="replace")
        if response.status == 425:
            raise Retry(f"{self._peer.node} does not have it yet ({text})", POLL, waiting=True)
        self.close()
        if response.status == 410:
            raise Refused(
                f"{self._peer.node}, which it was to come from, ended without {remote.label.partition(' ')[0]}: {text}",
                hint=f"see to {self._peer.node} and run apply again; nothing that arrived is lost",
            )
        raise Refused(f"{remote.label}: answered with {response.status} ({text})", hint="run apply again")

    def ask(self, method: str, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """One request. Raises Retry where the connection fails, Refused where a certificate is not accepted."""
        peer = self._peer
        for fresh in (False, True):
            if self._open is None or fresh:
                self.close()
                self._open = http.client.HTTPSConnection(
                    peer.address, peer.port, timeout=self._stall, context=peer.context
                )
            try:
                self._open.request(method, target, headers=headers)
                return self._open.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if isinstance(error, ssl.SSLError) and _CERTIFICATE.search(str(error)):
                    raise _not_trusted(peer, error) from None
                if fresh or isinstance(error, (TimeoutError, ConnectionRefusedError)):
                    raise Retry(_words(peer, error)) from None
        raise AssertionError("unreachable")


def _not_trusted(peer: Peer, error: ssl.SSLError) -> Refused:
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {peer.way} is not accepted ({error.verify_message})"
    else:
        what = f"{peer.way} does not accept this node's certificate ({error.reason})"
    return Refused(what, "certificate", hint="run apply again, which makes new ones; compare the clocks of both nodes")


def _words(peer: Peer, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{peer.way} does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there any more on {peer.way}"
    return f"the connection to {peer.way} failed ({getattr(error, 'strerror', None) or error or type(error).__name__})"


def reach(call: Call, args: dict[str, Any]) -> None:
    """Try whether the relay of `{node, address, port}` can be reached from here. Raises Refused `address`."""
    try:
        socket.create_connection((args["address"], args["port"]), TRY).close()
    except OSError as error:
        raise Refused(
            f"{args['node']} can't be reached at {args['address']} ({error.strerror or error})",
            "address",
            hint="see whether the link between the two is up, and no firewall in between",
        ) from None
