"""`docs/performance.md` from the results in `bench/results/`: every figure on the page is one of theirs.

It knows how the figures are read, not how they are measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TO_FLOOR = 1.5
START = {"--version": 5, "--help": 12}

Figures = Mapping[str, Any]


def results() -> dict[str, Any]:
    """The results that are there, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as the results have it."""
    found = results()
    parts = ["<!-- Written by `python -m bench`; run that. -->\n", "# How long a look takes\n"]
    parts += [part for name, section in SECTIONS.items() if name in found for part in section(found[name])]
    return "\n".join(parts)


def _peers(found: Figures) -> Iterable[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield "## Against others\n"
    yield f"{_machine(found)} {versions}; sshd's own log counts connections and execs.\n"
    yield (
        "The same ten resources per node in each tool's own words (two directories, six files, a link, an account), "
        "already as declared; as root, without sudo. sparkops `drift`, pyinfra `--dry`, BundleWrap `verify` with the "
        "shared connections of its guide and a worker per node, Ansible `--check` with a fork per node, pipelining, "
        "shared connections and no facts. Each run starts cold; all tools take turns; whoever has used 12 s has no "
        "further round. The nodes are three containers on the controller's own cores, each under many names, so that "
        "seconds say little and ratios more; a delay is made by a proxy. The floor is a process that connects to each "
        "node by paramiko alone and runs `python3 -c pass`.\n"
    )
    fleets = found["fleets"]
    yield (
        "Seconds (median; the number of rounds behind it). The load is that of others on the machine before a fleet's "
        "runs: beside a high one, and from one round, a figure is rough, also a good one.\n"
    )
    names = list(fleets[0]["tools"])
    yield _table(
        ["nodes", "round trip", "load before", *names],
        [
            [each["nodes"], f"+{each['delay_ms']} ms", each["load_before"], *(_seconds(each, name) for name in names)]
            for each in fleets
        ],
    )
    yield "Ratios:\n"
    peers = [name for name in names if name not in ("floor", "sparkops")]
    yield _table(
        ["nodes", "round trip", "sparkops to the floor", *(f"{name} to sparkops" for name in peers)],
        [
            [
                each["nodes"],
                f"+{each['delay_ms']} ms",
                each["to_floor"],
                *(each["faster_than"].get(name, "failed") for name in peers),
            ]
            for each in fleets
        ],
    )
    yield from _aims(fleets)
    yield "What one run costs, with no delay:\n"
    yield _table(
        ["nodes", "tool", *COSTS],
        [
            [each["nodes"], name, *(_number(figures["per_node"].get(key, figures.get(key))) for key in COSTS.values())]
            for each in fleets
            if each["delay_ms"] == 0
            for name, figures in each["tools"].items()
        ],
    )
    if found["first"]:
        yield from _first(found["first"])


def _spreading(found: Figures) -> Iterable[str]:
    yield "## A checkpoint from node to node\n"
    yield (
        f"{_machine(found)} Load before: {found['load_before']}. {found['gb']} GB from one node of the lab to another, "
        "in memory on both, all ways in turn; CPU seconds are those of both nodes together. Ours has the jobs' start, "
        "certificates on both sides and the hash of every byte in it; bare TLS is one Python program on each side, one "
        "connection, the same cipher, no hash.\n"
    )
    yield _table(
        ["way", "seconds (rounds)", "MB/s", "CPU seconds per GB"],
        [
            [
                name,
                f"{each['seconds']['median']} ({each['seconds']['rounds']})",
                each["mb_per_second"],
                each["cpu_per_gb"],
            ]
            for name, each in found["copies"].items()
        ],
    )
    chain = found["chain"]
    aims = [
        ("at least 1.3x as fast as rsync over ssh", found["faster_than_rsync"], found["faster_than_rsync"] >= 1.3),
        ("at most 0.7x of its CPU seconds per GB", found["cpu_to_rsync"], found["cpu_to_rsync"] <= 0.7),
        ("at least 0.9x as fast as bare TLS", found["of_bare_tls"], found["of_bare_tls"] >= 0.9),
        (
            f"four nodes by chain in at most 1.3x of one copy ({chain['rate']} a link)",
            chain["ratio"],
            chain["ratio"] <= 1.3,
        ),
    ]
    yield "What was aimed at:\n"
    yield _table(["aim", "found", "reached"], [[aim, figure, "yes" if ok else "**no**"] for aim, figure, ok in aims])


COSTS = {
    "connections per node": "connections",
    "execs per node": "execs",
    "SFTP sessions per node": "sftp",
    "processes and threads per node": "processes",
    "controller's CPU, s": "cpu",
    "controller's memory, MiB": "memory_mib",
}


def _aims(fleets: Sequence[Figures]) -> Iterable[str]:
    """Each aim, what was found, and whether that reaches it."""
    aims = [("at most", TO_FLOOR, "floor", each, each["to_floor"]) for each in fleets]
    for each in fleets:
        nodes, delay = each["nodes"], each["delay_ms"]
        for name, least, meant in (
            ("pyinfra", 3, (nodes, delay) == (50, 0)),
            ("pyinfra", 4, (nodes, delay) == (10, 100)),
            ("Ansible", 25, nodes >= 10),
        ):
            if meant and name in each["faster_than"]:
                aims.append(("at least", least, name, each, each["faster_than"][name]))
    yield "What was aimed at:\n"
    yield _table(
        ["nodes", "round trip", "aim", "found", "reached"],
        [
            [
                each["nodes"],
                f"+{each['delay_ms']} ms",
                f"{word} {limit}x the floor" if name == "floor" else f"{word} {limit}x faster than {name}",
                found,
                "yes" if (found <= limit if word == "at most" else found >= limit) else "**no**",
            ]
            for word, limit, name, each, found in aims
        ],
    )


def _first(found: Figures) -> Iterable[str]:
    yield "## A first apply\n"
    yield (
        f"The same ten resources on {found['nodes']} nodes that have none of them, each a machine of its own. sparkops "
        "looks again after each step; the others don't, except BundleWrap.\n"
    )
    yield _table(
        ["tool", "seconds (rounds)", "to sparkops", "execs per node", "SFTP sessions per node"],
        [
            [
                name,
                _seconds(found, name),
                found["faster_than"].get(name, ""),
                _number(figures["per_node"]["execs"]),
                _number(figures["per_node"]["sftp"]),
            ]
            for name, figures in found["tools"].items()
        ],
    )


def _noop(found: Figures) -> Iterable[str]:
    yield "## Against the floor\n"
    yield f"{_machine(found)} Load before: {found['load_before']}. `sparkops drift` and the floor alone, in turn.\n"
    yield _table(
        ["nodes", "drift, s (rounds)", "floor, s (rounds)", "ratio (aim 1.5)", "least to least"],
        [
            [
                each["nodes"],
                _seconds(each, "sparkops"),
                _seconds(each, "floor"),
                each["to_floor"],
                round(each["tools"]["sparkops"]["min"] / each["tools"]["floor"]["min"], 2),
            ]
            for each in found["fleets"]
        ],
    )
    yield "More resources on one node cost no further round trip:\n"
    yield _table(
        ["resources", "drift, s (rounds)", "connections", "execs"],
        [
            [each["resources"], _seconds(each, "sparkops")]
            + [_number(each["tools"]["sparkops"]["per_node"][name]) for name in ("connections", "execs")]
            for each in found["resources"]
        ],
    )


def _startup(found: Figures) -> Iterable[str]:
    yield "## Starting\n"
    yield f"{_machine(found)}\n"
    yield _table(
        ["command", "ratio to `python -c pass`", "aim"],
        [[f"`sparkops {name}`", ratio, START.get(name, "")] for name, ratio in found["ratios"].items()],
    )


def _inventory(found: Figures) -> Iterable[str]:
    seconds = found["seconds"]
    yield "## Loading\n"
    yield (
        f"{_machine(found)} {found['nodes']} nodes and {found['services']} services: {seconds['load']['median']:.3f} s "
        f"to load; {seconds['load and compile']['median']:.2f} s to load and compile to {found['resources']} resources "
        f"(medians of {seconds['load']['rounds']}).\n"
    )


def _lint(found: Figures) -> Iterable[str]:
    yield "## Lint and fit\n"
    yield (
        f"{_machine(found)} {found['nodes']} nodes and {found['services']} services: {found['cpu_seconds']:.2f} s of "
        f"the CPU to load, lint and fit (aim {found['limits']['cpu_seconds']}). One pasted line, against `python -c "
        f"pass` (aim {found['limits']['ratios']}): "
        + ", ".join(f"`{name}` {ratio}x" for name, ratio in found["ratios"].items())
        + ".\n"
    )


def _verifying(found: Figures) -> Iterable[str]:
    limits, seconds = found["limits"], found["seconds"]
    yield "## Verifying checkpoints\n"
    yield (
        f"{_machine(found)} Load before: {found['load_before']}. {found['files']} files of {found['file_mib']} MiB, "
        "all read before each run, hashed by a job of the node (its start included) and by "
        f"`xargs -P {found['workers']} openssl dgst -sha256`, in turn: {seconds['sparkops']['median']:.2f} s against "
        f"{seconds['openssl']['median']:.2f} s (medians of {seconds['sparkops']['rounds']}), so {found['ratio']}x the "
        f"speed (aim {limits['ratio']}). Peak memory of the job: {found['peak_mib']} MiB.\n"
    )
    yield (
        f"A checkpoint of {found['small_files']} files that has not changed: {found['again_ms']} ms of the CPU of the "
        f"node to look at it, {found['verify_ms']} ms to verify it (aim {limits['again_ms']}).\n"
    )


def _building(found: Figures) -> Iterable[str]:
    seconds, limits = found["seconds"], found["limits"]
    yield "## Building a checkpoint\n"
    yield (
        f"{_machine(found)} Load: {found['load'][0]}. A hybrid of {found['bytes'] / 1e9:.1f} GB in {found['shards']} "
        "shards, all of which change, against `cp` of the base on the same disk, in turn, all files in memory at the "
        "start. The build hashes, checks samples and returns when the disk has everything, as `cp` does only with "
        f"`sync`. Its processes together never held more than {found['memory_mib']} MiB (aim {limits['memory_mib']}).\n"
    )
    yield _table(
        ["", "seconds, least to most (rounds)", "CPU, s", f"speed of the build to it (aim {limits['ratio']})"],
        [
            [name, f"{each['median']:.2f}, {each['min']:.2f} to {each['max']:.2f} ({each['rounds']})",
             found["cpu_seconds"][name], found["ratios"].get(name, "")]
            for name, each in seconds.items()
        ],
    )  # fmt: skip


SECTIONS = {
    "peers": _peers,
    "noop": _noop,
    "startup": _startup,
    "inventory": _inventory,
    "lint": _lint,
    "spreading": _spreading,
    "verifying": _verifying,
    "building": _building,
}


def _machine(found: Figures) -> str:
    machine = found["machine"]
    return f"{found['when']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Python {found['python']}."


def _seconds(found: Figures, name: str) -> str:
    figures = found["tools"].get(name)
    return f"{figures['median']:.2f} ({figures['rounds']})" if figures else "failed"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
