"""The floor of any tool over SSH: connect to each host and run `python3 -c pass`, side by side, by paramiko alone."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko


def main() -> int:
    """`python -m bench.floor SSH_CONFIG HOST …`"""
    config = paramiko.SSHConfig.from_path(sys.argv[1])
    names = sys.argv[2:]
    key = paramiko.Ed25519Key.from_private_key_file(config.lookup(names[0])["identityfile"][0])
    known = paramiko.HostKeys(str(Path(config.lookup(names[0])["userknownhostsfile"])))

    def one(name: str) -> None:
        way = config.lookup(name)
        client = paramiko.SSHClient()
        client.get_host_keys().update(known)
        client.connect(
            way["hostname"], int(way["port"]), username="root", pkey=key, allow_agent=False, look_for_keys=False
        )
        _, out, _ = client.exec_command("python3 -c pass")
        assert out.channel.recv_exit_status() == 0
        client.close()

    with ThreadPoolExecutor(min(64, len(names))) as pool:
        list(pool.map(one, names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
