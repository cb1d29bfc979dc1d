"""One more session on a node over a connection of its own: what proves that there is a way in now."""

from __future__ import annotations

from threading import Event

import pytest

from sparkops.core.errors import AuthenticationFailed, ConnectionFailed, HostKeyError
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import LoginRefused, Passwords
from sparkops.nodes.session import Session
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Transport
from sparkops.reconcile.fleet import Fleet

UPTIME = {"asks": [["facts", "facts", {"groups": ["uptime"]}]], "limit": 30.0}


class Counting(Connections):
    """Local connections, counted; `refuse` lets none in any more, `refusals` are raised one by one."""

    def __init__(self) -> None:
        super().__init__(Passwords())
        self.opened = 0
        self.refuse = False
        self.refusals: list[ConnectionFailed] = []

    def connect(self, target: Target) -> Transport:
        if self.refusals:
            raise self.refusals.pop(0)
        if self.refuse:
            raise ConnectionFailed.of("session-closed", where=target.name)
        self.opened += 1
        return super().connect(target)


@pytest.fixture
def connections() -> Counting:
    return Counting()


def fleet(connections: Counting) -> Fleet:
    target = Target(name="here", type="local")
    return Fleet({"here": target}, cluster="", connections=connections, program=bundle.kinds_bundle(["facts"]))


def test_a_fresh_session_is_another_connection_and_leaves_the_first_one_alone(connections: Counting) -> None:
    with fleet(connections) as opened:
        first = opened.session("here")
        with first.fresh() as other:
            assert other is not first and other.call("observe", UPTIME, timeout=30)
        assert connections.opened == 2
        assert first.call("observe", UPTIME, timeout=30)
        assert opened.session("here") is first


def test_where_no_connection_can_be_made_the_open_session_proves_nothing(connections: Counting) -> None:
    with fleet(connections) as opened:
        first = opened.session("here")
        connections.refuse = True
        with pytest.raises(ConnectionFailed), first.fresh():
            raise AssertionError("there is no way in")
        assert first.call("observe", UPTIME, timeout=30), "it is still open all the same"


def test_who_was_at_work_when_the_fleet_was_closed_does_not_open_it_again(connections: Counting) -> None:
    with fleet(connections) as opened:
        session = opened.session("here")
    assert not opened.reattach("here", session, ConnectionFailed.of("session-closed", where="here"), Event())
    assert connections.opened == 1


@pytest.mark.parametrize(
    ("refusal", "again"),
    [
        (AuthenticationFailed.of("login-disconnected", where="here"), True),
        (LoginRefused.of("ssh-password-refused", where="here"), False),
        (HostKeyError.of("host-key-changed", where="here"), False),
    ],
)
def test_a_node_that_is_being_booted_lets_nobody_in_for_a_while(
    connections: Counting, monkeypatch: pytest.MonkeyPatch, refusal: ConnectionFailed, again: bool
) -> None:
    """pam_nologin: the run that had rebooted the node called that refused, and gave the node up."""
    monkeypatch.setattr("sparkops.reconcile.fleet.REFUSED", 0.0)
    lost = ConnectionFailed.of("connection-lost", where="here")
    with fleet(connections) as opened:
        session = opened.session("here")
        session._end(lost)
        connections.refusals = [refusal]
        assert opened.reattach("here", session, lost, Event()) is again
        assert connections.refusals == []


def test_a_session_of_no_fleet_has_no_fresh_one() -> None:
    class Silent:
        def read(self, size: int) -> bytes:
            return b""

        def write(self, data: bytes) -> None:
            """Nobody listens."""

        def close_input(self) -> None:
            """There is none."""

        def close(self) -> None:
            """There is nothing."""

        def stderr(self) -> str:
            return ""

    with pytest.raises(ConnectionFailed):
        Session("here", Silent()).fresh()  # type: ignore[arg-type]  # what a stream does here
