"""Lists of hosts, held against Ansible and OpenSSH themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sparkops.cli.app import cli
from sparkops.importing import ansible
from sparkops.importing.ansible import VARIABLES
from sparkops.importing.hosts import Host

NEEDS = pytest.mark.skipif(not shutil.which("ansible-inventory"), reason="Ansible is not installed")
LISTS = {
    "hosts": """\
lone ansible_host=192.0.2.9 # a comment
[2001:db8::5]:2200
[sparks]
spark-[01:03:2] ansible_user='no body'
x[a:c].example:2222
bare
[sparks:vars]
ansible_user = group
ansible_port=2022
[rack:children]
sparks
low
[low]
bare ansible_ssh_private_key_file="/keys/a b"
deep ansible_user=own
[low:vars]
ansible_user=low
[rack:vars]
ansible_user=parent
ansible_become=true
[all:vars]
ansible_user=everyone
; another comment
""",
    "hosts.yml": """\
rack:
  vars: {ansible_user: rack, ansible_port: 22}
  hosts: {"n[1:2]": {ansible_host: 192.0.2.1}, m: }
  children:
    a: {vars: {ansible_user: a}, hosts: {m: }}
    b: {vars: {ansible_port: 23}, hosts: {m: , o: {ansible_user: o}}}
ungrouped: {hosts: {lone: }}
all: {vars: {ansible_become: false}}
""",
}


def ansible_says(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["ansible-inventory", "-i", path, "--list"], capture_output=True, check=True, cwd=path.parent, timeout=60
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def members(told: dict[str, Any], group: str) -> set[str]:
    own = told.get(group, {})
    return {*own.get("hosts", ()), *(host for each in own.get("children", ()) for host in members(told, each))}


@NEEDS
@pytest.mark.parametrize("name", LISTS)
def test_hosts_variables_and_groups_are_those_that_ansible_sees(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LISTS[name])
    told, found = ansible_says(tmp_path / name), ansible.read(tmp_path / name)
    assert {each.name for each in found.hosts} == members(told, "all")
    assert {name: {*each} for name, each in found.groups.items()} == {
        name: members(told, name) for name in found.groups
    }
    for host in found.hosts:
        theirs = told["_meta"]["hostvars"].get(host.name, {})
        ours = {"address": host.address or None, "user": host.user, "port": host.port, "become": host.become}
        for key, value in {**ours, "identity_file": host.identity_file}.items():
            said = next((theirs[each] for each in VARIABLES[key] if each in theirs), None)
            assert (str(value).lower() if key == "become" else value) == (
                str(said).lower() if key == "become" else said
            )


INVENTORY = """\
version: 1
cluster: rack
connection: {user: nvidia, become: true, identity_file: /keys/a b}
nodes:
  spark-01: {host: 192.0.2.1}
  spark-02: {host: "2001:db8::2", connection: {port: 2222, proxy_jump: "ops@gate:2200"}}
  here: {connection: local}
groups: {all-sparks: {nodes: [spark-01, spark-02]}}
"""


def exported(folder: Path, form: str) -> Path:
    (folder / "inventory.yml").write_text(INVENTORY)
    words = ["inventory", "export", "-i", str(folder / "inventory.yml"), "--format", form]
    result = CliRunner().invoke(cli, words, env={"SPARKOPS_SSH_CONFIG": "/dev/null"})
    assert result.exit_code == 0, result.output
    path = folder / ("hosts.yml" if form == "ansible" else "ssh_config")
    path.write_text(result.stdout)
    return path


@NEEDS
def test_ansible_reads_the_exported_inventory(tmp_path: Path) -> None:
    told = ansible_says(exported(tmp_path, "ansible"))
    assert members(told, "all-sparks") == {"spark-01", "spark-02"}
    assert told["_meta"]["hostvars"]["spark-02"] == {
        "ansible_become": True,
        "ansible_host": "2001:db8::2",
        "ansible_port": 2222,
        "ansible_ssh_common_args": "-o ProxyJump=ops@gate:2200",
        "ansible_ssh_private_key_file": "/keys/a b",
        "ansible_user": "nvidia",
    }


@NEEDS
def test_ansible_takes_the_jump_host_and_reaches_a_local_node(tmp_path: Path) -> None:
    path = exported(tmp_path, "ansible")
    environment = {**os.environ, "ANSIBLE_SSH_EXECUTABLE": "/bin/false", "ANSIBLE_LOCALHOST_WARNING": "False"}
    words = ["ansible", "-i", str(path), "-m", "ping", "-vvv", "--extra-vars", "ansible_become=false"]
    local = subprocess.run([*words, "here"], capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert '"ping": "pong"' in local.stdout, local.stdout + local.stderr
    far = subprocess.run(
        [*words, "spark-02"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert "ProxyJump=ops@gate:2200" in far.stdout and "Port=2222" in far.stdout and "2001:db8::2" in far.stdout


def test_ssh_reads_the_exported_configuration(tmp_path: Path) -> None:
    path = exported(tmp_path, "ssh_config")

    def option(host: str, name: str) -> list[str]:
        done = subprocess.run(["ssh", "-G", "-F", path, host], capture_output=True, text=True, check=True)
        return [line.partition(" ")[2] for line in done.stdout.splitlines() if line.partition(" ")[0] == name]

    assert option("spark-01", "hostname") == ["192.0.2.1"]
    assert option("spark-01", "user") == ["nvidia"]
    assert option("spark-02", "port") == ["2222"]
    assert option("spark-02", "proxyjump") == ["ops@gate:2200"]
    assert option("spark-02", "identityfile") == ["/keys/a b"]
    assert Host(name="here", local=True).name not in path.read_text()
