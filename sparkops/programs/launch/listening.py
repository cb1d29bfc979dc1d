"""Which process listens on a TCP port, and which container or unit that process belongs to.

Read from procfs alone: the inodes of sockets in state LISTEN (`/proc/PID/net/tcp{,6}`), the processes that hold them
(`/proc/PID/fd`), their control groups (`/proc/PID/cgroup`, versions 1 and 2, drivers cgroupfs and systemd). Source:
proc(5), cgroups(7). It must not know Docker or systemd. Standard library only; the worker uses it too.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from sparkops.core.deadline import within

PROC = "/proc"
LISTEN = "0A"
WILDCARDS = ("0.0.0.0", "::", "")
CONTAINER = re.compile(r"[0-9a-f]{64}")
NAME_SECONDS = 5.0
"""For the address of a host that is given by its name."""
UNIT = re.compile(r"(?:^|/)([^/]+\.(?:service|scope))(?=/|$)")


class Unseen(Exception):
    """Which process holds a socket can't be told: it needs root's rights, or the kernel itself listens."""


class Owner(NamedTuple):
    """A process with a listening socket. `container` is an id of 64 digits, `unit` systemd's; "" for none. One of a
    user's manager has that behind it, in brackets: no unit of the system is called so.

    `relayed` is the address of the container for which Docker's proxy listens.
    """

    pid: int
    process: str
    container: str
    unit: str
    relayed: str = ""

    @property
    def dockers(self) -> bool:
        """Whether Docker listens for a container: by its proxy, or itself where it has none (`userland-proxy`)."""
        return bool(self.relayed) or self.process == "dockerd"

    @property
    def words(self) -> str:
        told = f"process {self.pid} ({self.process})"
        if self.relayed:
            return f"{told}, which relays to the container at {self.relayed}"
        if self.dockers:
            return f"{told}, which listens for a container"
        if self.pid == 1:
            return f"{told} for a socket unit, which `systemctl list-sockets` names"
        place = f"container {self.container[:12]}" if self.container else self.unit
        return f"{told} of {place}" if place else told


def numeric(host: str) -> str:
    """The address that a socket bound to `host` has: its shortest form, a name's as an engine looks it up (IPv4 only).

    What has none stays as it is.
    """
    bare = host.partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            return _unmapped(socket.inet_ntop(family, socket.inet_pton(family, bare)))
    if host:
        with contextlib.suppress(OSError, UnicodeError):
            return str(within(NAME_SECONDS, lambda: socket.getaddrinfo(host, None, socket.AF_INET))[0][4][0])
    return host


def listening(port: int, host: str, pid: "int | str" = "self", proc: str = PROC) -> "set[str]":
    """The inodes of the sockets that take connections to `host`:`port` in the network namespace of `pid`.

    A wildcard overlaps with every address. Raises OSError where the process is gone.
    """
    host = numeric(host)
    return {inode for address, number, inode in sockets(pid, proc) if number == port and overlap(address, host)}


def sockets(pid: "int | str" = "self", proc: str = PROC) -> "Iterator[tuple[str, int, str]]":
    """Address, port and inode of each listening socket in the network namespace of `pid`. Raises OSError."""
    for name in ("tcp", "tcp6"):
        try:
            with open(os.path.join(proc, str(pid), "net", name), encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        for row in rows:
            address, _, number = row[1].partition(":")
            if row[3] == LISTEN:
                yield _address(address), int(number, 16), row[9]


def _address(text: str) -> str:
    """An address out of /proc/net: words of 32 bits in the machine's order; mapped ones as IPv4."""
    data = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    if len(data) == 4:
        return socket.inet_ntop(socket.AF_INET, data)
    return _unmapped(socket.inet_ntop(socket.AF_INET6, data))


def _unmapped(address: str) -> str:
    return address.removeprefix("::ffff:") if "." in address else address


def overlap(address: str, host: str) -> bool:
    """Whether two sockets at these addresses are in each other's way.

    One at `::` takes IPv4 too, unless it was told not to, which can't be seen.
    """
    if host in WILDCARDS:
        return host == "::" or ":" not in address or address == "::"
    return address in (host, "::") or (address == "0.0.0.0" and ":" not in host)


