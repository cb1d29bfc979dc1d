"""How a program gets to Python on a node, over both transports and against whatever a login shell may do to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkops.core.errors import BecomeFailed, ConnectionFailed, SparkopsError, WorkerFailed
from sparkops.core.secrets import Secret
from sparkops.nodes import boot
from sparkops.nodes.connect import Connections
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Stream, Transport
from tests.errors import fails

PYTHON = f'exec "{sys.executable}" "$@"'
FORCED = 'ForceCommand exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
Way = Callable[[str], Transport]


@pytest.fixture(params=["local", "ssh"])
def way(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> Way:
    """Opens a transport to a machine whose `python3` is a shell script of these words ("" for none)."""

    def open_way(script: str) -> Transport:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "sh").symlink_to("/bin/sh")
        if script:
            (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "python3").chmod(0o755)
        if request.param == "local":
            monkeypatch.setenv("PATH", str(folder))
            return connections.connect(Target(name="here", type="local"))
        server = request.getfixturevalue("servers")(FORCED, path=str(folder))
        return connections.connect(server.target("here"))

    return open_way


def _start(transport: Transport, program: str) -> Stream:
    return boot.start(transport, "here", program.encode(), become=False)


def _all(stream: Stream) -> bytes:
    said = b""
    while part := stream.read(65536):
        said += part
    return said


def test_the_program_runs_as_main_and_ends_with_its_own_status(way: Way) -> None:
    stream = _start(way(PYTHON), "import os, sys\nos.write(1, __name__.encode())\nsys.exit(7)")
    assert _all(stream) == b"__main__"
    assert stream.exit_status(60) == 7


def test_every_byte_gets_there_and_back(way: Way) -> None:
    every = bytes(range(256)) * 2000
    echo = "import os\nwhile True:\n    got = os.read(0, 65536)\n    if not got: break\n    os.write(1, got)"
    stream = _start(way(PYTHON), echo)
    stream.write(every[: len(every) // 8])
    stream.close_input()
    assert _all(stream) == every[: len(every) // 8]


def test_a_long_program_is_taken_whole_and_no_byte_more(way: Way) -> None:
    program = "x = '" + "y" * 300_000 + "'\nimport os\nos.write(1, str(len(x)).encode() + os.read(0, 5))"
    stream = _start(way(PYTHON), program)
    stream.write(b"after")
    assert _all(stream) == b"300000after"


def test_what_a_login_shell_prints_first_is_passed_over(way: Way) -> None:
    noise = 'i=0; while [ $i -lt 500 ]; do echo welcome, dear user, to this machine; i=$((i+1)); done; echo "$@";'
    stream = _start(way(noise + PYTHON), "import os\nos.write(1, b'clean')")
    assert _all(stream) == b"clean"


def test_endless_noise_is_an_error(way: Way) -> None:
    with fails("login-shell-too-noisy"):
        _start(way("while :; do echo welcome, dear user, to this machine; done"), "")


def test_a_machine_without_python_is_told_so(way: Way) -> None:
    with pytest.raises(SparkopsError) as caught:
        _start(way(""), "")
    assert caught.value.id in ("python-missing", "local-program-not-started")
    assert "install" in caught.value.hint


def test_a_python_that_is_too_old_is_named(way: Way) -> None:
    old = boot.BOOT.replace("(3, 10)", "(99, 0)")
    script = f"""shift 3; shift; exec "{sys.executable}" -I -S -c '{old}' "$@" """
    with fails("python-too-old"):
        _start(way(script), "")


@pytest.mark.parametrize("says", ["", "Welcome to the appliance"])
def test_a_command_of_sshds_own_is_told_as_that(way: Way, says: str) -> None:
    with pytest.raises(WorkerFailed) as caught:
        _start(way(f"echo '{says}'; exit 0"), "")
    assert caught.value.id == "ssh-runs-something-else"


def test_a_shell_that_refuses_is_quoted(way: Way) -> None:
    with fails("ssh-runs-something-else") as caught:
        _start(way("echo 'This account is currently not available.'; exit 1"), "")
    assert caught.value.id == "ssh-runs-something-else"


def test_control_characters_of_a_node_do_not_reach_the_terminal(way: Way) -> None:
    with pytest.raises(WorkerFailed) as caught:
        _start(way("printf 'bad \\033]0;title\\007 end\\n' >&2; exit 1"), "")
    assert "bad  ]0;title  end" in caught.value.what


def test_writing_to_a_program_that_has_ended_fails(way: Way) -> None:
    stream = _start(way(PYTHON), "pass")
    assert _all(stream) == b""
    assert stream.exit_status(60) == 0
    with pytest.raises(ConnectionFailed) as caught:
        for _ in range(100):
            stream.write(b"x" * 65536)
    assert caught.value.id in ("local-program-ended", "remote-program-ended")


def test_the_last_8_kib_of_standard_error_are_kept(way: Way) -> None:
    stream = _start(way(PYTHON), "import os\nos.write(2, b'a' * 100000 + b'the end')\nos.write(1, b'.')")
    assert _all(stream) == b"."
    assert stream.exit_status(60) == 0
    said = stream.stderr()
    assert said.endswith("aathe end")
    assert len(said) == 8192


def test_a_read_can_be_limited_in_time(way: Way) -> None:
    stream = _start(way(PYTHON), "import os\nos.read(0, 1)\nos.write(1, b'now')")
    with pytest.raises(TimeoutError):
        stream.read(10, timeout=0.1)
    stream.write(b"!")
    assert stream.read(10, timeout=60) == b"now"


def test_closing_a_stream_ends_a_program_that_reads_its_input(way: Way, tmp_path: Path) -> None:
    mark = tmp_path / "gone"
    stream = _start(way(PYTHON), f"import os\nos.read(0, 1)\nopen({str(mark)!r}, 'w').close()")
    stream.close()
    for _ in range(1200):
        if mark.exists():
            break
        time.sleep(0.05)
    assert mark.exists()


@pytest.mark.parametrize(
    ("says", "error", "id"),
    [
        ("sudo: a password is required", boot.PasswordNeeded, "sudo-password-required"),
        ("bob is not in the sudoers file.", BecomeFailed, "sudo-not-allowed"),
        ("sudo: sorry, you must have a tty to run sudo", BecomeFailed, "sudo-requires-terminal"),
        ("sudo: ein Passwort ist notwendig", boot.PasswordNeeded, "sudo-password-required"),
    ],
)
def test_what_sudo_says_is_understood(way: Way, tmp_path: Path, says: str, error: type[SparkopsError], id: str) -> None:
    transport = way(PYTHON)
    _sudo(tmp_path, f"echo '{says}' >&2; exit 1")
    with fails(id, error):
        boot.start(transport, "here", b"pass", become=True)


ASKS = """while [ "$1" != -- ]; do [ "$1" = -p ] && prompt=$2; shift; done; shift
printf %s "$prompt" >&2
read -r word
[ "$word" = right ] && exec "$@"
printf 'Sorry, try again.\n%s' "$prompt" >&2
read -r more && echo "$more" > "$HOME/eaten"
exit 1"""


def test_a_right_password_opens_and_its_line_is_all_that_sudo_reads(way: Way, tmp_path: Path) -> None:
    transport = way(PYTHON)
    _sudo(tmp_path, ASKS)
    program = b"import os\nos.write(1, os.read(0, 9))"
    stream = boot.start(transport, "here", program, become=True, password=Secret("right"))
    stream.write(b"my input")
    assert _all(stream) == b"my input"


def test_a_wrong_password_is_noticed_and_the_program_never_sent(way: Way, tmp_path: Path) -> None:
    transport = way(PYTHON)
    _sudo(tmp_path, ASKS.replace("$HOME", str(tmp_path)))
    with fails("sudo-password-refused"):
        boot.start(transport, "here", b"pass\npass\n", become=True, password=Secret("wrong"))
    time.sleep(0.2)
    assert not (tmp_path / "eaten").exists()


def test_an_unwanted_password_is_dropped(way: Way, tmp_path: Path) -> None:
    transport = way(PYTHON)
    _sudo(tmp_path, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    program = b"import os\nos.write(1, os.read(0, 9))"
    stream = boot.start(transport, "here", program, become=True, password=Secret("unused; $pw"))
    stream.write(b"my input")
    assert _all(stream) == b"my input"


def _sudo(folder: Path, script: str) -> None:
    """A sudo that behaves by these words of shell; the lab has the real one."""
    path = folder / "bin" / "sudo"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
