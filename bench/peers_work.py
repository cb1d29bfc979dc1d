"""The same ten resources in each tool's own words: two directories, six files, a link and an account for each host.

Each tool gets what makes it fast: as many workers as hosts, connections shared over a run, nothing gathered or guessed
that the work doesn't ask for. Nobody goes through sudo; all log in as root.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.fleet import STATE, WORK, Host

FILES = 6
OTHERS = 4
"""Two directories, a link and an account."""


@dataclass(frozen=True)
class Tool:
    """A tool set up for a fleet: its two command lines, and whether its output says that nothing differs."""

    name: str
    check: Sequence[str]
    apply: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    agrees: Callable[[str], bool] = lambda output: True


def tools(folder: Path, hosts: Sequence[Host], programs: Path) -> list[Tool]:
    """All tools, their files written under `folder`, which has the `ssh_config`; `programs` holds the peers'."""
    names = [host.name for host in hosts]
    return [
        floor(folder, names),
        sparkops(folder, names),
        pyinfra(folder, names, programs),
        bundlewrap(folder, names, programs),
        ansible(folder, names, programs),
    ]


def floor(folder: Path, names: Sequence[str]) -> Tool:
    """What any tool needs: a connection to each host and one Python there."""
    root = str(Path(__file__).parents[1])
    argv = [sys.executable, "-m", "bench.floor", str(folder / "ssh_config"), *names]
    return Tool("floor", argv, environment={"PYTHONPATH": root})


def sparkops(folder: Path, names: Sequence[str], files: int = FILES) -> Tool:
    """Ours; with more `files`, the same work grown."""
    contents = "".join(
        f"  - file: {WORK}/{{{{ node.name }}}}/conf/{n}\n    content: '{{{{ node.name }}}} has {n}'\n"
        f"{_OWNED}    mode: '0644'\n"
        for n in range(files)
    )
    role = (
        "summary: The work of the benchmark\nscope: node\nresources:\n"
        f"  - directory: {WORK}/{{{{ node.name }}}}\n{_OWNED}    mode: '0755'\n"
        f"  - directory: {WORK}/{{{{ node.name }}}}/conf\n{_OWNED}    mode: '0755'\n{contents}"
        f"  - link: {WORK}/{{{{ node.name }}}}/current\n    target: {WORK}/{{{{ node.name }}}}/conf\n"
        "  - user: '{{ node.name }}'\n    home: '/srv/{{ node.name }}'\n    shell: /bin/sh\n"
    )
    nodes = "".join(f"  {name}: {{connection: {{state_dir: {STATE}/{name}}}}}\n" for name in names)
    _write(
        folder / "sparkops",
        {
            "roles/bench/role.yml": role,
            "inventory.yml": "version: 1\ncluster: bench\nconnection: {user: root}\nroles: [bench]\n"
            "accept: [{id: machine-with-two-names, reason: many names for few nodes}]\nnodes:\n" + nodes,
        },
    )
    common = [str(folder / "sparkops" / "inventory.yml"), "--role", "bench"]
    return Tool(
        "sparkops",
        [sys.executable, "-m", "sparkops", "drift", *common],
        [sys.executable, "-m", "sparkops", "apply", "--yes", *common],
        {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "SPARKOPS_SSH_CONFIG": str(folder / "ssh_config"),
            "XDG_STATE_HOME": str(folder / "state"),
        },
    )


_OWNED = "    owner: root\n    group: root\n"


