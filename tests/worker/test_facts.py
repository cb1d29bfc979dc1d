"""Facts out of texts as GB10 and DGX OS print them, and groups on a temporary root with real programs.

The nvidia-smi texts follow public reports of DGX Spark machines (driver 580.126.09 and 580.142); the CDI text is what
nvidia-ctk writes, shortened.
"""

import os
import stat
import subprocess
from pathlib import Path

import pytest

import sparkops
from sparkops.programs import mounts
from sparkops.programs.launch import listening
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.facts import engine, gpu, gpu_users, keys, network, packages, pci, system
from sparkops.worker.kinds import rank, require
from sparkops.worker.requests import facts
from tests.errors import fails

GB10 = (
    "NVIDIA GB10, 580.142, 12.1, GPU-5b2c7f0e-9a14-4c3d-8e6f-1d2a3b4c5d6e, "
    "0000000F:01:00.0, Enabled, 208, 3003, 3.12, 36, 0\n"
)
TABLE = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.126.09             Driver Version: 580.126.09     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
|   0  NVIDIA GB10                    On  |   0000000F:01:00.0 Off |                  N/A |
| N/A   36C    P8              3W /  N/A  | Not Supported          |      0%      Default |
"""
NVRM = """\
NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.142  Release Build  (dvs-builder@U22)  Tue Mar  3 2026
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04.1)
"""
CDI = """\
---
cdiVersion: 0.5.0
containerEdits:
  mounts:
  - containerPath: /usr/lib/aarch64-linux-gnu/libcuda.so.580.142
    hostPath: /usr/lib/aarch64-linux-gnu/libcuda.so.580.142
  - containerPath: /usr/lib/aarch64-linux-gnu/libnvidia-ml.so.580.142
    hostPath: /usr/lib/aarch64-linux-gnu/libnvidia-ml.so.580.142
kind: nvidia.com/gpu
"""
MEMINFO = """\
MemTotal:       127601452 kB
MemFree:        26000000 kB
MemAvailable:   120000000 kB
Cached:         90000000 kB
SwapTotal:      16777212 kB
SwapFree:       16142332 kB
CmaTotal:          65536 kB
HugePages_Total:       0
"""
OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04.4 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION_CODENAME=noble
ID=ubuntu
"""
DPKG = (
    "linux-image-6.17.0-1014-nvidia\t6.17.0-1014.14\thold\tinstalled\n"
    "nvidia-driver-580-open\t580.142-0ubuntu0.24.04.1\tinstall\tinstalled\n"
    "libnvidia-compute-580\t580.142-0ubuntu0.24.04.1\thold\tinstalled\n"
    "nvidia-driver-550\t550.1-1\tdeinstall\tconfig-files\n"
    "vim\t2:9.1\tinstall\tinstalled\n"
)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def put(root: Path, path: str, content: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the only nvidia-smi, nvidia-ctk and dpkg-query that can be found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def smi(folder: Path, query: str, table: str = TABLE, status: int = 0) -> None:
    program(
        folder,
        "nvidia-smi",
        f"case \"$1\" in --query*) printf '%s' '{query}';; *) printf '%s' '{table}';; esac\nexit {status}\n",
    )


def test_a_gb10_has_a_name_a_driver_and_a_compute_capability() -> None:
    (card,) = gpu.parse_query(GB10)
    assert card["name"] == "NVIDIA GB10"
    assert card["driver_version"] == "580.142"
    assert card["compute_capability"] == "12.1"
    assert card["persistence"] is True
    assert card["sm_clock_mhz"] == 208.0


@pytest.mark.parametrize("word", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", ""])
def test_what_the_gpu_does_not_tell_is_none(word: str) -> None:
    (card,) = gpu.parse_query(GB10.replace("3.12", word))
    assert card["power_watts"] is None


@pytest.mark.parametrize("said", [TABLE, "NVML version        : 580.142\nCUDA Version        : 13.0\n"])
def test_the_cuda_version_stands_in_the_header(said: str) -> None:
    assert gpu.parse_cuda(said) == "13.0"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (NVRM, "580.142"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Thu", "580.82.07"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05\n", "580.95.05"),
        ("", None),
    ],
)
def test_the_loaded_module_tells_its_version_in_either_flavour(line: str, version: str | None) -> None:
    assert gpu.running_module(line) == version


def test_a_node_without_nvidia_smi_has_no_gpu_and_says_why(tmp_path: Path, programs: Path) -> None:
    found = facts.Node(str(tmp_path)).group("gpu")
    assert found["present"] is False
    assert found["error"] == "nvidia-smi is not installed"


