"""The node half of `package`: what dpkg-query, madison and a simulation say, read as text."""

import os
from pathlib import Path
from typing import Any

import pytest

from sparkops.resources.package import Package
from sparkops.worker.kinds import package
from tests.errors import fails

SEEN = package.parse(
    "dpkg\tarm64\t1.22.6\tinstall ok installed\n"
    "libc6\tarm64\t2.39-0ubuntu8\tinstall ok installed\n"
    "libc6\tarmhf\t2.39-0ubuntu7\tinstall ok installed\n"
    "tzdata\tall\t2025b-0\thold ok installed\n"
    "gone\tarm64\t1.0\tdeinstall ok config-files\n"
    "half\tarm64\t1.0\tinstall ok half-configured\n"
    "trig\tarm64\t1.0\tinstall ok triggers-pending\n"
    "nvidia-driver-580\tarm64\t580.95.05-0ubuntu1\thold ok installed\n"
    "nvidia-utils-580\tarm64\t580.95.05-0ubuntu1\tinstall ok installed\n"
)


def declared(name: str, **given: Any) -> Package:
    return Package(node="n1", name=name, **given)


def look(one: Package) -> Any:
    return package._state(one.ask(), SEEN)


def test_version_and_hold_are_seen() -> None:
    assert look(declared("tzdata")) == {"status": "installed", "version": "2025b-0", "hold": True}


def test_a_name_without_architecture_means_the_nodes_own() -> None:
    assert look(declared("libc6"))["version"] == "2.39-0ubuntu8"
    assert look(declared("libc6:armhf"))["version"] == "2.39-0ubuntu7"


def test_what_left_only_its_configuration_is_absent() -> None:
    assert look(declared("gone")) is None


def test_a_half_configured_package_is_not_installed_and_one_with_pending_triggers_is() -> None:
    assert look(declared("half"))["status"] == "half-configured"
    assert look(declared("trig"))["status"] == "installed"


def test_a_pattern_names_what_is_installed_and_not_held() -> None:
    one = declared("nvidia-*", hold=True)
    assert look(one) == {"held": ["nvidia-driver-580"], "unheld": ["nvidia-utils-580"]}
    assert one.desired() == {"unheld": []}
    assert declared("nvidia-*", hold=False).desired() == {"held": []}


def test_a_pattern_that_matches_nothing_is_as_declared() -> None:
    assert look(declared("linux-image-nvidia*", hold=True))["unheld"] == []


def test_a_plain_name_that_shall_only_be_held_is_never_installed() -> None:
    missing = declared("nvidia-driver-590", hold_installed=True)
    assert missing.desired() == {"unheld": []}
    assert look(missing)["unheld"] == []
    assert look(declared("nvidia-utils-580", hold_installed=True))["unheld"] == ["nvidia-utils-580"]


@pytest.mark.parametrize(
    ("wanted", "same"), [("580.95.05-0ubuntu1", True), ("580.95.*", True), ("580", False), ("581.*", False)]
)
def test_a_version_is_compared_exactly_or_by_a_pattern(wanted: str, same: bool) -> None:
    assert declared("x1", version=wanted).same("version", wanted, "580.95.05-0ubuntu1") is same
    assert package.matches("580.95.05-0ubuntu1", wanted) is same


def test_the_versions_that_a_node_can_have_are_read_newest_first() -> None:
    said = (
        " hello |     2.10-3 | http://deb.example bookworm/main amd64 Packages\n"
        " hello |     2.10-3 | http://deb.example bookworm/main Sources\n"
        " hello |     2.10-2 | file:/srv ./ Packages\n"
    )
    assert package.versions(said) == ["2.10-3", "2.10-2"]


def test_what_a_removal_would_take_with_it_is_read() -> None:
    said = "Reading package lists...\nRemv docker-compose [1]\nRemv docker.io:arm64 [2] [x]\n"
    assert package.removed(said) == {"docker-compose", "docker.io"}


def test_lists_are_fresh_until_they_are_old_or_a_source_was_added(tmp_path: Path) -> None:
    root, stamp, sources = str(tmp_path), tmp_path / "run/sparkops/apt-updated", tmp_path / "etc/apt/sources.list.d"
    stamp.parent.mkdir(parents=True)
    sources.mkdir(parents=True)
    os.utime(sources, (500, 500))
    assert not package.fresh(1000, root=root)
    stamp.touch()
    os.utime(stamp, (900, 900))
    assert package.fresh(1000, root=root)
    assert not package.fresh(900 + package.FRESH + 1, root=root)
    (sources / "new.list").touch()
    os.utime(sources / "new.list", (950, 950))
    assert not package.fresh(1000, root=root)


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ({"name": "Bad"}, "package-name-invalid"),
        ({"name": "-x"}, "package-name-invalid"),
        ({"name": "x1", "version": 580.1}, "package-version-invalid"),
        ({"name": "x*"}, "package-pattern-only-held"),
        ({"name": "x*", "hold": True, "version": "1"}, "package-pattern-only-held"),
        ({"name": "x*", "hold": True, "state": "absent"}, "package-pattern-only-held"),
        ({"name": "x1", "hold": "yes"}, "package-hold-invalid"),
    ],
)
def test_declarations_that_apt_cannot_take_are_refused(given: dict[str, Any], id: str) -> None:
    with fails(id):
        declared(**given)
