"""The kind `fabric` on a temporary root: netplan, systemd and ip are small programs that keep their state in files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.plan import Violation
from sparkops.core.states import Unknown
from sparkops.models.fabric.plan import links
from sparkops.resources.fabric import Fabric
from sparkops.worker.calls import Call, Refused
from sparkops.worker.calls import Unknown as Unknown_
from sparkops.worker.facts import network
from sparkops.worker.kinds import fabric, fabric_path
from sparkops.worker.system import netplan
from tests.errors import fails
from tests.worker import sparks

FILE = "/etc/netplan/60-sparkops-fabric.yaml"
WANTED = {"enp1s0f0np0": "192.168.100.10/24", "enP2p1s0f0np0": "192.168.101.10/24"}


class Spark:
    """A node below a folder; `addresses` are what `ip` tells, `applied` what it tells once our file was applied."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, cabled: tuple[str, ...] = ("p0",)) -> None:
        self.root, self.cabled = root, cabled
        sparks.spark(root, cabled)
        (root / "etc/netplan").mkdir(parents=True)
        sparks.put(root, "proc/net/route", "Iface\nenP7s7 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0")
        self.addresses({})
        self.applied(WANTED)
        said = root / "said"
        self.program("ip", f'[ "$1" = -j ] && exec cat {root}/ip.json; echo ip "$@" >> {said}')
        ours = f"{root}/run/netplan/{netplan.OURS}"
        apply = f"[ -e {ours} ] && cp {root}/applied.json {root}/ip.json || cp {root}/before.json {root}/ip.json"
        self.program("netplan", f'echo netplan "$@" >> {said}; if [ "$1" = apply ]; then {apply}; fi')
        for name in ("systemctl", "systemd-run"):
            self.program(name, f'echo {name} "$@" >> {said}; [ "$1" != is-active ] || [ "$2" = qwen.service ]')
        monkeypatch.setenv("PATH", str(root / "bin"), prepend=os.pathsep)
        monkeypatch.setattr(fabric, "CONFIRM", 0.5)
        monkeypatch.setattr(fabric, "LIVE", 0.5)

    def program(self, name: str, script: str) -> None:
        sparks.put(self.root, f"bin/{name}", f"#!/bin/sh\n{script}")
        (self.root / "bin" / name).chmod(0o755)

    def addresses(self, found: dict[str, str], **more: dict[str, Any]) -> None:
        for name in ("ip.json", "before.json"):
            (self.root / name).write_text(json.dumps(self._links(found, more)))

    def applied(self, found: dict[str, str]) -> None:
        (self.root / "applied.json").write_text(json.dumps(self._links(found, {})))

    def _links(self, found: dict[str, str], more: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        names = {"enP7s7": "192.168.1.11/24", **dict.fromkeys(sparks.RAILS, ""), **found}
        links = []
        for name, address in names.items():
            host, _, length = address.partition("/")
            info = [{"local": host, "prefixlen": int(length), "scope": "global"}] if address else []
            link = {"ifname": name, "link_type": "ether", "mtu": 1500, "addr_info": info, "address": f"02:{name}"}
            links.append({**link, **more.get(name, {})})
        extra = [{"ifname": name, "link_type": "ether", **each} for name, each in more.items() if name not in names]
        return [*links, *extra]

    def netplan(self, name: str, text: str) -> None:
        sparks.put(self.root, f"etc/netplan/{name}", text)

    def said(self) -> str:
        file = self.root / "said"
        return file.read_text() if file.exists() else ""

    def text(self, path: str) -> str | None:
        file = self.root / path.lstrip("/")
        return file.read_text() if file.exists() else None


@pytest.fixture
def spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spark:
    return Spark(tmp_path, monkeypatch)


def declared(**more: Any) -> Fabric:
    given = [
        {"slot": each.slot, "port": each.port, "twin": each.twin, "address": each.address}
        for each in links("pair", ["spark-01", "spark-02"], "spark-01", "192.168.100.0/24")
    ]
    return Fabric(node="spark-01", name=FILE, **{"links": given, **more})


def look(spark: Spark, resource: Fabric) -> dict[str, Any]:
    return fabric.observe(resource.ask(), root=str(spark.root))


def differing(resource: Fabric, found: dict[str, Any]) -> list[str]:
    wanted = resource.desired() or {}
    return sorted(key for key in wanted if not resource.same(key, wanted[key], found.get(key)))


def wrong(spark: Spark, resource: Fabric) -> dict[str, Violation]:
    """What is wrong, warnings too, by id."""
    found = look(spark, resource)
    return {each.id: each for each in resource.violations(found, lambda id: Unknown.of("not-answered"))}


def converge(spark: Spark, resource: Fabric, confirm: Callable[[str], None] = lambda token: None) -> None:
    """The node's half of an apply; `confirm` is what the controller does when it is asked."""

    def send(message: dict[str, Any]) -> None:
        if token := (message.get("progress") or {}).get("confirm"):
            confirm(token)

    call = Call(1, send, threading.Event())
    fabric.converge(
        call, resource.ask(), look(spark, resource), dict(resource.desired() or {}), {}, root=str(spark.root)
    )


def confirmed(spark: Spark) -> Callable[[str], None]:
    return lambda token: fabric.confirm(None, {"token": token}, root=str(spark.root))  # type: ignore[arg-type]


def test_the_cabled_port_gets_its_addresses_after_a_fresh_session_has_confirmed(spark: Spark) -> None:
    resource = declared()
    assert differing(resource, look(spark, resource)) == ["cable/0", "cable/1", "lasting"]

    converge(spark, resource, confirmed(spark))

    assert differing(resource, look(spark, resource)) == []
    assert look(spark, resource)["names"] == {"cable/0": "enp1s0f0np0", "cable/1": "enP2p1s0f0np0"}
    assert spark.text(f"/run/netplan/{netplan.OURS}") is None, "nothing of the trial is left"
    assert (spark.root / FILE[1:]).stat().st_mode & 0o777 == 0o600
    assert "systemctl stop sparkops-fabric-undo.timer" in spark.said()


def test_without_confirmation_the_node_takes_it_back(spark: Spark) -> None:
    with fails("fabric-not-confirmed", Refused):
        converge(spark, declared())

    assert spark.text(FILE) is None and spark.text(f"/run/netplan/{netplan.OURS}") is None
    assert look(spark, declared())["cable/0"] == []
    assert "ip address del 192.168.100.10/24 dev enp1s0f0np0" in spark.said()


def test_the_timer_is_armed_before_anything_is_changed_and_takes_it_back_alone(spark: Spark) -> None:
    """The worker is gone, the connection is cut: what systemd runs is the script alone."""
    seen: list[str] = []

    def lost(token: str) -> None:
        seen.append(spark.said())
        assert os.system(f"/bin/sh {spark.root}/run/sparkops/fabric/undo.sh") == 0
        with fails("fabric-trial-over", Refused):
            confirmed(spark)(token)

    with fails("fabric-not-confirmed", Refused):
        converge(spark, declared(), lost)

    before = seen[0].splitlines()
    armed = next(number for number, line in enumerate(before) if line.startswith("systemd-run"))
    assert armed < before.index("netplan generate") < before.index("netplan apply")
    assert "AccuracySec=1s" in before[armed]
    assert spark.text(FILE) is None and look(spark, declared())["cable/0"] == []


def test_a_confirmed_change_is_not_taken_back_by_a_late_timer(spark: Spark) -> None:
    converge(spark, declared(), confirmed(spark))
    assert os.system(f"/bin/sh {spark.root}/run/sparkops/fabric/undo.sh") == 0
    assert differing(declared(), look(spark, declared())) == []


def test_a_confirmation_that_has_begun_in_time_is_waited_for(spark: Spark, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step failed, and the change was lasting."""
    monkeypatch.setattr(fabric, "CONFIRM", -1.0)
    state = spark.root / "run/sparkops/fabric"
    state.mkdir(parents=True)
    (state / "confirming.json").write_text("{}")
    done = state / "confirmed.json"
    monkeypatch.setattr("time.sleep", lambda _: (state / "confirming.json").rename(done))
    fabric._wait_for_confirmation(str(spark.root))


def test_a_trial_is_marked_only_once_something_would_take_it_back(spark: Spark) -> None:
    """A worker that was killed before the timer was armed left a trial that ran for ever."""
    spark.program("systemd-run", f"[ ! -e {spark.root}/run/sparkops/fabric/trial.json ] || exit 7")
    converge(spark, declared(), confirmed(spark))


def test_a_reboot_in_the_middle_ends_the_trial(spark: Spark) -> None:
    def reboot(token: str) -> None:
        shutil.rmtree(spark.root / "run")
        shutil.copy(spark.root / "before.json", spark.root / "ip.json")

    with fails("fabric-not-confirmed", Refused):
        converge(spark, declared(), reboot)
    assert spark.text(FILE) is None


def test_a_trial_is_no_declaration(spark: Spark) -> None:
    text = netplan.text(WANTED, None, netplan.TRIAL)
    sparks.put(spark.root, f"run/netplan/{netplan.OURS}", text)
    spark.addresses(WANTED)
    assert differing(declared(), look(spark, declared())) == ["lasting"]


def test_addresses_that_do_not_come_up_are_taken_back(spark: Spark) -> None:
    spark.applied({"enp1s0f0np0": "192.168.100.10/24"})
    with fails("fabric-address-not-live", Refused) as refused:
        converge(spark, declared())
    assert refused.value.values["addresses"] == ["192.168.101.10/24 on enP2p1s0f0np0"]  # type: ignore[union-attr]
    assert spark.text(f"/run/netplan/{netplan.OURS}") is None


def test_a_netplan_that_refuses_changes_nothing(spark: Spark) -> None:
    spark.program("netplan", 'echo "Error in network definition" >&2; exit 1')
    with fails("program-failed", Refused):
        converge(spark, declared())
    assert spark.text(FILE) is None and spark.text(f"/run/netplan/{netplan.OURS}") is None


def test_an_ip_that_hangs_after_the_change_is_no_confirmation(spark: Spark, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's network lock is wedged by the very change."""
    monkeypatch.setattr(network, "LIMIT", 0.3)
    apply = (spark.root / "bin/netplan").read_text()
    hangs = "#!/bin/sh\nexec sleep 60\n"
    spark.program(
        "netplan",
        apply + f'\n[ "$1" != apply ] || [ -e {spark.root}/hung ] || '
        f"{{ touch {spark.root}/hung; printf '{hangs}' > {spark.root}/bin/ip; }}",
    )
    with fails("program-timeout", Unknown_):
        converge(spark, declared())
    assert spark.text(f"/run/netplan/{netplan.OURS}") is None and spark.text(FILE) is None


def test_a_timer_that_was_faster_than_the_engines_stopped_ends_the_trial(spark: Spark) -> None:
    """From then on nothing would take the change back, so that it is not made."""
    sparks.put(spark.root, "etc/systemd/system/qwen.service", "ExecStart=launcher.py /etc/sparkops/services/qwen.json")
    sparks.put(spark.root, "etc/sparkops/services/qwen.json", json.dumps({"argv": ["--nnodes", "2"]}))
    undo = f"/bin/sh {spark.root}/run/sparkops/fabric/undo.sh"
    spark.program("systemctl", f'echo systemctl "$@" >> {spark.root}/said; [ "$1" != stop ] || {undo}; exit 0')
    with fails("fabric-trial-over", Refused):
        converge(spark, declared())
    assert look(spark, declared())["cable/0"] == [] and spark.text(FILE) is None


def test_engines_over_several_nodes_stop_before_and_start_after(spark: Spark) -> None:
    for name, argv in (("qwen", ["--nnodes", "2"]), ("small", []), ("idle", ["--nnodes", "2"])):
        spec = f"/etc/sparkops/services/{name}.json"
        sparks.put(spark.root, f"etc/systemd/system/{name}.service", f"ExecStart=launcher.py {spec}")
        sparks.put(spark.root, spec[1:], json.dumps({"argv": argv}))

    converge(spark, declared(), confirmed(spark))

    said = spark.said().splitlines()
    stopped, started = said.index("systemctl stop qwen.service"), said.index("systemctl start --no-block qwen.service")
    assert stopped < said.index("netplan apply") < started
    assert not [line for line in said if "start" in line and ("small" in line or "idle" in line)]


def test_an_engine_of_which_systemd_does_not_tell_whether_it_runs_is_not_cut_off(
    spark: Spark, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "/etc/sparkops/services/qwen.json"
    sparks.put(spark.root, "etc/systemd/system/qwen.service", f"ExecStart=launcher.py {spec}")
    sparks.put(spark.root, spec[1:], json.dumps({"argv": ["--nnodes", "2"]}))
    monkeypatch.setenv("PATH", str(spark.root / "none"))
    with fails("program-missing", Unknown_):
        list(fabric.units_on_rails(str(spark.root)))


NVIDIA = """\
network:
  version: 2
  ethernets:
    enp1s0f0np0: {dhcp4: no, addresses: [192.168.100.10/24]}
    enP2p1s0f0np0: {dhcp4: no, addresses: [192.168.101.10/24]}
"""


def test_a_network_that_another_tool_made_right_is_left_as_it_is(spark: Spark) -> None:
    spark.netplan("40-cx7.yaml", NVIDIA)
    spark.addresses(WANTED)
    assert differing(declared(), look(spark, declared())) == []
    assert wrong(spark, declared()) == {}


def test_other_addresses_in_a_file_of_others_are_named_and_with_adopt_set_aside(spark: Spark) -> None:
    spark.netplan("99-nvidia-sync-cluster.yaml", NVIDIA.replace("192.168", "10.20"))
    found = wrong(spark, declared())
    assert found["fabric-netplan-other"].blocks
    assert found["fabric-netplan-other"].message.args["file"] == "99-nvidia-sync-cluster.yaml"

    resource = declared(adopt=True)
    assert wrong(spark, resource) == {}
    converge(spark, resource, confirmed(spark))
    assert differing(resource, look(spark, resource)) == []
    assert spark.text("/etc/netplan/99-nvidia-sync-cluster.yaml") is None
    assert spark.text("/etc/netplan/99-nvidia-sync-cluster.yaml.before-sparkops") is not None


def test_a_file_that_was_to_be_set_aside_stays_where_the_change_is_taken_back(spark: Spark) -> None:
    spark.netplan("40-cx7.yaml", NVIDIA.replace("192.168", "10.20"))
    with fails("fabric-not-confirmed", Refused):
        converge(spark, declared(adopt=True))
    assert spark.text("/etc/netplan/40-cx7.yaml") is not None
    assert spark.text("/run/netplan/40-cx7.yaml") is None


def test_a_file_with_other_things_in_it_is_not_set_aside(spark: Spark) -> None:
    text = NVIDIA.replace("192.168", "10.20") + "    enP7s7: {dhcp4: yes}\n"
    spark.netplan("40-cx7.yaml", text)
    assert "fabric-netplan-mixed" in wrong(spark, declared(adopt=True))


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("{ethernets: {all: {match: {name: 'en*'}, dhcp4: true}}}", "fabric-interface-matched"),
        ("{ethernets: {all: {match: {driver: mlx5_core}, dhcp4: true}}}", "fabric-interface-matched"),
        ("{ethernets: {x: {match: {macaddress: '02:enp1s0f0np0'}}}}", "fabric-interface-matched"),
        ("{ethernets: {x: {match: {name: enp1s0f0np0}, set-name: fast0}}}", "fabric-interface-renamed"),
        ("{bonds: {bond0: {interfaces: [enp1s0f0np0, enP2p1s0f0np0]}}}", "fabric-interface-stacked"),
        ("{vlans: {v7: {id: 7, link: enp1s0f0np0}}}", "fabric-interface-stacked"),
        ("{bridges: {br0: {interfaces: [enP2p1s0f0np0]}}}", "fabric-interface-stacked"),
    ],
)
def test_what_netplan_says_otherwise_than_by_the_exact_name_is_refused(spark: Spark, text: str, id: str) -> None:
    spark.netplan("10-mine.yaml", f"network: {text}\n")
    assert wrong(spark, declared())[id].blocks


@pytest.mark.parametrize(
    "text",
    [
        "{ethernets: {x: {match: {name: 'eth*'}, dhcp4: true}}}",
        "{ethernets: {x: {match: {macaddress: '02:00:00:00:00:09'}}}}",
        "{ethernets: {x: {match: {driver: r8127}}}}",
        "{bonds: {bond0: {interfaces: [eth0, eth1]}}}",
        "{wifis: {wlP9s9: {access-points: {home: {password: secret}}}}}",
    ],
)
def test_what_netplan_says_of_other_interfaces_is_no_matter(spark: Spark, text: str) -> None:
    spark.netplan("10-mine.yaml", f"network: {text}\n")
    assert wrong(spark, declared()) == {}
    assert "secret" not in json.dumps(netplan.files(str(spark.root)))


def test_a_bond_and_a_vlan_that_netplan_does_not_know_are_refused(spark: Spark) -> None:
    spark.addresses(
        {}, enp1s0f0np0={"master": "bond0"}, fast={"link": "enP2p1s0f0np0", "linkinfo": {"info_kind": "vlan"}}
    )
    found = look(spark, declared())["faults"]
    assert [(each["args"]["interface"], each["args"]["upper"]) for each in found] == [
        ("enp1s0f0np0", "bond0"),
        ("enP2p1s0f0np0", "fast"),
    ]


def test_files_that_cannot_be_read_are_unknown(spark: Spark) -> None:
    spark.netplan("10-broken.yaml", "network: [")
    with fails("netplan-unreadable", Unknown_):
        look(spark, declared())


def test_two_kinds_of_cable_need_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Spark(tmp_path, monkeypatch, ("p0", "p1"))
    assert wrong(both, declared())["fabric-port-ambiguous"].blocks
    given = [
        {"slot": f"p1/{twin}", "port": "p1", "twin": twin, "address": f"192.168.10{twin}.10/24"} for twin in (0, 1)
    ]
    assert look(both, declared(links=given))["names"] == {"p1/0": "enp1s0f1np1", "p1/1": "enP2p1s0f1np1"}


def test_the_interface_of_management_is_not_changed(spark: Spark) -> None:
    sparks.put(spark.root, "proc/net/route", "Iface\nenp1s0f0np0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0")
    assert wrong(spark, declared())["fabric-session-interface"].blocks
    spark.addresses(WANTED)
    spark.netplan("40-cx7.yaml", NVIDIA)
    assert "fabric-session-interface" not in wrong(spark, declared()), "what is right needs no change"


def test_twins_in_one_subnet_are_a_named_fault(spark: Spark) -> None:
    spark.addresses({"enp1s0f0np0": "192.168.100.1/24", "enP2p1s0f0np0": "192.168.100.2/24"})
    found = wrong(spark, declared(links=()))
    assert found["fabric-twins-share-subnet"].message.args["twins"].startswith("enp1s0f0np0 and enP2p1s0f0np0")


def test_a_slow_link_is_a_warning_unless_the_speed_is_declared(spark: Spark) -> None:
    sparks.put(spark.root, "sys/class/net/enp1s0f0np0/speed", "100000")
    assert wrong(spark, declared())["fabric-link-slow"].severity == "warning"
    assert wrong(spark, declared(speed=200000))["fabric-link-slow"].blocks
    assert "fabric-link-slow" not in wrong(spark, declared(speed=100000))


def test_two_lanes_are_told(spark: Spark) -> None:
    sparks.put(spark.root, "sys/devices/0002:01:00.0/current_link_width", "2")
    found = wrong(spark, declared())["fabric-pcie-narrow"]
    assert (found.message.args["interface"], found.message.args["lanes"]) == ("enP2p1s0f0np0", 2)


def test_the_mtu_is_left_alone_unless_it_is_declared(spark: Spark) -> None:
    assert "mtu" not in netplan.text(WANTED, None)
    resource = declared(mtu=9000)
    assert "cable/0.mtu" in differing(resource, look(spark, resource))
    assert "      mtu: 9000\n" in netplan.text(WANTED, 9000)


def test_interfaces_of_another_card_are_named(spark: Spark) -> None:
    assert wrong(spark, declared(interfaces={"p0": ["eth8", "eth9"]}))["fabric-interface-absent"].blocks
    named = {"p0": ["enp1s0f1np1", "enP2p1s0f1np1"], "p1": []}
    sparks.put(spark.root, "sys/class/net/enp1s0f1np1/carrier", "1")
    assert look(spark, declared(interfaces=named))["names"]["cable/0"] == "enp1s0f1np1"


@pytest.mark.parametrize(
    ("now", "far", "asked"),
    [(None, "same", False), (None, "silent", False), (None, "another", True), (False, "same", True)],
    ids=["not known", "silent", "other end changed", "good"],
)
def test_a_cable_that_was_found_broken_stays_so_until_a_measurement_says_otherwise(
    spark: Spark, now: bool | None, far: str, asked: bool
) -> None:
    """Under load TCP tells nothing, and an engine must not be started for that."""
    spark.addresses(WANTED)
    line = {"twin": 0, "address": "192.168.100.10", "peer": "192.168.100.11"}
    ask: Any = {"peer": "b", "lines": [line], "folder": str(spark.root / "kept")}
    ends = [["192.168.100.11", "192.168.100.10", "x", 9000, 200000, "aa"]]
    other = {"same": ends, "silent": None, "another": [[*ends[0][:3], 1500, *ends[0][4:]]]}[far]
    call, why = Call(1, lambda message: None, threading.Event()), {"id": "fabric-link-degraded", "args": {}}
    told: Any = {"why": why, "gbits": 13.0, "method": "rdma"}
    fabric_path.converge(call, ask, {}, {}, {**told, "far": ends, "broken": True}, root=str(spark.root))
    assert fabric_path.observe(ask, root=str(spark.root))["asked"] is False
    refused = fails("fabric-path-still-broken", Refused) if not asked else contextlib.nullcontext()
    with refused:
        fabric_path.converge(call, ask, {}, {}, {**told, "far": other, "broken": now}, root=str(spark.root))
    assert fabric_path.observe(ask, root=str(spark.root))["asked"] is asked