def owners(inodes: "set[str]", proc: str = PROC) -> "dict[str, list[Owner]]":
    """The processes that hold each of these sockets. Raises Unseen where one of them has none that can be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, list[Owner]] = {inode: [] for inode in inodes}
    hidden = False
    for pid in pids(proc) if inodes else ():
        folder = os.path.join(proc, str(pid), "fd")
        try:
            held = {wanted[each] for each in _links(folder) if each in wanted}
        except PermissionError:
            hidden = True
            continue
        except OSError:
            continue
        for inode in held:
            found[inode].append(owner(pid, proc))
    if not all(found.values()):
        raise Unseen("only root can see which process listens" if hidden else "no process holds the listening socket")
    return found


def _links(folder: str) -> "list[str]":
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(os.path.join(folder, name)))
        except FileNotFoundError:
            continue
    return links


def pids(proc: str = PROC) -> "list[int]":
    return sorted(int(each) for each in os.listdir(proc) if each.isdecimal())


def owner(pid: int, proc: str = PROC) -> Owner:
    """What a process is and belongs to; parts that can't be read (it ended) are ""."""
    words = content_of(os.path.join(proc, str(pid), "cmdline")).split("\0")
    process = content_of(os.path.join(proc, str(pid), "comm")).strip() or "unknown"
    relayed = ""
    if os.path.basename(words[0]) == "docker-proxy" and "-container-ip" in words[:-1]:
        relayed = words[words.index("-container-ip") + 1]
    group = content_of(os.path.join(proc, str(pid), "cgroup"))
    return Owner(pid, process, container_of(pid, proc), _unit(group), relayed)


def container_of(pid: "int | str", proc: str = PROC) -> str:
    """The id of the container whose control group the process is in; "" for none, or where it has ended.

    What is in the same container as the one who asks is in none, as seen from here.
    """
    found = _container(content_of(os.path.join(proc, str(pid), "cgroup")))
    return "" if found == _container(content_of(os.path.join(proc, "self", "cgroup"))) else found


def _container(group: str) -> str:
    """The innermost id: `/docker/ID`, `/system.slice/docker-ID.scope`, also where a node is a container itself."""
    paths = [line.split(":", 2)[-1] for line in group.splitlines()]
    deepest = max(paths, key=lambda path: len(CONTAINER.findall(path)), default="")
    found: list[str] = CONTAINER.findall(deepest)
    return found[-1] if found else ""


def _unit(group: str) -> str:
    for line in group.splitlines():
        _, controller, path = [*line.split(":", 2), "", ""][:3]
        found = UNIT.findall(path) if controller in ("", "name=systemd") else []
        if found:
            manager = next((f" ({each})" for each in found[:-1] if each.startswith("user@")), "")
            return str(found[-1]) + manager
    return ""


def content_of(path: str) -> str:
    """The text of a small file of the kernel's; "" where it is gone, or can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(64 << 10)
    except OSError:
        return ""


class Listener:
    """The listening sockets of one container: `fault` says why an answer of `host`:`port` would not be its.

    `pid` is a process in the container's network namespace.
    """

    def __init__(self, port: int, host: str, container: str, pid: "int | str" = "self", proc: str = PROC) -> None:
        self.port, self.host, self.container = port, numeric(host), container
        self.pid, self.proc = pid, proc
        self.proven: set[str] = set()

    def fault(self) -> str:
        """ "" where every socket that takes the connection is the container's. Raises Unseen.

        vLLM listens with SO_REUSEPORT, so that a second engine of root can listen beside it and take half of the
        requests: one foreign socket is enough. A socket's inode is not used again while it lives.
        """
        try:
            inodes = listening(self.port, self.host, self.pid, self.proc)
        except OSError as error:
            return f"the container has ended ({error.strerror})"
        if not inodes:
            return f"nothing listens on {self.host}:{self.port}"
        if inodes != self.proven:
            for each in owners(inodes, self.proc).values():
                if all(one.container != self.container for one in each):
                    return f"{each[0].words} listens on port {self.port}, and not this service's container"
            self.proven = inodes
        return ""


def listener_of(container: "dict[str, Any]", port: int, host: str, proc: str = PROC) -> Listener:
    """Where a container that Docker inspected answers: at `host`, or at its own address where it has a network."""
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    address = host
    if mode != "host":
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        address = next((str(each["IPAddress"]) for each in networks.values() if each.get("IPAddress")), host)
    pid = int((container.get("State") or {}).get("Pid") or 0)
    return Listener(port, address, str(container.get("Id") or "no container"), pid, proc)