def pyinfra(folder: Path, names: Sequence[str], programs: Path) -> Tool:
    """One Python process, all hosts at once as it does by itself; `--dry` is its check."""
    data = {
        "ssh_user": "root",
        "ssh_config_file": str(folder / "ssh_config"),
        "ssh_known_hosts_file": str(folder / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
    }
    deploy = f"""\
from io import StringIO
from pyinfra import host
from pyinfra.operations import files, server
name, base = host.name, "{WORK}/" + host.name
for path in (base, base + "/conf"):
    files.directory(path=path, user="root", group="root", mode="755")
for n in range({FILES}):
    content = StringIO(f"{{name}} has {{n}}")
    files.put(src=content, dest=f"{{base}}/conf/{{n}}", user="root", group="root", mode="644")
files.link(path=base + "/current", target=base + "/conf")
server.user(user=name, home="/srv/" + name, shell="/bin/sh", ensure_home=False)
"""
    _write(
        folder / "pyinfra", {"inventory.py": f"hosts = ({json.dumps(list(names))}, {data!r})\n", "deploy.py": deploy}
    )
    base = [str(programs / "pyinfra")]
    common = [str(folder / "pyinfra" / "inventory.py"), str(folder / "pyinfra" / "deploy.py")]
    return Tool(
        "pyinfra",
        [*base, "--dry", *common],
        [*base, "-y", *common],
        {"HOME": str(folder)},
        lambda output: not re.search(r"  \d+ \(host-", output),
    )


def bundlewrap(folder: Path, names: Sequence[str], programs: Path) -> Tool:
    """Its guide's shared connections; as many workers as nodes; `verify` is its check."""
    about = {"bundles": ["bench"], "os": "debian", "os_version": (12,), "username": "root"}
    nodes = dict.fromkeys(names, {**about, "cmd_wrapper_outer": "sh -c {}"})
    items = f"""\
base = "{WORK}/" + node.name
directories = {{base: {_BW_OWNED}, base + "/conf": {_BW_OWNED}}}
files = {{
    f"{{base}}/conf/{{n}}": {{
        "content": f"{{node.name}} has {{n}}", "content_type": "text", "owner": "root", "group": "root", "mode": "0644",
    }}
    for n in range({FILES})
}}
symlinks = {{base + "/current": {{"target": base + "/conf"}}}}
users = {{node.name: {{"home": "/srv/" + node.name, "shell": "/bin/sh"}}}}
"""
    repo = folder / "bundlewrap"
    _write(repo, {"nodes.py": f"nodes = {nodes!r}\n", "groups.py": "groups = {}\n", "bundles/bench/items.py": items})
    shared = f"-F {folder / 'ssh_config'} -o ControlMaster=auto -o ControlPersist=60s -o ControlPath={folder}/c-%n"
    base, common = [str(programs / "bw"), "-r", str(repo)], ["-p", str(len(names)), "bundle:bench"]
    return Tool(
        "BundleWrap",
        [*base, "verify", *common],
        [*base, "apply", "--yes", *common],
        {"BW_SSH_ARGS": shared, "BW_SCP_ARGS": shared, "HOME": str(folder)},
        lambda output: output.count("100.0%") >= len(names),
    )


_BW_OWNED = '{"owner": "root", "group": "root", "mode": "0755"}'


def ansible(folder: Path, names: Sequence[str], programs: Path) -> Tool:
    """Forks as many as hosts, pipelining, its own shared connections, no gathering of facts; `--check`."""
    inventory = "\n".join(names) + "\n\n[all:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\n"
    owned = "owner: root, group: root"
    base = f"{WORK}/{{{{ inventory_hostname }}}}"
    tasks = [
        *(f"file: {{path: '{base}{part}', state: directory, {owned}, mode: '0755'}}" for part in ("", "/conf")),
        *(
            f"copy: {{content: '{{{{ inventory_hostname }}}} has {n}', dest: '{base}/conf/{n}', {owned}, mode: '0644'}}"
            for n in range(FILES)
        ),
        f"file: {{path: '{base}/current', src: '{base}/conf', state: link}}",
        "user: {name: '{{ inventory_hostname }}', home: '/srv/{{ inventory_hostname }}', shell: /bin/sh, "
        "create_home: false}",
    ]
    playbook = "- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(
        f"    - ansible.builtin.{task}\n" for task in tasks
    )
    settings = (
        f"[defaults]\nforks = {len(names)}\nhome = {folder}/ansible/home\n[ssh_connection]\npipelining = True\n"
        f"control_path_dir = {folder}/cp\nssh_common_args = -F {folder}/ssh_config\n"
    )
    _write(folder / "ansible", {"hosts": inventory, "play.yml": playbook, "ansible.cfg": settings})
    common = ["-i", str(folder / "ansible" / "hosts"), str(folder / "ansible" / "play.yml")]
    play = [str(programs / "ansible-playbook")]
    environment = {"ANSIBLE_CONFIG": str(folder / "ansible" / "ansible.cfg"), "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    return Tool(
        "Ansible",
        [*play, "--check", *common],
        [*play, *common],
        environment,
        lambda output: output.count("changed=0 ") == len(names),
    )


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
