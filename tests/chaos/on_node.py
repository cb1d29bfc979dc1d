"""What the chaos runner does inside a node, in one program: tells what stands there, takes things away, ends processes.

It is sent as text and run by the node's python3 with one JSON argument; it must not import anything of ours.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

LOCK = "/var/lib/sparkops/lock"
JOBS = "/run/sparkops/jobs/*/lock"


def sha256(path, folder=None):
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def file_of(path):
    try:
        return sha256(path)
    except FileNotFoundError:
        return None


def tree_of(path):
    """Every file of a folder by its descriptor, so that one that is renamed away meanwhile is told as it was."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        return {
            os.path.normpath(os.path.join(folder, name)): sha256(name, at)
            for folder, _, names, at in os.fwalk(".", dir_fd=handle)
            for name in names
        }
    finally:
        os.close(handle)


def whole_tree(path):
    """A published folder is never changed, only replaced and swept: one that vanished in mid-look is looked at anew."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            return tree_of(path)
    raise RuntimeError(path + " did not hold still")


def held(path):
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def look(order):
    strange = [
        os.path.join(folder, name)
        for folder, known in order["folders"].items()
        if os.path.isdir(folder)
        for name in sorted(os.listdir(folder))
        if (name not in known if known is not None else name.startswith("."))
    ]
    return {
        "files": {path: file_of(path) for path in order["files"]},
        "trees": {path: whole_tree(path) for path in order["trees"]},
        "strange": strange,
        "locked": held(LOCK),
        "jobs": sum(held(path) for path in glob.glob(JOBS)),
    }


def take_away(order):
    for unit in order.get("units", ()):
        subprocess.run(["systemctl", "disable", "--now", unit], capture_output=True)
    for path in order.get("paths", ()):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    if order.get("units"):
        subprocess.run(["systemctl", "daemon-reload"], check=True)
    for image in order.get("images", ()):
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True)


def kill(order):
    """End by SIGKILL the processes whose command line has this mark and begins with this program; tells how many."""
    ended = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        program = os.path.basename(words.split("\0")[0])
        if int(entry) != os.getpid() and program.startswith(order["program"]) and order["mark"] in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry), signal.SIGKILL)
                ended += 1
    return {"ended": ended}


if __name__ == "__main__":
    verb = {"look": look, "take_away": take_away, "kill": kill}[sys.argv[1]]
    print(json.dumps(verb(json.loads(sys.argv[2]))))
