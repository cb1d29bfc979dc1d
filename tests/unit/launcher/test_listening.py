"""Whose socket listens: /proc as kernels write it, on a root of the test's own, and real sockets of this process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sparkops.programs.launch import listening
from sparkops.programs.launch.listening import Listener, Unseen, container_of, listener_of, owner, owners

ID, OTHER, NODE = "a" * 64, "b" * 64, "c" * 64
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Proc:
    """A /proc of the test's own; sockets stand in the network namespace of every process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[str]] = {"tcp": [], "tcp6": []}

    def process(self, pid: int | str, group: str, *inodes: str, argv: str = "vllm") -> None:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "net").mkdir()
        (folder / "cgroup").write_text(group)
        (folder / "comm").write_text(argv.split()[0][:15] + "\n")
        (folder / "cmdline").write_text(argv.replace(" ", "\0") + "\0")
        for number, inode in enumerate(inodes):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def socket(self, address: str, port: int, inode: str, state: str = "0A") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        data = socket.inet_pton(family, address)
        told = "".join(data[at : at + 4][::-1].hex().upper() for at in range(0, len(data), 4))
        between = "00000000:00000000 00:00000000 00000000     0        0"
        row = f"   0: {told}:{port:04X} 00000000:0000 {state} {between} {inode}"
        self.rows["tcp6" if ":" in address else "tcp"].append(row)
        for folder in self.root.iterdir():
            for name, rows in self.rows.items():
                (folder / "net" / name).write_text(HEAD + "".join(f"{each}\n" for each in rows))

    def listener(self, container: str = ID, host: str = "127.0.0.1") -> Listener:
        return Listener(8000, host, container, 7, str(self.root))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    found = Proc(tmp_path)
    found.process("self", "0::/system.slice/qwen.service\n")
    return found