def test_a_driver_that_does_not_answer_is_absent_with_its_own_words(tmp_path: Path, programs: Path) -> None:
    put(tmp_path, "/proc/driver/nvidia/version", NVRM)
    smi(programs, "Failed to initialize NVML: Driver/library version mismatch", status=18)
    found = facts.Node(str(tmp_path)).group("gpu")
    assert found["present"] is False
    assert found["driver_version"] == "580.142"
    assert "Driver/library version mismatch" in found["error"]


def test_a_gpu_is_asked_for_once_however_many_groups_need_it(tmp_path: Path, programs: Path) -> None:
    smi(programs, GB10)
    log = tmp_path / "asked"
    script = (programs / "nvidia-smi").read_text().replace("#!/bin/sh\n", f'#!/bin/sh\necho "$1" >> {log}\n')
    (programs / "nvidia-smi").write_text(script)
    node = facts.Node(str(tmp_path))
    asks = {name: {"group": name, "keys": ["driver_version"]} for name in ("gpu", "cdi")}
    require.look(node, {**asks, "again": asks["gpu"]})
    assert len(log.read_text().splitlines()) == 2


def test_a_rank_asks_for_its_gpu_once(tmp_path: Path, programs: Path) -> None:
    log = tmp_path / "asked"
    program(programs, "nvidia-smi", f"echo \"$1\" >> {log}\nprintf '%s' '{GB10}'\n")
    found = rank.observe({"container": "qwen", "kept": None}, str(tmp_path))
    assert found["driver"] == "580.142"
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (CDI, "fresh"),
        (CDI.replace("580.142", "580.95.05"), "stale"),
        (CDI.replace("libcuda.so.580.142", "libcuda.so.580.95.05"), "stale"),
        ("kind: nvidia.com/gpu\n", "unproven"),
    ],
)
def test_a_cdi_specification_is_fresh_when_it_names_the_running_driver(
    tmp_path: Path, programs: Path, content: str, state: str
) -> None:
    put(tmp_path, "/etc/cdi/nvidia.yaml", content)
    found = gpu.cdi(str(tmp_path), "580.142")
    assert found["state"] == state
    assert bool(found["stale"]) == (state == "stale")


def test_a_cdi_specification_of_another_vendor_does_not_count(tmp_path: Path, programs: Path) -> None:
    put(tmp_path, "/etc/cdi/other.json", '{"kind": "vendor.com/net"}')
    assert gpu.cdi(str(tmp_path), "580.142")["state"] == "none"


def test_memory_is_read_in_bytes_from_meminfo() -> None:
    found = system.parse_meminfo(MEMINFO)
    assert found["total_bytes"] == 127601452 * 1024
    assert found["available_bytes"] == 120000000 * 1024
    assert found["cma_total_bytes"] == 65536 * 1024


def test_a_meminfo_without_a_total_is_unknown_rather_than_zero() -> None:
    with fails("meminfo-field-missing", Unknown):
        system.parse_meminfo("")


def test_the_operating_system_is_named_and_the_machine_id_is_not_told(tmp_path: Path) -> None:
    put(tmp_path, "/etc/os-release", OS_RELEASE)
    put(tmp_path, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    put(tmp_path, "/etc/dgx-release", 'DGX_SWBUILD_VERSION="7.2.3"\nDGX_OTA_VERSION="7.4.0"\nDGX_OTA_VERSION="7.5.0"\n')
    put(tmp_path, "/proc/sys/kernel/osrelease", "6.17.0-1014-nvidia\n")
    found = system.system(str(tmp_path))
    assert found["release"] == "ubuntu 24.04"
    assert found["dgx_os"] == "7.5.0"
    assert found["kernel"] == "6.17.0-1014-nvidia"
    assert len(found["machine"]) == 16
    assert "0123456789abcdef" not in str(found)


def test_free_space_is_told_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    found = system.disk(str(tmp_path), "/models/qwen")
    assert found["exists"] is False
    assert 0 < found["free_bytes"] <= found["total_bytes"]
    assert found["filesystem"]


def _mount(table: str, path: str) -> tuple[str, str] | None:
    found = mounts.holding(table, path)
    return (found.point, found.fstype) if found else None


def test_the_longest_mount_point_holds_a_path() -> None:
    table = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /mnt/my\\040disk rw shared:1 - xfs /dev/b rw\n"
        "3 1 8:3 / /mnt/my rw - tmpfs tmpfs rw\n"
    )
    assert _mount(table, "/mnt/my disk/x") == ("/mnt/my disk", "xfs")
    assert _mount(table, "/mnt/mydisk") == ("/", "ext4")


