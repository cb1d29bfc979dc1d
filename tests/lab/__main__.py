"""`python -m tests.lab up | down | status | ssh | build`: the lab from a shell."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from . import machine
from .lab import Lab
from .machine import LabError


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.act(arguments)
    except LabError as failed:
        print(f"lab: {failed}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Real nodes on one machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the lab up and keep it until `down`")
    up.add_argument("--nodes", type=int, default=3, metavar="N", help="nodes spark-01 to spark-N (default 3)")
    up.set_defaults(act=_up)
    commands.add_parser("down", help="end everything; the cache stays").set_defaults(act=_down)
    commands.add_parser("status", help="what runs, and where").set_defaults(act=_status)
    ssh = commands.add_parser("ssh", help="a shell on a node, or one command")
    ssh.add_argument("node")
    ssh.add_argument("--user", default="spark")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    ssh.set_defaults(act=_ssh)
    build = commands.add_parser("build", help="make what a first `up` would make: the nodes' image, the engine images")
    build.add_argument("--quantizer", action="store_true", help="AutoRound with torch and transformers, too")
    build.add_argument("--vllm", action="store_true", help="the real vLLM for CPUs, too")
    build.set_defaults(act=_build)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    lab = Lab.up(arguments.nodes)
    lab.keep()
    print(f"up in {time.monotonic() - began:.1f} s")
    return _print(lab)


def _down(_: argparse.Namespace) -> int:
    Lab.down()
    return 0


def _status(_: argparse.Namespace) -> int:
    lab = Lab.running()
    if lab is None:
        print("down")
        return 3
    return _print(lab)


def _print(lab: Lab) -> int:
    print(f"engine    {lab.engine.host}{' (own)' if lab.engine.own else ''}")
    print(f"ssh       ssh -F {lab.ssh_config} NODE")
    for registry in (lab.registry, lab.private_registry):
        print(f"registry  {registry.host}{f' (user {registry.user})' if registry.user else ''}")
    print(f"hub       {lab.hub} (lab/tiny-moe at {lab.model_commit})")
    for node in lab.nodes():
        print(f"node      {node.name:14} {node.address:15} {'answers' if node.greets() else 'silent'}")
    return 0


def _ssh(arguments: argparse.Namespace) -> int:
    lab = Lab.running()
    if lab is None:
        raise LabError("the lab is down; `python -m tests.lab up` brings it up")
    node = lab.node(arguments.node)
    argv = ["ssh", "-F", str(lab.ssh_config), "-l", arguments.user, node.name, *arguments.command]
    os.execvpe("ssh", argv, machine.environment())


def _build(arguments: argparse.Namespace) -> int:
    lab = Lab.up()
    print(f"engine image        {lab.engine_image.reference} {lab.engine_image.digest}")
    if arguments.quantizer:
        image = lab.auto_round_image()
        print(f"auto-round image    {image.reference} {image.digest}")
    if arguments.vllm:
        image = lab.real_engine_image()
        print(f"real engine image   {image.reference} {image.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
