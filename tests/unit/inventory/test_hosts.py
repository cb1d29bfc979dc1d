"""Hosts of other tools' lists: what is taken over, what is told instead of guessed, and that a list comes back."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.cli.app import cli
from sparkops.importing import ansible
from sparkops.importing.ansible_ini import expanded
from sparkops.importing.hosts import Host, Hosts, declared, inventory_text
from sparkops.inventory.load import load
from sparkops.operate.first_contact import ssh_hosts
from tests.errors import fails


def told(hosts: Hosts) -> set[tuple[str, str]]:
    return {(each.id, str(each.args.get("variable") or each.args.get("host") or "")) for each in hosts.left}


def ini(folder: Path, text: str, name: str = "hosts") -> Hosts:
    (folder / name).write_text(dedent(text))
    return ansible.read(folder / name)


def test_an_ini_inventory_is_read_with_its_precedence(tmp_path: Path) -> None:
    found = ini(
        tmp_path,
        """\
        bastion ansible_host=192.0.2.9 # a comment
        [sparks]
        spark-[01:03] ansible_user="no body"
        other:2222
        [sparks:vars]
        ansible_user=group
        ansible_ssh_private_key_file=~/.ssh/sparks
        ansible_ssh_common_args='-o ProxyJump=ops@bastion'
        [rack:children]
        sparks
        [rack:vars]
        ansible_port=22
        ansible_user=parent
        ansible_become=yes
        [all:vars]
        ansible_user=everyone
        """,
    )
    assert [each.name for each in found.hosts] == ["bastion", "spark-01", "spark-02", "spark-03", "other"]
    bastion, spark, *_, other = found.hosts
    assert bastion == Host(name="bastion", address="192.0.2.9", user="everyone")
    same: dict[str, Any] = {"identity_file": "~/.ssh/sparks", "proxy_jump": "ops@bastion", "become": True}
    assert spark == Host(name="spark-01", user="no body", port=22, **same)
    assert other == Host(name="other", user="group", port=2222, **same)
    sparks = ("spark-01", "spark-02", "spark-03", "other")
    assert found.groups == {"sparks": sparks, "rack": sparks}
    assert found.left == ()


YAML = """\
all:
  vars: {ansible_user: nvidia}
  hosts:
    a: {ansible_host: 192.0.2.1}
  children:
    rack:
      hosts: {"b[1:2]": , a: }
      children: {low: {hosts: {c: {ansible_connection: local}}}}