def test_pid_1_started_later_than_the_kernel_booted(tmp_path: Path) -> None:
    put(tmp_path, "/proc/stat", "cpu 1 2 3\nbtime 1795549183\n")
    ticks = 42 * os.sysconf("SC_CLK_TCK")
    put(tmp_path, "/proc/1/stat", f"1 (system d) S {' '.join(['0'] * 18)} {ticks} 0 0")
    found = system.uptime(str(tmp_path))
    assert found["pid1_started"] - found["booted"] == 42


def test_the_default_target_is_the_link_that_the_administrator_set(tmp_path: Path) -> None:
    for folder, target in (("etc", "multi-user"), ("usr/lib", "graphical")):
        place = tmp_path / folder / "systemd/system"
        place.mkdir(parents=True)
        (place / "default.target").symlink_to(f"/lib/systemd/system/{target}.target")
    assert system.desktop(str(tmp_path))["default_target"] == "multi-user.target"


def test_firmware_that_dmi_does_not_tell_is_none(tmp_path: Path) -> None:
    put(tmp_path, "/sys/class/dmi/id/product_name", "NVIDIA_DGX_Spark\n")
    put(tmp_path, "/sys/class/dmi/id/bios_version", "5.36_0ACUM023\n")
    found = system.firmware(str(tmp_path))
    assert (found["product_name"], found["bios_version"]) == ("NVIDIA_DGX_Spark", "5.36_0ACUM023")
    assert found["sys_vendor"] is None


def test_packages_are_shared_out_into_held_and_unheld() -> None:
    found = packages.parse_packages(DPKG, packages.PLATFORM)
    assert found["held"] == ["libnvidia-compute-580", "linux-image-6.17.0-1014-nvidia"]
    assert found["unheld"] == ["nvidia-driver-580-open"]


def test_no_reboot_is_due_when_the_newest_kernel_and_the_installed_driver_run(tmp_path: Path) -> None:
    put(tmp_path, "/proc/sys/kernel/osrelease", "6.17.0-1014-nvidia")
    put(tmp_path, "/boot/vmlinuz-6.17.0-1008-nvidia", "")
    put(tmp_path, "/boot/vmlinuz-6.17.0-1014-nvidia", "")
    installed = {"libnvidia-compute-580": "580.142-0ubuntu0.24.04.1"}
    found = packages.reboot(str(tmp_path), {"module_version": "580.142"}, installed)
    assert found["reasons"] == []


def test_every_reason_for_a_reboot_is_told(tmp_path: Path) -> None:
    put(tmp_path, "/proc/sys/kernel/osrelease", "6.17.0-1014-nvidia")
    for version in ("6.17.0-1014-nvidia", "6.17.0-1026-nvidia", "6.18.0-1-generic"):
        put(tmp_path, f"/boot/vmlinuz-{version}", "")
    put(tmp_path, "/run/reboot-required", "*** System restart required ***")
    put(tmp_path, "/run/reboot-required.pkgs", "linux-base\nlinux-base\n")
    installed = {"nvidia-driver-580-open": "580.159.03-0ubuntu1"}
    found = packages.reboot(str(tmp_path), {"module_version": "580.142"}, installed)
    assert found["due"]
    assert found["reasons"] == [
        "linux-base asked for it",
        "kernel 6.17.0-1014-nvidia runs, 6.17.0-1026-nvidia is installed",
        "driver 580.142 runs, 580.159.03 is installed",
    ]


def test_a_kernel_that_is_not_installed_here_says_nothing_about_a_reboot() -> None:
    assert packages.newest_kernel(["6.17.0-1014-nvidia"], "6.1.0-9-amd64") is None


def test_the_docker_engine_tells_how_a_container_gets_the_gpu() -> None:
    info = {
        "ServerVersion": "29.2.1",
        "Driver": "overlayfs",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "Runtimes": {"runc": {}, "nvidia": {}},
        "DefaultRuntime": "runc",
        "CDISpecDirs": ["/etc/cdi"],
        "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}],
        "CgroupVersion": "2",
    }
    found = engine.parse_info(info, {"ApiVersion": "1.53", "Components": [{"Name": "containerd", "Version": "2.2"}]})
    assert found["gpu_access"] == ["runtime", "cdi"]
    assert found["snapshotter"] is True
    assert found["containerd"] == "2.2"


