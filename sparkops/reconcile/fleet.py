"""The nodes of a run as live sessions: one connection and one exec each, opened side by side, closed together.

It must not know kinds: it is given the worker as bytes and hands out sessions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

from sparkops.core import events
from sparkops.core.errors import AuthenticationFailed, ConnectionFailed, HostKeyError, LockBusy, SparkopsError
from sparkops.core.wording import Message
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import LoginRefused
from sparkops.nodes.session import Session
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Transport

Result = TypeVar("Result")
THREADS = 64
GRACE = 6.0
"""Seconds for a worker to finish its atomic step and leave, a little more than it gives itself."""
RETURNING = 60.0
"""Seconds for a node that was lost to be reached again."""
LOCK_RETURNING = 45.0
"""Seconds for the lock of a lost session to be free: a worker that nobody listens to leaves within 40."""
REFUSED = 5.0
"""Seconds until a node that let this run in before, and does not now, is tried again: a machine that goes down or comes
up refuses everybody but root (pam_nologin(8)). A password is not tried again."""
RETURNS = 3
QUIET = 12.0
"""Seconds after which a session that should have been heard of twice is not trusted for one more run."""


@dataclass(eq=False)
class Fleet:
    """Sessions by node name. Failed nodes stand in `failed` with their error, and are not tried again in this run.

    `former` is the name that the cluster had before. Without a `cluster` what is done on the nodes claims nothing: it
    is no declaration that would have to be remembered. `jobs` is how many nodes are asked at once.
    """

    targets: Mapping[str, Target]
    _: KW_ONLY
    cluster: str
    former: str = ""
    connections: Connections
    program: bytes = field(repr=False)
    listener: events.Listener = events.silent
    jobs: int = THREADS

    def __post_init__(self) -> None:
        self.failed: dict[str, SparkopsError] = {}
        self._sessions: dict[str, Session] = {}
        self._transports: dict[str, Transport] = {}
        self._locked: list[str] = []
        self._holder: Mapping[str, object] = {}
        self._returning: dict[str, threading.Lock] = {}
        self._returns: Counter[str] = Counter()
        self._guard = threading.Lock()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self, node: str) -> Session:
        """The node's session, opened on first use. Raises what kept it from opening."""
        if node in self.failed:
            raise self.failed[node]
        if node not in self.targets:
            raise ConnectionFailed.of("node-not-in-run", where=node)
        if node not in self._sessions:
            try:
                self._open(node)
            except SparkopsError as error:
                self.fail(node, error)
                raise
        return self._sessions[node]

    def _open(self, node: str) -> None:
        self.listener(events.NodeConnecting(node=node, address=self.targets[node].address))
        transport, session = self._connected(node)
        with self._guard:
            self._transports[node] = transport
            self._sessions[node] = session

    def _connected(self, node: str) -> tuple[Transport, Session]:
        """A new connection with a worker at its end."""
        target = self.targets[node]
        transport = self.connections.connect(target)
        try:
            stream = self.connections.start_worker(transport, target, self.program)
        except BaseException:
            transport.close()
            raise
        claims = {"state_dir": target.state_dir, "cluster": self.cluster, "former": self.former}
        claimed = claims if self.cluster else None
        return transport, Session(node, stream, claimed, self.session, lambda: self._beside(node))

    @contextlib.contextmanager
    def _beside(self, node: str) -> Generator[Session, None, None]:
        """One more session on a node, over a connection of its own."""
        transport, session = self._connected(node)
        try:
            yield session
        finally:
            session.close()
            transport.close()

    def reattach(
        self, node: str, session: Session, error: SparkopsError, stop: threading.Event, seconds: float = RETURNING
    ) -> bool:
        """Whether a node whose `session` was lost is there again in time, with the lock that this run had of it.

        A laptop slept, a cable was out, a worker was killed: what it did is for the caller to compare anew. False
        where the session was not lost; and where its node does not come back in time with its lock, or was lost too
        often: nothing more is done there then, and `error` says why.
        """
        with self._returning.setdefault(node, threading.Lock()):
            if (now := self._sessions.get(node)) is not session:
                return now is not None and node not in self.failed
            if not session.lost:
                return False
            if self._returns[node] < RETURNS and self._opened_again(node, session, stop, seconds):
                return True
            self.fail(node, error)
            return False

    def _opened_again(self, node: str, session: Session, stop: threading.Event, seconds: float) -> bool:
        self._returns[node] += 1
        self.listener(events.Notice(node=node, message=Message.of("connection-lost-retrying", seconds=seconds)))
        session.close(grace=0.0)
        self._transports[node].close()
        return self._retried(lambda: self._open(node), stop, seconds) and (
            node not in self._locked or self._retried(lambda: self._lock(node), stop, LOCK_RETURNING)
        )

    @staticmethod
    def _retried(attempt: Callable[[], None], stop: threading.Event, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                attempt()
            except (HostKeyError, LoginRefused):
                return False
            except AuthenticationFailed:
                stop.wait(REFUSED)
            except SparkopsError:
                stop.wait(1.0)
            else:
                return True
        return False

    def _lock(self, node: str) -> None:
        arguments = {"state_dir": self.targets[node].state_dir, "holder": self._holder}
        self._sessions[node].call("lock.acquire", arguments, timeout=30)

    def fail(self, node: str, error: SparkopsError) -> None:
        """Take a node out of the run."""
        with self._guard:
            first = node not in self.failed
            self.failed.setdefault(node, error)
        if first:
            self.listener(events.NodeFailed(node=node, reason=error.message))

    def each(
        self, nodes: Iterable[str], work: Callable[[str, Session], Result]
    ) -> tuple[dict[str, Result], dict[str, SparkopsError]]:
        """`work` on every node side by side: what each answered, and what kept the others, which hold no one up."""
        names = list(nodes)
        answers: dict[str, Result] = {}
        silent: dict[str, SparkopsError] = {}

        def one(node: str) -> None:
            try:
                answers[node] = work(node, self.session(node))
            except SparkopsError as error:
                if isinstance(error, ConnectionFailed):
                    self.fail(node, error)
                silent[node] = error

        if names:
            with ThreadPoolExecutor(min(max(1, self.jobs), len(names)), thread_name_prefix="node") as pool:
                list(pool.map(one, names))
        answered = {node: answers[node] for node in names if node in answers}
        return answered, {node: silent[node] for node in names if node in silent}

    def note(self, nodes: Iterable[str], failure: str, work: Callable[[str, Session], object]) -> None:
        """`work` on those of these nodes that have not failed; where it can't be done a Notice of this id tells why."""
        _, silent = self.each([node for node in nodes if node not in self.failed], work)
        for node, error in silent.items():
            self.listener(events.Notice(node=node, message=Message.of(failure, node=node, reason=error.message)))

    def lock(self, nodes: Iterable[str], holder: Mapping[str, object]) -> None:
        """Take the locks of all these nodes or of none. Raises LockBusy naming each busy node and its holder.

        The first node's is taken before the others': of two runs that begin at once, one gets them all.
        """

        self._holder = holder

        def take(node: str, _: Session) -> None:
            self._lock(node)

        names = list(nodes)
        taken, others = self.each(names[:1], take)
        if taken:
            more, others = self.each(names[1:], take)
            taken |= more
        self._locked = list(taken)
        if not others:
            return
        self.unlock()
        busy = {node: error for node, error in others.items() if isinstance(error, LockBusy)}
        if len(busy) > 1:
            held = [Message.of("node-held", node=node, reason=error.message) for node, error in busy.items()]
            raise LockBusy.of("nodes-locked", nodes=held)
        raise next(iter((busy or others).values()))

    def unlock(self) -> None:
        """Give the locks back; a node that is gone has lost its own already."""
        self.each(
            [node for node in self._locked if node not in self.failed],
            lambda node, session: session.call("lock.release", {"state_dir": self.targets[node].state_dir}, timeout=30),
        )
        self._locked = []

    def renew(self, resting: Mapping[str, SparkopsError] | None = None) -> None:
        """Before one more run over the same fleet: nodes that failed, and connections that are lost or silent, are
        opened anew at their next use; those that are `resting` fail with the given error instead."""
        quiet = {node for node, each in self._sessions.items() if each.lost or each.silence > QUIET}
        self._end(quiet | self.failed.keys())
        self.failed = dict(resting or {})

    def close(self) -> None:
        """End all sessions and connections. Who has answered everything and holds no lock is not waited for."""
        self._end(set(self._sessions))

    def _end(self, nodes: Set[str]) -> None:
        ending = {
            node: (self._sessions.pop(node), self._transports.pop(node)) for node in nodes & self._sessions.keys()
        }

        def end(node: str) -> None:
            session, transport = ending[node]
            waits = node not in self.failed and (session.busy or node in self._locked)
            session.close(grace=GRACE if waits else 0.0)
            transport.close()

        if ending:
            with ThreadPoolExecutor(min(THREADS, len(ending))) as pool:
                list(pool.map(end, ending))
