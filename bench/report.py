"""The pages of figures from the results in `bench/results/`; every figure is one of the results'.

`bench/README.md` has every table and how it was measured, `docs/performance.md` the key figures.

It knows how the figures are read, not how they are measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).parent / "README.md"
SUMMARY = Path(__file__).parents[1] / "docs" / "performance.md"
TO_FLOOR = 1.5
START = {"--version": 5, "--help": 12}
NOTE = "<!-- Written by `python -m bench`; run that. -->\n"
RUNNING = (
    "`make bench` runs all of them, `python -m bench NAME` one; `python -m bench report` writes this page and "
    "[performance](../docs/performance.md) from `results/`. How `fit` compares with published figures is in "
    "[fit-points.md](fit-points.md).\n"
)

Figures = Mapping[str, Any]


def results() -> dict[str, Any]:
    """The results that are there, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def write() -> None:
    """Write both pages."""
    TABLES.write_text(tables(), encoding="utf-8")
    SUMMARY.write_text(summary(), encoding="utf-8")


def tables() -> str:
    """Every result in tables, each with the way it was measured."""
    found = results()
    parts = [NOTE, "# Benchmarks\n", RUNNING]
    parts += [part for name, section in SECTIONS.items() if name in found for part in section(found[name])]
    return "\n".join(parts)


def summary() -> str:
    """The key figures in one paragraph, those that miss their aim included."""
    found = results()
    names = ("peers", "spreading", "fetching", "verifying", "building")
    peers, transfer, fetching, verifying, building = (found[name] for name in names)
    one, most = (next(each for each in peers["fleets"] if each["nodes"] == n and not each["delay_ms"]) for n in (1, 50))
    others = ", ".join(f"{name} {_rough(most, name)}" for name in most["tools"] if name not in ("floor", "sparkops"))
    copies = building["ratios"]
    latest = max(found[name]["when"] for name in names)
    missed = sum(each["to_floor"] > TO_FLOOR for each in peers["fleets"])
    return "\n".join(
        (
            NOTE,
            "# Performance\n",
            "Checking ten resources that are as declared takes one connection and one exec per node. `sparkops drift` "
            f"did it on one node in {_rough(one, 'sparkops')} and on 50 in {_rough(most, 'sparkops')}. The same check "
            f"of 50 nodes by other tools: {others}; connecting alone: {_rough(most, 'floor')}. sparkops aims at "
            f"{TO_FLOOR} times the last figure, and missed it in {missed} of {len(peers['fleets'])} fleets. A "
            f"checkpoint goes from node to node at {transfer['copies']['sparkops']['mb_per_second']} MB/s, every byte "
            f"hashed ({transfer['faster_than_rsync']} times as fast as rsync over ssh). From a hub it is fetched at "
            f"{fetching['ratios']['hf download']} of the speed of `hf download` and {fetching['ratios']['curl']} of "
            f"that of parallel `curl` ranges, which hash nothing (aims "
            f"{fetching['limits']['hf download']} and {fetching['limits']['curl']}). Verifying runs at "
            f"{verifying['ratio']} of the speed of `openssl dgst` on all cores, building a hybrid checkpoint at "
            f"{copies['cp and sync']} of the speed of `cp` and `sync`.\n",
            f"Measured {peers['when']} to {latest} on {peers['machine']['cores']} cores that ran the nodes "
            f"(containers) as well, with a load of {most['load_before']} before the runs with 50: ratios mean more "
            "than seconds, a figure from one round is rough, and nothing was measured on a Spark. All tables and how "
            "each was measured are in [bench](../bench/README.md); `make bench` repeats them.\n",
        )
    )


def _rough(found: Figures, name: str) -> str:
    figures = found["tools"].get(name)
    if not figures:
        return "failed"
    rounds = figures["rounds"]
    return f"{figures['median']:.1f} s ({rounds} round{'s' if rounds > 1 else ''})"


