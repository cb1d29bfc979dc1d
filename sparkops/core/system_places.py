"""Paths and unit names that belong to the system or to a person, told apart by their kind alone, without a node.

Sources: the Filesystem Hierarchy Standard 3.0, file-hierarchy(7), and systemd's own units, systemd.special(7). Nodes
run this module too: there the same law judges where a path really leads.
"""

import re

TREES = (
    *("/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/proc", "/run"),
    *("/sbin", "/snap", "/sys", "/usr", "/var/cache/apt", "/var/lib/apt", "/var/lib/containerd", "/var/lib/dbus"),
    *("/var/lib/docker", "/var/lib/dpkg", "/var/lib/kubelet", "/var/lib/snapd", "/var/lib/systemd", "/var/lock"),
    *("/var/log", "/var/mail", "/var/run", "/var/spool"),
)
"""Folders of the system with all that is in them."""
SHARED = (
    *("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/cache", "/var/lib", "/var/local"),
    *("/var/opt", "/var/tmp", "/opt/nvidia"),
)
"""Folders that others put theirs into: a folder of its own below them is another matter."""
KERNEL = ("/dev", "/proc", "/sys")
"""File systems of the kernel: settings and devices."""
MEMORY = ("/dev/shm",)
"""Folders of memory among them, in which files are files."""
PERSONAL = re.compile(
    r"(?:/home/[^/]+|/root)(?:/(?P<inside>\.ssh|\.gnupg)(?:/.*)?|/\.cache|/\.config|/\.local(?:/share)?)?"
)

UNITS = re.compile(
    r"(?:systemd-.*|dbus(?:-.*)?|docker|containerd|sshd?(?:@.*)?|cron|rsyslog|polkit|udisks2|apparmor|snapd(?:\..*)?|getty@.*"
    r"|serial-getty@.*|user(?:-.*)?@.*|autovt@.*|console-getty|NetworkManager(?:-.*)?|networking|network-.*|netplan-.*"
    r"|wpa_supplicant|avahi-daemon|chronyd?|ntp(?:d|sec)?|irqbalance|thermald|ufw|firewalld|nftables|iptables|kmod|keyboard-setup"
    r"|nvidia-(?:persistenced|fabricmanager|suspend|resume|hibernate|cdi-refresh|dcgm)|dcgm-exporter|dgx-.*"
    r"|openibd|rdma-.*|multipathd|iscsid|open-iscsi|lvm2-.*|dm-event|mdmonitor|fstrim|e2scrub.*|apt-daily.*"
    r"|unattended-upgrades|packagekit|accounts-daemon|gdm\d*|lightdm|sddm|display-manager|rescue|emergency|initrd-.*"
    r"|plymouth.*|grub-.*|secureboot-.*|fwupd(?:-.*)?|power-profiles-daemon|bluetooth|ModemManager|cups(?:-.*)?|podman(?:-.*)?"
    r"|kubelet|k3s(?:-.*)?|tailscaled|cloud-(?:init|config|final).*|earlyoom)\.(?:service|socket|timer|path)"
    r"|(?:-|system|user|machine|init)\.(?:slice|scope|mount)"
    r"|(?:basic|default|multi-user|graphical|sysinit|sockets|timers|paths|slices|swap|local-fs|remote-fs|network|network-online"
    r"|shutdown|reboot|poweroff|halt|rescue|emergency|final|umount|exit|sleep|suspend|hibernate|getty|cryptsetup)(?:-pre)?\.target"
)
"""Units that come with the system, or with what every Spark has."""


def fault_of_folder(path: str, state_dir: str) -> str:
    """Why a folder that is replaced as a whole must not be there: the id of an error, or "".

    `folder-is-system`, `folder-is-home`, `folder-is-shared`, or `folder-is-state` where sparkops keeps its own. Both
    paths are absolute and normal.
    """
    if PERSONAL.fullmatch(path):
        return "folder-is-home"
    if path in SHARED or any(below(tree, path) for tree in TREES):
        return "folder-is-shared"
    if path == state_dir or below(state_dir, path):
        return "folder-is-state"
    if below(path, state_dir):
        return "" if below(path, f"{state_dir}/models") else "folder-is-state"
    return "folder-is-system" if any(path == tree or below(path, tree) for tree in TREES) else ""


def fault_of_path(path: str, *, folder: bool) -> str:
    """Why nothing can be declared at an absolute, normal path: the id of an error, or "".

    `path-is-the-kernels`: what looks like a file there is a setting or a device. `path-is-system-folder`: a folder that
    every system has stands there, which as a `folder` may be declared, but for the root.
    """
    if any(path == tree or below(path, tree) for tree in KERNEL) and not any(below(path, tree) for tree in MEMORY):
        return "path-is-the-kernels"
    return "path-is-system-folder" if path == "/" or (not folder and path in (*TREES, *SHARED)) else ""


def is_unit(name: str) -> bool:
    """Whether a unit of this name comes with the system."""
    return UNITS.fullmatch(name) is not None


def below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, at any depth."""
    return path.startswith(folder.rstrip("/") + "/") and path != folder