GROUPS = {
    "v2 systemd": f"0::/system.slice/docker-{ID}.scope\n",
    "v2 cgroupfs": f"0::/docker/{ID}\n",
    "v1 systemd": f"12:pids:/system.slice/docker-{ID}.scope\n1:name=systemd:/system.slice/docker-{ID}.scope\n",
    "v1 cgroupfs": f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n",
    "a parent of its own": f"0::/engines.slice/engines-big.slice/docker-{ID}.scope\n",
    "a node that is a container": f"12:pids:/docker/{NODE}/docker/{ID}\n1:name=systemd:/docker/{NODE}/docker/{ID}\n",
    "a group below the container's": f"0::/system.slice/docker-{ID}.scope/init\n",
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_a_process_is_in_the_container_of_its_control_group(proc: Proc, group: str) -> None:
    proc.process(7, group, "11")
    assert container_of(7, str(proc.root)) == ID
    proc.socket("0.0.0.0", 8000, "11")
    assert proc.listener().fault() == ""
    assert "not this service's container" in proc.listener(OTHER).fault()


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("0::/system.slice/vllm.service\n", "vllm.service"),
        ("0::/system.slice/system-vllm.slice/vllm@1.service\n", "vllm@1.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service\n",
            "vllm.service (user@1000.service)",
        ),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "init.scope (user@1000.service)"),
        ("0::/system.slice/user@1000.service\n", "user@1000.service"),
        ("12:pids:/x.service\n1:name=systemd:/system.slice/vllm.service\n", "vllm.service"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_a_process_outside_of_containers_is_in_a_unit(proc: Proc, group: str, unit: str) -> None:
    proc.process(7, group, "11")
    found = owner(7, str(proc.root))
    assert (found.container, found.unit, found.pid, found.process) == ("", unit, 7, "vllm")


def test_what_is_in_the_same_container_as_the_one_who_asks_is_in_none(tmp_path: Path) -> None:
    proc = Proc(tmp_path)
    proc.process("self", f"1:name=systemd:/docker/{NODE}/system.slice/qwen.service\n")
    proc.process(7, f"1:name=systemd:/docker/{NODE}/system.slice/vllm.service\n")
    found = owner(7, str(tmp_path))
    assert (found.container, found.unit) == ("", "vllm.service")


@pytest.mark.parametrize(
    ("address", "host", "taken"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("192.168.1.9", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "0.0.0.0", True),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
        ("192.168.1.9", "::", True),
        ("0.0.0.0", "::1", False),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("fe80::1", "fe80::1", True),
    ],
)
def test_addresses_overlap_as_bind_sees_it(proc: Proc, address: str, host: str, taken: bool) -> None:
    proc.process(7, GROUPS["v2 systemd"], "11")
    proc.socket(address, 8000, "11")
    assert bool(listening.listening(8000, host, 7, str(proc.root))) is taken


def test_other_ports_and_connections_that_are_open_are_no_listeners(proc: Proc) -> None:
    proc.process(7, GROUPS["v2 systemd"], "11", "12")
    proc.socket("0.0.0.0", 8001, "11")
    proc.socket("127.0.0.1", 8000, "12", state="01")
    assert proc.listener().fault() == "nothing listens on 127.0.0.1:8000"


def test_one_foreign_socket_beside_the_own_is_enough(proc: Proc) -> None:
    """SO_REUSEPORT: the kernel deals connections out to both."""
    proc.process(7, GROUPS["v2 systemd"], "11")
    proc.process(8, f"0::/system.slice/docker-{OTHER}.scope\n", "12")
    proc.socket("0.0.0.0", 8000, "11")
    listener = proc.listener()
    assert listener.fault() == ""
    proc.socket("0.0.0.0", 8000, "12")
    assert listener.fault().startswith(f"process 8 (vllm) of container {OTHER[:12]} listens on port 8000, and not")


def test_a_socket_that_nobody_is_seen_to_hold_is_not_known(proc: Proc) -> None:
    proc.process(7, GROUPS["v2 systemd"])
    proc.socket("0.0.0.0", 8000, "11")
    with pytest.raises(Unseen, match="no process holds"):
        proc.listener().fault()


def test_a_container_that_has_ended_is_told(proc: Proc) -> None:
    assert "the container has ended" in proc.listener().fault()


def test_dockers_proxy_relays_to_a_container(proc: Proc) -> None:
    argv = "/usr/bin/docker-proxy -proto tcp -host-ip :: -host-port 8000 -container-ip 172.17.0.2 -container-port 8000"
    proc.process(9, "0::/system.slice/docker.service\n", "11", argv=argv)
    found = owner(9, str(proc.root))
    assert (found.relayed, found.container) == ("172.17.0.2", "")
    assert found.words.endswith("which relays to the container at 172.17.0.2")


@pytest.mark.parametrize(
    ("mode", "networks", "host"),
    [
        ("host", {"host": {"IPAddress": ""}}, "127.0.0.1"),
        ("bridge", {"bridge": {"IPAddress": "172.17.0.2"}}, "172.17.0.2"),
        ("mine", {"mine": {"IPAddress": "10.1.0.2"}}, "10.1.0.2"),
    ],
)
def test_a_container_answers_at_its_own_address(mode: str, networks: dict[str, dict[str, str]], host: str) -> None:
    inspected = {
        "Id": ID,
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks},
        "State": {"Pid": 7},
    }
    found = listener_of(inspected, 8000, "127.0.0.1")
    assert (found.host, found.port, found.container, found.pid) == (host, 8000, ID, 7)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::0", "::"),
        ("FE80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("no-such-host.invalid", "no-such-host.invalid"),
        ("", ""),
    ],
)
def test_a_host_is_the_address_that_a_socket_bound_to_it_has(host: str, address: str) -> None:
    """`host: localhost` was never seen to listen, and the start ended after its whole time."""
    assert listening.numeric(host) == address


def test_a_name_is_asked_at_the_address_that_was_proven(proc: Proc) -> None:
    """`localhost` is ::1 too, where somebody else may listen."""
    proc.process(7, GROUPS["v2 systemd"], "11")
    proc.process(8, "0::/system.slice/foreign.service\n", "12")
    proc.socket("127.0.0.1", 8000, "11")
    proc.socket("::1", 8000, "12")
    found = proc.listener(host="localhost")
    assert (found.host, found.fault()) == ("127.0.0.1", "")


def test_what_systemd_listens_for_is_a_socket_unit_and_no_process_to_stop(proc: Proc) -> None:
    proc.process(1, "0::/init.scope\n", "11", argv="systemd --system")
    words = owner(1, str(proc.root)).words
    assert "init.scope" not in words
    assert "`systemctl list-sockets`" in words


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_real_socket_is_this_processs(family: socket.AddressFamily) -> None:
    with socket.create_server(("", 0), family=family) as server:
        port = server.getsockname()[1]
        (held,) = owners(listening.listening(port, "127.0.0.1" if family == socket.AF_INET else "::")).values()
        assert [each.pid for each in held] == [os.getpid()]
        assert Listener(port, "127.0.0.1" if family == socket.AF_INET else "::1", "").fault() == ""
    assert listening.listening(port, "0.0.0.0") == set()
