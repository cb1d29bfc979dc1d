"""The controller's half runs on macOS too: nothing in it needs Linux.

Two looks at its sources. The type checker, told that the platform is macOS, knows every name of the standard library
that is missing there. What it can't see is looked for here: paths, abstract sockets, programs, and ways around it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparkops

ROOT = Path(sparkops.__file__).parent
HALF = (
    *("core", "cli", "operate", "reconcile", "resources", "nodes"),
    *("inventory", "models", "checkpoints", "reports"),
    *("compile", "importing", "safetensors"),
)
LINUX_PATHS = ("/proc", "/sys/", "/dev/shm", "/run/", "/var/run/", "/etc/os-release", "/etc/machine-id", "/lib/")
LINUX_PROGRAMS = (
    "systemctl",
    "journalctl",
    "systemd-run",
    "hostnamectl",
    "ip",
    "ss",
    "nft",
    "modprobe",
    "getent",
    "setsid",
)
SYSTEM_MODULES = ("os", "socket", "select", "selectors", "signal", "fcntl")


def sources() -> list[Path]:
    return [*(path for folder in HALF for path in sorted((ROOT / folder).rglob("*.py"))), ROOT / "__main__.py"]


def told_on_macos(*paths: Path) -> list[str]:
    """What the type checker says of these files where the platform is macOS, a line each."""
    words = ["--platform", "darwin", "--cache-dir", ".mypy_cache/macos", "--no-error-summary", *map(str, paths)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=ROOT.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def unseen(text: str) -> list[str]:
    """What in a source needs Linux, or hides it, beyond the type checker's eyes, as `line: what`."""
    tree = ast.parse(text)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        found += [f"{getattr(node, 'lineno', 0)}: {what}" for what in _faults(node, constants)]
    return found


def _faults(node: ast.AST, constants: dict[str, object]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
        if "ctypes" in names:
            yield "ctypes calls a C library that is another one elsewhere"
    name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    if name in ("sys.platform", "os.name", "platform.system", "os.uname"):
        yield f"{name} hides a branch from the type checker"
    if isinstance(node, ast.Call):
        yield from _called(node, ast.unparse(node.func), constants)


def _called(node: ast.Call, name: str, constants: dict[str, object]) -> Iterator[str]:
    values = [constants.get(each.id) if isinstance(each, ast.Name) else _value(each) for each in _flat(node.args)]
    first = values[0] if values else None
    module, _, attribute = name.rpartition(".")
    if name in ("getattr", "hasattr") and isinstance(node.args[0], ast.Name) and node.args[0].id in SYSTEM_MODULES:
        yield f"{name}({node.args[0].id}, …) hides a name from the type checker"
    abstract = isinstance(first, str | bytes) and first[:1] in ("\0", b"\0")
    if abstract and attribute in ("bind", "connect", "connect_ex"):
        yield "an abstract socket"
    if attribute in ("open", "Path", "run", "Popen") or module in ("os", "os.path"):
        for value in values:
            if isinstance(value, str) and value.startswith(LINUX_PATHS):
                yield f"the path {value}"
    if module == "subprocess" and first in LINUX_PROGRAMS:
        yield f"the program {first}"


def _flat(arguments: list[ast.expr]) -> Iterator[ast.expr]:
    for each in arguments:
        yield from each.elts if isinstance(each, ast.List | ast.Tuple) else (each,)


def _value(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


@pytest.fixture(scope="module")
def on_macos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One run of the type checker for all tests here: our sources, and a planted one."""
    planted = tmp_path_factory.mktemp("planted") / "planted.py"
    planted.write_text(PLANTED)
    return told_on_macos(*sources(), planted)


PLANTED = """
import fcntl, os, resource, select, signal, socket, time
os.sched_getaffinity
os.posix_fadvise
os.O_PATH
os.O_TMPFILE
select.epoll
signal.sigtimedwait
socket.SO_PEERCRED
socket.AF_NETLINK
fcntl.F_OFD_SETLK
resource.prlimit
time.CLOCK_BOOTTIME
os.getpid
"""


def test_the_controllers_half_uses_no_name_that_macos_lacks(on_macos: list[str]) -> None:
    assert [line for line in on_macos if "planted.py" not in line] == []


def test_a_name_that_macos_lacks_would_be_seen(on_macos: list[str]) -> None:
    names = [line.split(".")[1] for line in PLANTED.split("\n") if line.count(".") == 1]
    said = [name for name in names if any("planted.py" in line and f'"{name}"' in line for line in on_macos)]
    assert said == [name for name in names if name != "getpid"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_needs_linux_beyond_the_type_checkers_eyes(path: Path) -> None:
    assert unseen(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "open('/proc/self/status')",
        "Path('/sys/class/net')",
        "WHERE = '/dev/shm/x'\nos.open(WHERE, 0)",
        "os.path.exists('/run/systemd')",
        "link.bind('\\0sparkops')",
        "link.connect(b'\\0sparkops')",
        "getattr(os, 'O_PATH')",
        "hasattr(select, 'epoll')",
        "import ctypes",
        "from ctypes import CDLL",
        "if sys.platform == 'linux':\n    pass",
        "subprocess.run(['systemctl', 'daemon-reload'])",
    ],
)
def test_what_needs_linux_would_be_seen(planted: str) -> None:
    assert len(unseen(planted)) == 1


@pytest.mark.parametrize("plain", ["'/proc in a text'", "open('/dev/tty')", "link.connect(path)", "run(['systemctl'])"])
def test_what_is_said_to_a_node_or_to_a_person_is_no_need(plain: str) -> None:
    assert unseen(plain) == []
