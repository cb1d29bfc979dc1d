"""Commands and webhooks that are told of changes: real programs, a real HTTP server."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.errors import SparkopsError
from sparkops.core.secrets import Secret
from sparkops.core.wording import Message
from sparkops.watching import receivers
from sparkops.watching.receivers import Receiver, TryAgain, command, webhook
from tests.errors import fails

KEY = Secret("a key")


class Server:
    """A server that answers with the next of its statuses, the last one for good, and keeps what it was given."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.headers[receivers.SIGNATURE], body))
                status = outer.statuses.pop(0) if len(outer.statuses) > 1 else outer.statuses[0]
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/hook"


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(*statuses: int) -> Server:
        made.append(Server(*statuses))
        return made[-1]

    yield make
    for each in made:
        each.http.shutdown()
        each.http.server_close()


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_body_is_signed_by_the_key(server: Callable[..., Server]) -> None:
    made = server(204)
    webhook(made.url, KEY)(b'{"a": 1}')
    ((signature, body),) = made.got
    assert body == b'{"a": 1}'
    assert signature == "sha256=" + hmac.new(b"a key", body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("status", "id", "kind"),
    [
        (500, "webhook-busy", TryAgain),
        (429, "webhook-busy", TryAgain),
        (403, "webhook-refused", SparkopsError),
        (302, "webhook-refused", SparkopsError),
    ],
)
def test_a_status_says_whether_it_is_tried_again(
    server: Callable[..., Server], status: int, id: str, kind: type[SparkopsError]
) -> None:
    made = server(status)
    with fails(id, kind) as caught:
        webhook(made.url, KEY)(b"{}")
    assert isinstance(caught.value, TryAgain) == (kind is TryAgain)
    assert len(made.got) == 1, "a redirection is not followed"


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with fails("webhook-unreachable", TryAgain):
        webhook("http://127.0.0.1:1/", KEY)(b"{}")


def test_messages_are_given_in_order_until_they_are_taken(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "FIRST", 0.05)
    made, said = server(503, 503, 200), []
    receiver = Receiver("webhook", webhook(made.url, KEY), said.append, [{"n": 0}])
    receiver.put({"n": 1})
    until(lambda: not receiver.waiting())
    receiver.stop(60)
    assert [json.loads(body)["n"] for _, body in made.got] == [0, 0, 0, 1]
    assert [each.id for each in said] == ["webhook-busy"], "a failure is said once"


def test_who_puts_a_message_does_not_wait_and_what_is_not_taken_is_kept() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(body: bytes) -> None:
        entered.set()
        leave.wait(60)
        raise TryAgain.of("webhook-busy", host="x", status=500)

    receiver = Receiver("webhook", slow, lambda _: None)
    started = time.monotonic()
    for number in range(3):
        receiver.put({"n": number})
    assert time.monotonic() - started < 30
    assert entered.wait(60)
    leave.set()
    receiver.stop(60)
    assert [each["n"] for each in receiver.waiting()] == [0, 1, 2]


def test_too_many_messages_give_up_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "MOST", 2)
    hold = threading.Event()
    said: list[Message] = []
    receiver = Receiver("command", lambda _: hold.wait(60) and None, said.append)
    for number in range(4):
        receiver.put({"n": number})
    assert [each["n"] for each in receiver.waiting()] == [2, 3]
    assert {each.id for each in said} == {"changes-given-up"}
    hold.set()


def test_a_command_gets_the_message_and_has_no_shell(tmp_path: Path) -> None:
    command(["sh", "-c", 'cat > "$1"', "sh", str(tmp_path / "a $HOME; b")])(b'{"n": 1}')
    assert (tmp_path / "a $HOME; b").read_bytes() == b'{"n": 1}'


@pytest.mark.parametrize("argv", [["/no/such/program"], ["false"], ["sh", "-c", "exec < /dev/null; sleep 500 & wait"]])
def test_a_command_that_fails_or_does_not_end_is_said(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "COMMAND_SECONDS", 1.0)
    with fails("change-command-failed"):
        command(argv)(b"x" * 1_000_000)