def test_no_engine_is_absence_with_a_reason(tmp_path: Path) -> None:
    found = engine.docker(str(tmp_path))
    assert found["present"] is False
    assert found["reason"]["id"] == "docker-not-running"


def test_interfaces_come_with_their_global_addresses() -> None:
    said = """[{"ifname":"lo","link_type":"loopback","addr_info":[]},
      {"ifname":"enP7s7","link_type":"ether","mtu":1500,"operstate":"UP","address":"02:00:00:00:00:01",
       "addr_info":[{"local":"192.168.1.11","prefixlen":24,"scope":"global"},
                    {"local":"fe80::1","prefixlen":64,"scope":"link"}]}]"""
    found = network.parse_addresses(said)
    assert list(found) == ["enP7s7"]
    assert found["enP7s7"]["addresses"] == ["192.168.1.11/24"]


def test_the_default_route_with_the_lowest_metric_wins() -> None:
    table = (
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "wlP9s9 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0\n"
        "enP7s7 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n"
    )
    assert network.default_of(table) == "enP7s7"


def test_one_unknown_group_leaves_the_others_known(tmp_path: Path, programs: Path) -> None:
    put(tmp_path, "/proc/meminfo", MEMINFO)
    found = facts.observe({"groups": ["memory", "packages"], "root": str(tmp_path)})
    assert found["memory"]["swap_total_bytes"] == 16777212 * 1024
    assert found["packages"] == {"$unknown": {"id": "program-missing", "args": {"program": "dpkg-query"}}}


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    with fails("facts-group-unknown", Refused) as refused:
        facts.Node().group("gpus")
    assert "gpu" in refused.value.values["groups"]


def test_a_requirement_gets_only_its_keys_and_none_for_a_missing_one(tmp_path: Path) -> None:
    put(tmp_path, "/proc/meminfo", MEMINFO)
    asks = {"a": {"group": "memory", "keys": ["total_bytes", "colour"]}}
    assert require.look(facts.Node(str(tmp_path)), asks) == {"a": {"total_bytes": 127601452 * 1024, "colour": None}}


def test_a_requirement_on_an_unknown_group_is_unknown(tmp_path: Path, programs: Path) -> None:
    answer = require.look(facts.Node(str(tmp_path)), {"a": {"group": "packages", "keys": ["unheld"]}})["a"]
    assert isinstance(answer, Unknown)


def test_a_requirement_that_expects_nothing_looks_at_nothing(programs: Path) -> None:
    assert require.look(facts.Node(), {"a": {"group": "packages", "keys": []}}) == {"a": {}}


def test_all_addresses_of_a_node_stand_together_without_their_prefix(tmp_path: Path, programs: Path) -> None:
    link = '{"ifname":"enp1s0f0np0","addr_info":[{"local":"192.168.100.1","prefixlen":24,"scope":"global"}]}'
    program(programs, "ip", f"printf '[{link}]'\n".replace('"', '\\"').replace("'", '"'))
    put(tmp_path, "/sys/class/net/enp1s0f0np0/speed", "200000\n")
    found = network.network(str(tmp_path))
    assert found["addresses"] == ["192.168.100.1"]
    assert found["interfaces"]["enp1s0f0np0"]["speed_mbps"] == 200000


@pytest.mark.parametrize(
    ("clock", "used", "told"),
    [
        (799, 96, "799 MHz and 3.12 W at 96 % utilisation"),
        (2281, 96, None),
        (208, 0, None),
        ("[N/A]", 96, None),
        (799, "[N/A]", None),
    ],
)
def test_a_gpu_at_work_that_stays_at_its_low_clock_is_stuck(clock: object, used: object, told: str | None) -> None:
    line = GB10.replace("Enabled, 208,", f"Enabled, {clock},").replace("36, 0", f"36, {used}")
    assert gpu.stuck(gpu.parse_query(line)[0]) == told


def test_memory_that_stands_in_no_counter_is_what_a_driver_keeps() -> None:
    counters = {"MemTotal": 100, "MemFree": 10, "Buffers": 1, "Cached": 20, "AnonPages": 5, "Slab": 4, "Shmem": 9}
    assert gpu_users.unaccounted(counters) == 60
    assert gpu_users.unaccounted({"MemTotal": 100}) is None


