"""What is read from the node that the engine runs on, and its page cache."""

import contextlib
import hashlib
import hmac
import json
import os
import re
import time
from typing import Any

from sparkops.programs.launch.rdma import AT_START, rdma_devices
from sparkops.programs.launch.systemd import LAUNCHER_DEFECT, Failed

MEMINFO = "/proc/meminfo"


def available(path: str) -> int:
    """MemAvailable in bytes."""
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise Failed(LAUNCHER_DEFECT, f"{path} has no MemAvailable")


def permanent_errors(path: str) -> "re.Pattern[str] | None":
    """What engines say that refuse their arguments for good, out of a JSON list; None without one that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return re.compile("|".join(f"(?:{_unnamed(each)})" for each in json.load(file)) or "(?!)")
    except (OSError, ValueError, TypeError, re.error):
        return None


def _unnamed(pattern: str) -> str:
    """Without the names of its groups, which two patterns may share."""
    return re.sub(r"\(\?P<\w+>", "(", pattern)


def keep(folder: "str | None", name: str, text: str) -> str:
    """Write a file of what was learnt, readable by root alone; its path, or "" where it can't be written."""
    if not folder:
        return ""
    path = os.path.join(folder, name)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".new", path)
    except OSError:
        return ""
    return path


def mark(path: str) -> None:
    """Leave an empty file; where it can't be written, as on a full disk, it is left out."""
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8"):
        pass


def drop_caches() -> None:
    """Free the page cache once: vLLM's check of free memory takes it for used (vLLM #35313)."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("1")


def secrets_of(spec: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The secret environment, and its HMAC-SHA256 by the node's key ("" where there is no key yet)."""
    if not spec["secrets"]:
        return {}, ""
    with open(spec["secrets"], "rb") as file:
        data = file.read()
    label = ""
    with contextlib.suppress(FileNotFoundError), open(spec["key"], "rb") as file:
        label = hmac.new(file.read(), data, hashlib.sha256).hexdigest()
    return json.loads(data), label


def keep_devices(folder: "str | None", container: str) -> None:
    """Keep the RDMA devices as they are while a container's engine starts to serve."""
    with contextlib.suppress(OSError, ValueError):
        keep(
            folder, AT_START, json.dumps({"container": container, "at": round(time.time()), "devices": rdma_devices()})
        )