"""


def test_the_yaml_form_means_the_same(tmp_path: Path) -> None:
    found = ini(tmp_path, YAML, "hosts.yml")
    assert [each.name for each in found.hosts] == ["a", "b1", "b2", "c"]
    assert found.hosts[0] == Host(name="a", address="192.0.2.1", user="nvidia")
    assert found.hosts[3].local
    assert found.groups == {"rack": ("a", "b1", "b2", "c"), "low": ("c",)}


@pytest.mark.parametrize(
    ("variable", "id", "name"),
    [
        ("ansible_password=x", "host-secret-not-taken", "ansible_password"),
        ("ansible_become_pass=x", "host-secret-not-taken", "ansible_become_pass"),
        ("ansible_python_interpreter=/usr/bin/python3", "host-variable-not-taken", "ansible_python_interpreter"),
        ("role=serving", "host-variable-not-taken", "role"),
        ("ansible_become_method=doas", "host-variable-not-taken", "ansible_become_method"),
        ("ansible_host='{{ base }}.1'", "host-value-not-read", "ansible_host"),
        ("ansible_port=ssh", "host-value-not-read", "ansible_port"),
        ("ansible_port=0", "host-value-not-read", "ansible_port"),
        ("ansible_become=perhaps", "host-value-not-read", "ansible_become"),
        ("ansible_ssh_common_args='-J a -C'", "host-value-not-read", "ansible_ssh_common_args"),
        ("ansible_user=x ansible_ssh_user=y", "host-value-not-read", "ansible_user and ansible_ssh_user"),
        ("ansible_connection=docker", "host-not-taken", "a"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_and_not_guessed(tmp_path: Path, variable: str, id: str, name: str) -> None:
    found = ini(tmp_path, f"a {variable}\nb\n")
    assert told(found) == {(id, name)}
    assert found.hosts == ((Host(name="a"),) if id != "host-not-taken" else ()) + (Host(name="b"),)


def test_what_goes_without_saying_is_not_told(tmp_path: Path) -> None:
    text = (
        "a ansible_become_method=sudo ansible_become_user=root ansible_connection=ssh ansible_user=x ansible_ssh_user=x"
    )
    assert ini(tmp_path, text) == Hosts((Host(name="a", user="x"),))


def test_a_vault_and_folders_of_variables_are_told(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    found = ini(tmp_path, "all: {hosts: {a: {ansible_host: !vault 'x', ansible_user: !unsafe y}}}", "hosts.yaml")
    assert [each.id for each in found.left] == ["hosts-folders-not-read", *["host-value-not-read"] * 2]


@pytest.mark.parametrize(
    ("text", "name", "id"),
    [
        ("[a b]\n", "hosts", "hosts-malformed"),
        ("[a:who]\n", "hosts", "hosts-malformed"),
        ("a b\n", "hosts", "hosts-malformed"),
        ("a x='\n", "hosts", "hosts-malformed"),
        ("[a:vars]\nx\n", "hosts", "hosts-malformed"),
        ("n[5:1]\n", "hosts", "hosts-malformed"),
        ("n[01:100]\n", "hosts", "hosts-malformed"),
        ("n[1:99999999]\n", "hosts", "hosts-malformed"),
        ("n[1:999][1:999]\n", "hosts", "hosts-malformed"),
        ("a\n[b:vars]\nx=1\n", "hosts", "hosts-malformed"),
        ("a\n[b:children]\nc\n", "hosts", "hosts-malformed"),
        ("# nobody\n", "hosts", "hosts-none"),
        ("plugin: aws_ec2\n", "hosts.yml", "hosts-computed"),
        ("- a\n", "hosts.yml", "hosts-malformed"),
        ("all: {hosts: [a]}\n", "hosts.yml", "hosts-malformed"),
        ("all: {host: {a: }}\n", "hosts.yml", "hosts-malformed"),
        ("all: {hosts: {a: }, hosts: {\n", "hosts.yml", "hosts-malformed"),
    ],
)
def test_a_file_that_is_no_list_of_hosts_is_refused(tmp_path: Path, text: str, name: str, id: str) -> None:
    with fails(id):
        ini(tmp_path, text, name)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("n[1:3]", ["n1", "n2", "n3"]),
        ("n[08:10].x", ["n08.x", "n09.x", "n10.x"]),
        ("n[:1]", ["n0", "n1"]),
        ("n[1:9:4]", ["n1", "n5", "n9"]),
        ("[a:b]-[1:2]", ["a-1", "a-2", "b-1", "b-2"]),
        ("2001:db8::1", ["2001:db8::1"]),
    ],
)
def test_a_range_is_its_names(pattern: str, names: list[str]) -> None:
    assert expanded(pattern, "hosts") == names


def test_a_long_list_takes_no_time_for_each_pair_of_hosts(tmp_path: Path) -> None:
    began = time.process_time()
    found = ini(tmp_path, "[a]\nn[0001:5000]\n[b:children]\na\n[a:vars]\nansible_user=x\n[b:vars]\nansible_port=1\n")
    assert len(found.hosts) == 5000 and {(each.user, each.port) for each in found.hosts} == {("x", 1)}
    assert time.process_time() - began < 5


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in ("all", "ungrouped")
)
WORDS = st.text("abcXYZ019._-", min_size=1, max_size=8).filter(lambda word: not word.startswith("-"))
PATHS = st.builds("/keys/{}".format, st.text("aZ0 .-_", min_size=1, max_size=8).map(str.strip).filter(bool))
HOSTS = st.fixed_dictionaries(
    {},
    optional={
        "address": st.builds("{}.example".format, st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)),
        "user": WORDS,
        "port": st.integers(1, 65535),
        "identity_file": PATHS,
        "proxy_jump": st.builds("ops@GATE{}:22".format, st.from_regex(r"[a-z]{0,6}", fullmatch=True)),
    },
)


@st.composite
def clusters(draw: Any, local: bool = True) -> Hosts:
    """Hosts and groups that an inventory can have."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    groups = draw(st.lists(NAMES.filter(lambda name: name not in names), max_size=2, unique=True))
    hosts = [Host(name=name, become=draw(st.booleans()), **draw(HOSTS)) for name in names]
    if local and draw(st.booleans()):
        hosts[0] = Host(name=names[0], become=hosts[0].become, local=True)
    members = {group: draw(st.lists(st.sampled_from(names), min_size=1, unique=True)) for group in groups}
    ordered = {group: tuple(name for name in names if name in chosen) for group, chosen in members.items()}
    return Hosts(tuple(hosts), ordered)


def inventory_of(hosts: Hosts, folder: Path) -> Any:
    (folder / "inventory.yml").write_text(inventory_text(hosts, "rack", "a test"))
    return load(folder / "inventory.yml")


QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(hosts=clusters())
def test_an_inventory_comes_back_from_ansible(tmp_path: Path, hosts: Hosts) -> None:
    assert declared(inventory_of(hosts, tmp_path)) == hosts
    assert ini(tmp_path, ansible.write(hosts), "hosts.yml") == hosts


@QUICK
@given(hosts=clusters(local=False))
def test_an_inventory_comes_back_from_an_ssh_config(tmp_path: Path, hosts: Hosts) -> None:
    os.environ["SPARKOPS_SSH_CONFIG"] = "/dev/null"
    (tmp_path / "ssh_config").write_text(ssh_hosts.write(inventory_of(hosts, tmp_path)))
    back = ssh_hosts.read(tmp_path / "ssh_config")
    known = tuple(dataclasses.replace(each, become=None) for each in hosts.hosts)
    assert back.hosts == known
    assert back.left == ()


def test_of_an_ssh_config_each_name_is_a_host_with_what_ssh_would_use(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host b c*\n  Port 2222\n  LocalForward 1 x:1\n")
    (tmp_path / "config").write_text(
        f"Host a !x\n  HostName 192.0.2.1\n  IdentityFile ~/k1\n  IdentityFile ~/k2\nInclude {tmp_path}/more\n"
        "Host *\n  User everyone\n  ProxyJump gate\n"
    )
    found = ssh_hosts.read(tmp_path / "config")
    first, second = found.hosts
    assert (
        first.name == "a" and first.address == "192.0.2.1" and first.user == "everyone" and first.proxy_jump == "gate"
    )
    assert (second.name, second.address, second.port) == ("b", "", 2222)
    assert told(found) == {("host-variable-not-taken", word) for word in ("localforward", "a second IdentityFile")}


def run(*words: str, status: int = 0) -> Any:
    result = CliRunner().invoke(cli, words, env={"SPARKOPS_SSH_CONFIG": "/dev/null"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_init_writes_what_loads_and_names_no_host_that_the_list_has_not(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[rack]\n2001:db8::7\nspark_01 ansible_password=x\n")
    result = run("init", "--from-ansible", str(tmp_path / "hosts"), "--cluster", "c", "-o", str(tmp_path / "i.yml"))
    assert "ansible_password of spark_01 is a secret" in result.stderr
    made = load(tmp_path / "i.yml")
    assert {name: node.host for name, node in made.nodes.items()} == {
        "2001-db8-7": "2001:db8::7",
        "spark_01": "spark_01",
    }
    assert made.groups == {"rack": ("2001-db8-7", "spark_01")}
    assert all(node.connection.become for node in made.nodes.values())
    with fails("host-name-unusable"):
        inventory_text(Hosts((Host(name="a b"), Host(name="a-b"))), "c", "x")


def test_an_export_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text(
        "version: 1\ncluster: c\nconnection: {ssh_password: !env SECRET}\n"
        "nodes: {a: {host: 192.0.2.1}, b: {state: retired}, c: {connection: local}}\ngroups: {g: {nodes: [a, b]}}\n"
    )
    result = run("inventory", "export", "-i", str(tmp_path / "inventory.yml"), "--format", "ansible")
    assert yaml.safe_load(result.stdout) == {
        "all": {
            "hosts": {
                "a": {"ansible_host": "192.0.2.1", "ansible_become": False},
                "c": {"ansible_connection": "local", "ansible_become": False},
            },
            "children": {"g": {"hosts": {"a": {}}}},
        }
    }
    assert "ssh_password" in result.stderr and "SECRET" not in result.output


def test_an_alias_of_the_users_own_configuration_is_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "Host attic\n  HostName 192.0.2.5\n  User nvidia\n  Port 2200\n  ProxyJump ops@gate\n"
    )
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: c\nnodes: {a: {host: attic}}\n")
    monkeypatch.setenv("SPARKOPS_SSH_CONFIG", str(tmp_path / "config"))
    text = ssh_hosts.write(load(tmp_path / "inventory.yml"))
    (tmp_path / "made").write_text(text)
    (made,) = ssh_hosts.read(tmp_path / "made").hosts
    assert made == Host(name="a", address="192.0.2.5", user="nvidia", port=2200, proxy_jump="ops@gate")


@pytest.mark.parametrize("sign", ['"', "%", "\n"])
def test_what_an_ssh_config_cannot_hold_is_refused(tmp_path: Path, sign: str) -> None:
    made = inventory_of(Hosts((Host(name="a", identity_file=f"/k{sign}"),)), tmp_path)
    with fails("ssh-config-unwritable"):
        ssh_hosts.write(made)