def _peers(found: Figures) -> Iterable[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield "## Other tools\n"
    yield f"{_machine(found)} {versions}; sshd's own log counts connections and execs.\n"
    yield (
        "The same ten resources per node in each tool's own words (two directories, six files, a link, an account), "
        "already as declared; as root, without sudo. sparkops `drift`, pyinfra `--dry`, BundleWrap `verify` with the "
        "shared connections of its guide and a worker per node, Ansible `--check` with a fork per node, pipelining, "
        "shared connections and no facts. Each run starts cold; all tools take turns; a tool that has used 12 s gets "
        "no further round. The nodes are three containers on the controller's own cores, each under many names, so "
        "ratios mean more than seconds; a delay is made by a proxy. The floor is a process that connects to each "
        "node by paramiko alone and runs `python3 -c pass`.\n"
    )
    fleets = found["fleets"]
    yield (
        "Seconds (median; the number of rounds behind it). The load is the machine's before a fleet's runs: with "
        "a high one, or from one round, a figure is rough.\n"
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
        "in memory on both, all ways in turn; CPU seconds are those of both nodes together. The figure "
        "of sparkops includes the jobs' start, certificates on both sides and the hash of every byte; bare TLS is one "
        "Python program on each side, one connection, the same cipher, no hash.\n"
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
    yield "Aims:\n"
    yield _table(["aim", "measured", "reached"], [[aim, figure, "yes" if ok else "**no**"] for aim, figure, ok in aims])


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
    yield "Aims:\n"
    yield _table(
        ["nodes", "round trip", "aim", "measured", "reached"],
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
        "and BundleWrap verify each step; the others don't.\n"
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
    yield "## A check and the floor\n"
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
    yield "More resources on one node need no further round trip:\n"
    yield _table(
        ["resources", "drift, s (rounds)", "connections", "execs"],
        [
            [each["resources"], _seconds(each, "sparkops")]
            + [_number(each["tools"]["sparkops"]["per_node"][name]) for name in ("connections", "execs")]
            for each in found["resources"]
        ],
    )


def _output(found: Figures) -> Iterable[str]:
    yield "## Output of programs\n"
    yield (
        f"{_machine(found)} {found['megabytes']} MB of text from one node of the lab to /dev/null, start and "
        f"connection included: `sparkops exec`, which checks every character and names the node on each line, beside "
        f"`ssh` (aim: {found['least']} of its speed). The node runs on the same cores.\n"
    )
    yield _table(
        ["output", "ssh", "sparkops exec", "part of ssh's speed"],
        [
            [name, *(f"{each['seconds'][tool]['median']:.2f} s" for tool in ("ssh", "sparkops")), each["speed_of_ssh"]]
            for name, each in found["sorts"].items()
        ],
    )


def _fetching(found: Figures) -> Iterable[str]:
    seconds, ratios, limits = found["seconds"], found["ratios"], found["limits"]
    yield "## A checkpoint from a hub\n"
    yield (
        f"{_machine(found)} Load before: {found['load_before']}. {found['files']} files of together "
        f"{found['bytes'] / 1e9:.1f} GB from the tests' hub on the same cores, in memory on both sides, in turn. "
        f"sparkops: a node's job with {found['connections']} connections, from its start to the published folder, "
        f"every byte hashed. hf {found['versions']['hf']}: `hf download` with an empty cache, which compares sizes. "
        f"curl {found['versions']['curl']}: as many connections, ranges of 64 MiB that stay parts; nothing is hashed.\n"
    )
    yield _table(
        ["", "seconds, least to most (rounds)", "MB/s", "CPU seconds per GB", "speed of sparkops to it", "aim"],
        [
            [name, f"{each['median']:.1f}, {each['min']:.1f} to {each['max']:.1f} ({each['rounds']})",
             found["mb_per_second"][name], found["cpu_per_gb"][name], ratios.get(name, ""), limits.get(name, "")]
            for name, each in seconds.items()
        ],
    )  # fmt: skip
    if found["real_time"]:
        yield "All three ran with real-time priority (`chrt -r 1`), before the other work that the load tells of.\n"


def _watching(found: Figures) -> Iterable[str]:
    yield "## Watching an engine\n"
    yield (
        f"{_machine(found)} The launcher of a service that nobody asks used {found['cpu_seconds']} s of the CPU in "
        f"{found['seconds']} s, {found['percent_of_a_core']} % of a core (aim: below {found['most']} %), and asked the "
        f"engine for {found['completions']} completions of one token meanwhile.\n"
    )


def _watch(found: Figures) -> Iterable[str]:
    yield "## Rounds of a watcher\n"
    yield (
        f"{_machine(found)} Load before: {found['load_before']}. `sparkops watch` over {found['nodes']} names for one "
        f"sshd on the controller itself, {found['resources']} files as declared, {found['rounds']} rounds without a "
        f"pause, connections kept: {found['round_seconds']} s a round ({found['round_cpu_seconds']} s of the "
        f"controller's CPU), {found['ratio']}x of a cold `sparkops drift` of the same run, "
        f"{found['cold_seconds']} s (aim: at most {found['most']}). Most of the cold run is what the nodes do to start "
        f"workers, here on the same cores. The watcher's memory: {found['memory_mib']} MiB at most (aim: below "
        f"{found['most_memory_mib']}), {found['slope_kib_per_round']} KiB more per round.\n"
    )


def _startup(found: Figures) -> Iterable[str]:
    yield "## Start-up\n"
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
        f"node to observe it, {found['verify_ms']} ms to verify it (aim {limits['again_ms']}).\n"
    )


def _building(found: Figures) -> Iterable[str]:
    seconds, limits = found["seconds"], found["limits"]
    yield "## Building a checkpoint\n"
    yield (
        f"{_machine(found)} Load: {found['load'][0]}. A hybrid of {found['bytes'] / 1e9:.1f} GB in {found['shards']} "
        "shards, all of which change, against `cp` of the base on the same disk, in turn, all files in memory at the "
        "start. The build hashes, checks samples and returns when the disk has everything, as `cp` does only with "
        f"`sync`. Its processes together used at most {found['memory_mib']} MiB (aim {limits['memory_mib']}).\n"
    )
    yield _table(
        ["", "seconds, least to most (rounds)", "CPU, s", f"speed of the build to it (aim {limits['ratio']})"],
        [
            [name, f"{each['median']:.2f}, {each['min']:.2f} to {each['max']:.2f} ({each['rounds']})",
             found["cpu_seconds"][name], found["ratios"].get(name, "")]
            for name, each in seconds.items()
        ],
    )  # fmt: skip


def _reports(found: Figures) -> Iterable[str]:
    kept, limits = found["kept"], found["limits"]
    yield "## Reports\n"
    yield (
        f"{_machine(found)} {found['nodes']} nodes with {found['things']} resources each, {found['share']:.0%} of them "
        f"not as declared (medians of {found['rounds']}; aim for the HTML page {limits['html_seconds']} s and "
        f"{limits['html_mb']} MB).\n"
    )
    yield _table(
        ["format", "seconds", "MB"], [[form, each["seconds"], each["mb"]] for form, each in found["formats"].items()]
    )
    yield (
        f"30 days of kept runs, one every five minutes ({kept['runs']} runs of {kept['nodes']} nodes with "
        f"{kept['resources']} resources; what is found differs in each run, and others differ every hour): "
        f"{kept['mb']} MB (aim {limits['kept_mb']}); keeping one takes {kept['keep_ms']} ms. Milliseconds of a "
        f"question (aim {limits['question_ms']}):\n"
    )
    yield _table(["question", "ms"], [[name, each] for name, each in kept["questions_ms"].items()])


SECTIONS = {
    "peers": _peers,
    "noop": _noop,
    "startup": _startup,
    "inventory": _inventory,
    "lint": _lint,
    "output": _output,
    "watching": _watching,
    "watch": _watch,
    "spreading": _spreading,
    "fetching": _fetching,
    "verifying": _verifying,
    "building": _building,
    "reports": _reports,
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
