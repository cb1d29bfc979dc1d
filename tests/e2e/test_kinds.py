"""The everyday kinds on a real node: made, left alone, drifting, repaired, taken away, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.plan import Step
from sparkops.core.report import Result
from sparkops.core.secrets import Secret
from sparkops.resources import kind
from sparkops.resources.resource import Resource
from tests.e2e.applying import Applying, applying
from tests.e2e.conftest import until
from tests.lab.lab import Lab
from tests.lab.node import Node

KINDS = ("file", "directory", "link", "user", "mount", "sysctl", "command", "package")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOne me@laptop"
CONTROL = "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: lab <lab@localhost>\nDescription: lab\n"


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    """One node for all tests here: each has names of its own."""
    made = lab.add_node()
    yield made
    lab.remove_node(made)


@pytest.fixture(scope="module")
def road(lab: Lab, node: Node) -> Iterator[Applying]:
    with applying(lab, [node.name], *KINDS) as found:
        yield found


@pytest.fixture
def one(node: Node) -> Any:
    """`one("file", "/etc/x", content="…")`: a resource on the node."""

    def make(name: str, thing: str, **given: Any) -> Resource:
        return kind(name)(node=node.name, name=thing, **given)

    return make


def only_step(road: Applying, *resources: Resource) -> Step:
    (step,) = road.plan(*resources).steps
    return step


def failure(results: tuple[Result, ...]) -> Result:
    (result,) = results
    assert result.outcome == "failed"
    return result


def test_a_file_is_made_drifts_is_repaired_and_goes(node: Node, road: Applying, one: Any) -> None:
    declared = one("file", "/etc/lab.conf", content="a = 1\n", owner="spark", group="docker", mode="0644")
    assert only_step(road, declared).action == "create"
    road.settle(declared)
    assert node.text("stat", "-c", "%U %G %a", "/etc/lab.conf") == "spark docker 644"

    node.exec("sh", "-c", "echo 'a = 2' > /etc/lab.conf; chown root /etc/lab.conf")
    step = only_step(road, declared)
    assert set(step.changes) == {"content", "owner"}
    assert "-a = 2\n+a = 1\n" in step.diff
    road.settle(declared)
    assert node.read("/etc/lab.conf") == b"a = 1\n"

    road.settle(one("file", "/etc/lab.conf", state="absent"))
    assert not node.exists("/etc/lab.conf")
    assert road.plan(one("file", "/etc/lab.conf", state="absent")).steps == ()


def test_a_secret_file_is_private_and_appears_in_no_step(node: Node, road: Applying, one: Any) -> None:
    declared = one("file", "/etc/lab.secret", content=Secret("hunter2"))
    road.settle(declared)
    assert node.text("stat", "-c", "%a", "/etc/lab.secret") == "600"
    node.write("/etc/lab.secret", b"hunter3")
    step = only_step(road, declared)
    digests = [hashlib.sha256(word).hexdigest() for word in (b"hunter2", b"hunter3")]
    assert not any(word in repr(step) for word in ("hunter", *digests))
    road.settle(declared)
    assert node.read("/etc/lab.secret") == b"hunter2"


def test_a_sudoers_file_that_visudo_refuses_is_never_in_place(node: Node, road: Applying, one: Any) -> None:
    given = {"mode": "0440", "validate": ["visudo", "-cf", "{path}"]}
    result = failure(road.apply(one("file", "/etc/sudoers.d/lab", content="spark ALL=(((\n", **given)))
    assert result.reason.id == "content-invalid"
    assert not node.exists("/etc/sudoers.d/lab")
    assert node.text("ls", "-A", "/etc/sudoers.d").split() == ["README", "spark", "warden"]
    road.settle(one("file", "/etc/sudoers.d/lab", content="spark ALL=(ALL) ALL\n", **given))
    road.settle(one("file", "/etc/sudoers.d/lab", state="absent"))


def test_a_full_disk_leaves_the_old_file_and_names_the_way_out(node: Node, road: Applying, one: Any) -> None:
    node.tmpfs("/small", "64k")
    road.settle(one("file", "/small/f", content="old\n"))
    result = failure(road.apply(one("file", "/small/f", content="x" * (1 << 20))))
    assert result.reason.id == "disk-full"
    assert node.read("/small/f") == b"old\n"
    assert node.text("ls", "-A", "/small") == "f"


def test_a_read_only_file_system_is_named(node: Node, road: Applying, one: Any) -> None:
    node.tmpfs("/frozen", "64k")
    node.exec("mount", "-o", "remount,ro", "/frozen")
    assert failure(road.apply(one("file", "/frozen/f", content="x"))).reason.id == "read-only-file-system"


def test_a_file_that_is_a_mount_point_is_named(node: Node, road: Applying, one: Any) -> None:
    result = failure(road.apply(one("file", "/etc/hosts", content="127.0.0.1 localhost\n")))
    assert result.reason.id == "path-is-mount-point"


def test_an_immutable_file_is_named(node: Node, road: Applying, one: Any) -> None:
    node.write("/var/lib/lab.frozen", b"old\n")
    if node.exec("chattr", "+i", "/var/lib/lab.frozen", check=False).returncode != 0:
        pytest.skip("this file system knows no immutable files")
    result = failure(road.apply(one("file", "/var/lib/lab.frozen", content="new\n")))
    node.exec("chattr", "-i", "/var/lib/lab.frozen")
    assert (result.reason.id, result.reason.args["attribute"]) == ("path-attribute", "immutable")


def test_directories_and_links_are_made_repaired_and_taken_away(node: Node, road: Applying, one: Any) -> None:
    folder = one("directory", "/srv/lab/deep", parents=True, owner="spark", mode="2750")
    link = one("link", "/srv/lab/current", target="deep", after=(folder.id,))
    road.settle(folder, link)
    assert node.text("stat", "-c", "%U %a", "/srv/lab/deep") == "spark 2750"
    assert node.text("readlink", "/srv/lab/current") == "deep"
    node.exec("sh", "-c", "chmod 777 /srv/lab/deep; ln -sfn /tmp /srv/lab/current")
    assert {step.changes for step in road.plan(folder, link).steps} == {("mode",), ("target",)}
    road.settle(folder, link)
    node.write("/srv/lab/deep/f", b"precious")
    assert failure(road.apply(one("directory", "/srv/lab/deep", state="absent"))).reason.id == "directory-not-empty"
    node.exec("rm", "/srv/lab/deep/f")
    road.settle(one("link", "/srv/lab/current", state="absent"), one("directory", "/srv/lab/deep", state="absent"))
    assert node.text("ls", "-A", "/srv/lab") == ""


def test_a_user_is_made_repaired_and_removed_without_the_home(node: Node, road: Applying, one: Any) -> None:
    declared = one(
        "user", "qwen", uid=1234, groups=["docker"], shell="/bin/bash", linger=True, authorized_keys=[KEY]
    )  # fmt: skip
    road.settle(declared)
    assert node.text("id", "-nG", "qwen").split() == ["qwen", "docker"]
    assert node.text("stat", "-c", "%U %a", "/home/qwen/.ssh/authorized_keys") == "qwen 600"
    assert node.exists("/var/lib/systemd/linger/qwen")

    node.exec("sh", "-c", "usermod -s /bin/sh -G video qwen; : > /home/qwen/.ssh/authorized_keys")
    assert set(only_step(road, declared).changes) == {"shell", "groups", "authorized_keys"}
    road.settle(declared)
    assert set(node.text("id", "-nG", "qwen").split()) == {"qwen", "docker", "video"}

    road.settle(one("user", "qwen", groups=["docker"], exact_groups=True, linger=False))
    assert node.text("id", "-nG", "qwen").split() == ["qwen", "docker"]
    road.settle(one("user", "qwen", state="absent"))
    assert node.exec("id", "qwen", check=False).returncode != 0
    assert node.exists("/home/qwen/.ssh/authorized_keys")


def test_a_users_key_file_that_leads_elsewhere_is_not_followed(node: Node, road: Applying, one: Any) -> None:
    road.settle(one("user", "sly"))
    node.exec("sh", "-c", "ln -s /etc /home/sly/.ssh; chown -h sly /home/sly/.ssh")
    made = road.plan(one("user", "sly", authorized_keys=[KEY]))
    assert "others can change" in str(next(iter(made.unknown.values())))
    assert not node.exists("/etc/authorized_keys")


def test_a_system_user_is_made_without_home_or_login(node: Node, road: Applying, one: Any) -> None:
    road.settle(one("user", "lab-daemon", system=True))
    fields = node.text("getent", "passwd", "lab-daemon").split(":")
    assert int(fields[2]) < 1000
    assert fields[6].endswith("nologin")
    assert not node.exists(fields[5])


def test_a_mount_is_made_repaired_and_taken_away(node: Node, road: Applying, one: Any) -> None:
    before = node.read("/etc/fstab")
    folder = one("directory", "/lab-data")
    given = {"source": "tmpfs", "fstype": "tmpfs", "after": (folder.id,)}
    declared = one("mount", "/lab-data", options="size=1m,noatime", **given)
    road.settle(folder, declared)
    assert node.text("findmnt", "-n", "-o", "FSTYPE", "/lab-data") == "tmpfs"

    node.exec("umount", "/lab-data")
    assert only_step(road, folder, declared).changes == ("mounted",)
    road.settle(folder, declared)

    stricter = one("mount", "/lab-data", options=["size=1m", "noatime", "noexec"], **given)
    assert only_step(road, folder, stricter).changes == ("options", "without")
    road.settle(folder, stricter)
    assert "noexec" in node.text("findmnt", "-n", "-o", "OPTIONS", "/lab-data")

    gone = one("mount", "/lab-data", state="absent")
    busy = "cd /lab-data && exec -a lab-busy sleep 600"
    node.exec("systemd-run", "--quiet", "--unit=lab-busy", "bash", "-c", busy)
    assert only_step(road, gone).disruptive
    assert failure(road.apply(gone)).reason.id == "mount-busy"
    node.exec("systemctl", "stop", "lab-busy")
    road.settle(gone)
    assert node.read("/etc/fstab").strip() == before.strip()


def test_a_kernel_parameter_is_set_kept_and_released(node: Node, road: Applying, one: Any) -> None:
    declared = one("sysctl", "net.ipv4.ip_local_port_range", value="20000 50000")
    road.settle(declared)
    assert node.text("sysctl", "-n", "net.ipv4.ip_local_port_range").split() == ["20000", "50000"]
    node.exec("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")
    assert only_step(road, declared).changes == ("value",)
    road.settle(declared)

    node.write("/etc/sysctl.d/99-other.conf", b"net.ipv4.ip_local_port_range = 1024 2048\n")
    (warning,) = road.plan(declared).violations
    assert (warning.message.id, warning.message.args["value"]) == ("sysctl-overridden", "1024 2048")
    node.exec("rm", "/etc/sysctl.d/99-other.conf")
    road.settle(one("sysctl", "net.ipv4.ip_local_port_range", state="absent"))
    assert not node.exists("/etc/sysctl.d/60-sparkops-net.ipv4.ip_local_port_range.conf")


def test_a_value_that_the_kernel_refuses_is_not_left_in_a_file(node: Node, road: Applying, one: Any) -> None:
    result = failure(road.apply(one("sysctl", "net.ipv4.tcp_congestion_control", value="no-such-control")))
    assert "no-such-control" in result.reason.text
    assert not node.exists("/etc/sysctl.d/60-sparkops-net.ipv4.tcp_congestion_control.conf")


def test_a_command_runs_until_its_check_is_true(node: Node, road: Applying, one: Any) -> None:
    declared = one("command", "zone", check=["cat", "/var/lib/lab.zone"], stdout="UTC", run=["sh", "-c", "echo UTC > /var/lib/lab.zone"])  # fmt: skip # noqa: E501
    road.settle(declared)
    node.write("/var/lib/lab.zone", b"CET\n")
    road.settle(declared)
    hanging = one("command", "hangs", check=["sleep", "60"], check_timeout=0.5, run=["touch", "/never"])
    made = road.plan(hanging)
    assert made.exit_status == 3
    assert "did not end" in str(made.unknown[hanging.id])
    assert not node.exists("/never")


@pytest.fixture
def repository(node: Node, tmp_path: Path) -> None:
    """A repository on the node's own disk with two versions of one package and another that depends on it."""
    node.exec("sh", "-c", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /srv/apt; mkdir -p /srv/apt")
    things = (
        ("lab-thing", "1.0", ""),
        ("lab-thing", "2.0", ""),
        ("lab-user", "1.0", "lab-thing"),
        ("slow-thing", "1", ""),
    )
    for name, version, more in things:
        text = CONTROL.format(name=name, version=version) + (f"Depends: {more}\n" if more else "")
        node.write("/tmp/deb/DEBIAN/control", text.encode())
        wait = "until [ -e /run/lab-go ]; do sleep 0.2; done" if name == "slow-thing" else ""
        node.write("/tmp/deb/DEBIAN/postinst", f"#!/bin/sh\n{wait}\n".encode(), mode=0o755)
        deb = f"{name}_{version}_all.deb"
        node.exec("dpkg-deb", "--build", "--root-owner-group", "/tmp/deb", f"/srv/apt/{deb}")
        data = node.read(f"/srv/apt/{deb}")
        entry = f"{text}Filename: ./{deb}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
        node.exec("sh", "-c", "cat >> /srv/apt/Packages", input=entry.encode())
    node.write("/etc/apt/sources.list.d/lab.list", b"deb [trusted=yes] file:/srv/apt ./\n")


def version(node: Node, name: str) -> str:
    shown = node.exec("dpkg-query", "-W", "-f", "${db:Status-Want} ${Version}", name, check=False)
    return shown.stdout.decode()


@pytest.mark.usefixtures("repository")
def test_a_package_is_installed_kept_at_its_version_and_removed(node: Node, road: Applying, one: Any) -> None:
    road.settle(one("package", "lab-thing", version="1.*", hold=True))
    assert version(node, "lab-thing") == "hold 1.0"

    node.exec("apt-get", "install", "-y", "-q", "--allow-change-held-packages", "lab-thing=2.0")
    node.exec("apt-mark", "unhold", "lab-thing")
    assert set(only_step(road, one("package", "lab-thing", version="1.*", hold=True)).changes) == {"version", "hold"}
    road.settle(one("package", "lab-thing", version="1.*", hold=True))
    assert version(node, "lab-thing") == "hold 1.0"

    result = failure(road.apply(one("package", "lab-thing", version="9.*")))
    assert result.reason.id == "package-version-missing"
    assert result.reason.args["offered"] == ["2.0", "1.0"]
    result = failure(road.apply(one("package", "no-such-thing", version="1")))
    assert result.reason.id == "package-not-in-repositories"

    road.settle(one("package", "lab-user"))
    result = failure(road.apply(one("package", "lab-thing", state="absent", hold=False)))
    assert (result.reason.id, result.reason.args["others"]) == ("package-removes-others", ["lab-user"])
    road.settle(one("package", "lab-user", state="absent"))
    assert failure(road.apply(one("package", "lab-thing", state="absent"))).reason.id == "apt-package-held"
    road.settle(one("package", "lab-thing", state="absent", hold=False))

    road.settle(one("package", "lab-thing"))
    pattern = one("package", "lab-*", hold=True)
    assert only_step(road, pattern).before == {"held": [], "unheld": ["lab-thing"]}
    road.settle(pattern)
    assert version(node, "lab-thing") == "hold 2.0"
    road.settle(one("package", "lab-*", hold=False))

    node.exec(
        "sed", "-i", "/^Package: lab-thing/,/^$/s/^Status:.*/Status: install ok unpacked/", "/var/lib/dpkg/status"
    )
    assert only_step(road, one("package", "lab-thing")).changes == ("status",)
    road.settle(one("package", "lab-thing"))


@pytest.mark.usefixtures("repository")
def test_an_installation_outlives_its_session_and_the_next_run_goes_on(lab: Lab, node: Node, one: Any) -> None:
    declared = one("package", "slow-thing")
    with applying(lab, [node.name], *KINDS) as lost, ThreadPoolExecutor(1) as pool:
        running = pool.submit(lost.apply, declared)
        until(lambda: b"slow-thing.postinst" in node.exec("ps", "axww").stdout)
        lost.fleet.close()
        (result,) = running.result()
        assert result.outcome == "unknown", "nobody here knows how it ends"
    assert b"slow-thing.postinst" in node.exec("ps", "axww").stdout
    node.write("/run/lab-go", b"")
    with applying(lab, [node.name], *KINDS) as again:
        again.settle(declared)
    assert version(node, "slow-thing") == "install 1"
    assert not node.text("dpkg", "--audit")
