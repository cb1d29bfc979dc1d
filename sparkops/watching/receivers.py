"""Who is told of changes: a command of the user's, a webhook. Each has a thread, so that none holds up the rounds.

A message is given until it is taken or given up, in order, and at least once: what a process leaves, the next one of
the same watcher gives again.
"""

from __future__ import annotations

import collections
import hashlib
import hmac
import http.client
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

from sparkops.core import process_group
from sparkops.core.deadline import within
from sparkops.core.errors import SparkopsError
from sparkops.core.secrets import Secret
from sparkops.core.wording import Message

Deliver: TypeAlias = Callable[[bytes], None]
Say: TypeAlias = Callable[[Message], None]

COMMAND_SECONDS = 60.0
"""Time for one run of a command."""
ANSWER_SECONDS = 15.0
"""Time for one whole question to a webhook."""
FIRST, LONGEST = 1.0, 300.0
"""Seconds before the second try, doubled with each one up to the longest."""
GIVE_UP = 86_400.0
"""Seconds for which a message is tried again."""
MOST = 1000
"""Messages that wait; beyond it the oldest is given up."""
SIGNATURE = "X-Sparkops-Signature-256"


class TryAgain(SparkopsError):
    """The message could not be given now; it may be later."""


class Receiver:
    """One receiver of messages, with those that wait for it."""

    def __init__(self, name: str, deliver: Deliver, say: Say, waiting: Iterable[dict[str, object]] = ()) -> None:
        self.name = name
        self._deliver, self._say = deliver, say
        self._waiting = collections.deque(waiting)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"to {name}", daemon=True)
        self._thread.start()

    def put(self, message: dict[str, object]) -> None:
        """Have one more message delivered; returns at once."""
        with self._changed:
            if len(self._waiting) >= MOST:
                self._waiting.popleft()
                self._say(Message.of("changes-given-up", receiver=self.name, reason=f"{MOST} messages wait already"))
            self._waiting.append(message)
            self._changed.notify()

    def waiting(self) -> list[dict[str, object]]:
        """What is not delivered yet, the one that is being delivered first."""
        with self._changed:
            return list(self._waiting)

    def stop(self, patience: float) -> None:
        """Try what waits once, without pauses, for `patience` seconds at most."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
                if not self._waiting:
                    return
                message = self._waiting[0]
            if not self._given(message):
                return
            with self._changed:
                if self._waiting and self._waiting[0] is message:
                    self._waiting.popleft()

    def _given(self, message: dict[str, object]) -> bool:
        """Try until it is taken, refused or given up; False where the process ends before that."""
        body = json.dumps(message, sort_keys=True).encode()
        pause, began = FIRST, time.monotonic()
        while True:
            try:
                self._deliver(body)
            except TryAgain as error:
                if pause == FIRST:
                    self._say(error.message)
                if time.monotonic() - began > GIVE_UP:
                    self._say(Message.of("changes-given-up", receiver=self.name, reason=error.what))
                    return True
                if self._stopping.wait(pause):
                    return False
                pause = min(2 * pause, LONGEST)
            except SparkopsError as error:
                self._say(error.message)
                return True
            else:
                return True


def command(argv: Sequence[str]) -> Deliver:
    """Runs a program with the message on its standard input; what it prints goes to standard error."""

    def deliver(body: bytes) -> None:
        try:
            process = subprocess.Popen([*argv], stdin=subprocess.PIPE, stdout=2, start_new_session=True)
        except OSError as error:
            raise SparkopsError.of(
                "change-command-failed", command=argv[0], reason=error.strerror or str(error)
            ) from None
        try:
            process.communicate(body, timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process_group.end(process, 2.0)
            reason = f"it did not end within {COMMAND_SECONDS:.0f} s"
            raise SparkopsError.of("change-command-failed", command=argv[0], reason=reason) from None
        if process.returncode:
            reason = f"exit status {process.returncode}"
            raise SparkopsError.of("change-command-failed", command=argv[0], reason=reason)

    return deliver


def webhook(url: str, key: Secret) -> Deliver:
    """Posts the message with an HMAC-SHA256 of its bytes. Redirections are not followed."""
    host = urlsplit(url).hostname or url
    opener = urllib.request.build_opener(_NoRedirect())

    def ask(request: urllib.request.Request) -> None:
        opener.open(request, timeout=ANSWER_SECONDS).close()

    def deliver(body: bytes) -> None:
        signature = hmac.new(key.reveal().encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "User-Agent": "sparkops", SIGNATURE: f"sha256={signature}"}
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            within(ANSWER_SECONDS, lambda: ask(request))
        except urllib.error.HTTPError as error:
            error.close()
            again = error.code >= 500 or error.code in (408, 425, 429)
            kind = TryAgain if again else SparkopsError
            raise kind.of("webhook-refused" if not again else "webhook-busy", host=host, status=error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", "") or error)
            raise TryAgain.of("webhook-unreachable", host=host, reason=reason) from None

    return deliver


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Leave the answer as it is: an error with its status."""