def test_who_computes_is_told_by_process_ids() -> None:
    assert list(gpu_users.parse_processes("412, python\n7, [N/A]\n412, python\nNo running processes\n").items()) == [
        (7, "[N/A]"),
        (412, "python"),
    ]


def test_who_computes_on_the_gpu_and_is_no_service_is_foreign(tmp_path: Path, programs: Path) -> None:
    smi(programs, f"{os.getpid()}, python\n")
    put(tmp_path, "/proc/meminfo", "MemTotal: 100 kB\nMemFree: 1 kB\n")
    found = facts.Node(str(tmp_path)).group("gpu_users")
    assert found["count"] == 1
    assert f"process {os.getpid()} (" in found["foreign"][0]
    assert found["unaccounted_bytes"] is None, "somebody computes"


def test_a_process_that_ends_while_it_is_looked_at_is_no_foreign_one(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine of a service that was just stopped was a foreign process by the name of unknown."""
    smi(programs, "412, VLLM::EngineCore\n")
    (tmp_path / "412").mkdir()
    monkeypatch.setattr(listening, "PROC", str(tmp_path))

    def ended(pid: int) -> listening.Owner:
        (tmp_path / "412").rmdir()
        return listening.Owner(pid, "unknown", "", "")

    monkeypatch.setattr(listening, "owner", ended)
    found = gpu_users.gpu_users("/")
    assert (found["count"], found["foreign"]) == (0, [])
    assert found["unaccounted_bytes"] is None, "its memory comes back slowly"


def test_who_computes_is_not_nobody_where_nvidia_smi_fails_without_a_word(programs: Path) -> None:
    smi(programs, "", status=9)
    assert gpu_users.computing() == ({}, "nvidia-smi ended with 9")


def test_errors_of_pcie_devices_are_told_by_their_counters(tmp_path: Path) -> None:
    folder = "/sys/bus/pci/devices/0000:01:00.0"
    for name, content in {
        "vendor": "0x15b3",
        "device": "0x1021",
        "aer_dev_fatal": "Undefined 0\nDLP 2\nTOTAL_ERR_FATAL 2",
        "aer_dev_nonfatal": "TOTAL_ERR_NONFATAL 0",
    }.items():
        put(tmp_path, f"{folder}/{name}", content)
    put(tmp_path, "/sys/bus/pci/devices/0000:02:00.0/aer_dev_fatal", "TOTAL_ERR_FATAL 0")
    assert pci.pci(str(tmp_path)) == {"errors": ["0000:01:00.0 (15b3:1021): 2 fatal"], "devices": 2}
    assert pci.pci(str(tmp_path / "nowhere")) == {"errors": [], "devices": 0}


@pytest.mark.parametrize("sort", [("-t", "ed25519"), ("-t", "rsa", "-b", "2048"), ("-t", "ed25519", "-N", "a phrase")])
def test_a_private_key_is_known_by_its_public_half(tmp_path: Path, sort: tuple[str, ...]) -> None:
    folder = tmp_path / "home/ada/.ssh"
    folder.mkdir(parents=True)
    phrase = () if "-N" in sort else ("-N", "")
    subprocess.run(["ssh-keygen", "-q", *sort, *phrase, "-f", str(folder / "id_x")], check=True)
    said = subprocess.run(["ssh-keygen", "-l", "-f", str(folder / "id_x.pub")], check=True, capture_output=True)
    found = keys.keys(str(tmp_path))
    assert found == {"host": [], "private": [said.stdout.decode().split()[1]]}


@pytest.mark.parametrize(
    "content", ["", "x", *(f"{keys.BEGIN}\n{each}\n-" for each in ("", "!!", "b3BlbnNzaC1rZXktdjEA"))]
)
def test_what_is_no_key_has_no_fingerprint(content: str) -> None:
    assert keys.of_private(content) == ""
    assert keys.fingerprint(content) == ""


@pytest.mark.parametrize("said", ["\x1f0, x\n", "\u00b2, x\n", "\u0663, x\n", "1 2, x\n", "-1, x\n", ", x\n", "\n"])
def test_what_is_no_process_id_is_passed_over(said: str) -> None:
    assert set(gpu_users.parse_processes(said)) <= {0, 3}


def test_what_counts_as_a_number_is_what_int_reads() -> None:
    """`str.isdigit` takes \u00b2, and `int` refuses it: what comes from outside ended in a traceback."""
    sources = Path(sparkops.__file__).parent.rglob("*.py")
    assert [str(path) for path in sources if "isdigit(" in path.read_text(encoding="utf-8")] == []
