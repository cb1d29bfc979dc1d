"""Passwords: asked once, proven on one node before any other sees them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparkops.core.errors import AuthenticationFailed, BecomeFailed, ConnectionFailed, SparkopsError
from sparkops.core.secrets import Secret
from sparkops.nodes.passwords import Passwords, SudoRefused
from sparkops.nodes.target import Target


class Person:
    """Types the same word at every prompt and remembers the prompts."""

    def __init__(self, word: str = "word") -> None:
        self.prompts: list[str] = []
        self.word = word

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        time.sleep(0.02)
        return self.word


def _nodes(count: int) -> list[Target]:
    return [Target(name=f"spark-{number:02}") for number in range(count)]


def test_a_person_is_asked_once_for_all_nodes_and_told_which() -> None:
    person = Person()
    passwords = Passwords(person, [node.name for node in _nodes(20)])

    def attempt(node: Target) -> str:
        with passwords.attempt("sudo", node) as secret:
            return secret.reveal()

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(attempt, _nodes(20))) == {"word"}
    assert person.prompts == ["sudo password for spark-00, spark-01, spark-02 and 17 more: "]


def test_ssh_and_sudo_and_a_jump_host_are_asked_for_apart() -> None:
    person = Person()
    passwords = Passwords(person, ["spark-00"])
    node = Target(name="spark-00")
    for kind, scope in (("ssh", ""), ("sudo", ""), ("ssh", "me@bastion")):
        with passwords.attempt(kind, node, scope):  # type: ignore[arg-type]
            pass
    assert person.prompts == [
        "SSH password for spark-00: ",
        "sudo password for spark-00: ",
        "SSH password for me@bastion: ",
    ]


def test_a_wrong_password_is_tried_on_one_node_only() -> None:
    passwords = Passwords(Person())
    tried: list[str] = []

    def attempt(node: Target) -> str:
        try:
            with passwords.attempt("sudo", node):
                tried.append(node.name)
                time.sleep(0.05)
                raise SudoRefused.of("sudo-password-refused", where=node.name)
        except BecomeFailed as error:
            return error.id

    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(attempt, _nodes(20)))
    assert len(tried) == 1
    assert said.count("sudo-password-refused") == 1
    assert said.count("password-not-retried") == 19


def test_after_the_first_success_all_go_on_at_the_same_time() -> None:
    passwords = Passwords(Person())
    with passwords.attempt("sudo", Target(name="first")):
        pass
    together = threading.Barrier(10, timeout=60)

    def attempt(node: Target) -> None:
        with passwords.attempt("sudo", node):
            together.wait()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(attempt, _nodes(10)))


def test_a_node_that_dies_in_the_first_try_proves_nothing() -> None:
    passwords = Passwords(Person())
    with pytest.raises(ConnectionFailed), passwords.attempt("sudo", Target(name="dead")):
        raise ConnectionFailed.of("session-closed")
    with passwords.attempt("sudo", Target(name="alive")) as secret:
        assert secret.reveal() == "word"


def test_a_refusal_after_success_elsewhere_stays_with_its_node() -> None:
    passwords = Passwords(Person())
    with passwords.attempt("sudo", Target(name="first")):
        pass
    with pytest.raises(SudoRefused), passwords.attempt("sudo", Target(name="odd")):
        raise SudoRefused.of("sudo-password-refused")
    with passwords.attempt("sudo", Target(name="third")):
        pass


def test_a_declared_password_is_used_without_asking() -> None:
    passwords = Passwords()
    node = Target(name="spark", become_password=Secret("declared"))
    with passwords.attempt("sudo", node) as secret:
        assert secret.reveal() == "declared"


def test_a_wrong_declared_password_does_not_stop_another() -> None:
    passwords = Passwords()
    with pytest.raises(SudoRefused), passwords.attempt("sudo", Target(name="a", become_password=Secret("x"))):
        raise SudoRefused.of("sudo-password-refused")
    with passwords.attempt("sudo", Target(name="b", become_password=Secret("y"))):
        pass


@pytest.mark.parametrize(("kind", "error"), [("ssh", AuthenticationFailed), ("sudo", BecomeFailed)])
def test_without_anybody_to_ask_the_way_out_is_named(kind: str, error: type[SparkopsError]) -> None:
    with pytest.raises(error) as caught, Passwords().attempt(kind, Target(name="spark")):  # type: ignore[arg-type]
        pass
    assert caught.value.id == f"{kind}-password-needed"
