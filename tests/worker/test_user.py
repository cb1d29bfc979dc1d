"""The node half of `user`, as far as it can be seen without changing the accounts of a machine."""

import os
import pwd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.resources.user import User
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import user
from tests.errors import fails
from tests.worker.nodes import call

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOne me@laptop"
OTHER = "ssh-rsa AAAAB3NzaC1yc2EKeyTwo"

present = st.lists(st.sampled_from(["", "# a comment", KEY, OTHER, "garbage", 'from="10.*" ' + OTHER])).map("\n".join)


def declared(name: str = "qwen", **given: Any) -> User:
    return User(node="n1", name=name, **given)


@given(present, st.lists(st.sampled_from([KEY, OTHER])))
def test_keys_are_only_ever_added(text: str, keys: list[str]) -> None:
    after = user.with_keys(text, keys)
    assert after.startswith(text)
    assert {user.identity(key) for key in keys} <= {user.identity(line) for line in after.splitlines()}
    assert user.with_keys(after, keys) == after


def test_a_key_with_options_and_another_comment_is_the_same_key() -> None:
    assert user.with_keys(f'command="date",no-pty {OTHER} old\n', [OTHER]) == f'command="date",no-pty {OTHER} old\n'


def test_a_present_account_is_seen() -> None:
    entry = pwd.getpwnam("daemon")
    found = user.observe(declared("daemon").ask())
    assert found is not None
    assert (found["uid"], found["home"], found["shell"]) == (entry.pw_uid, entry.pw_dir, entry.pw_shell)
    assert found["linger"] is False


def test_an_account_that_is_not_there_is_absent() -> None:
    assert user.observe(declared("no-such-user").ask()) is None


def test_further_groups_are_kept_unless_the_list_is_exact() -> None:
    assert declared(groups=["docker"]).same("groups", ["docker"], ["docker", "video"])
    assert not declared(groups=["docker"], exact_groups=True).same("groups", ["docker"], ["docker", "video"])
    assert not declared(groups=["docker"]).same("groups", ["docker"], ["video"])


def test_a_group_that_the_node_lacks_is_named_before_anything_is_done() -> None:
    with fails("group-missing", Refused):
        user.converge(call(), {"name": "no-such-user"}, None, {"groups": ["no-such-group"]}, {})


def test_whom_we_work_as_is_not_removed() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    with fails("user-is-own", Refused):
        user.converge(call(), {"name": me}, {}, None, {})


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ({"name": "Bad Name"}, "user-name-invalid"),
        ({"name": "-x"}, "user-name-invalid"),
        ({"uid": 0}, "user-id-invalid"),
        ({"uid": "1000"}, "user-id-invalid"),
        ({"home": "home"}, "path-not-absolute"),
        ({"groups": "docker"}, "not-a-list"),
        ({"authorized_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "public-key-invalid"),
    ],
)
def test_declarations_that_no_account_can_have_are_refused(given: dict[str, Any], id: str) -> None:
    with fails(id):
        declared(**given)
