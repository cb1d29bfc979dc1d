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
MEMORY = 300
"""MiB of the controller that are asked for with 100 nodes."""
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
    for name, (title, section) in SECTIONS.items():
        if name in found:
            first, *rest = section(found[name])
            machine = found[name]["machine"]
            where = f"{machine['cores']} cores, {machine['memory_gib']} GiB, Python {found[name]['python']}."
            loaded = [found[name][key] for key in ("load_before", "load") if key in found[name]]
            load = f" Load before: {loaded[0][0] if isinstance(loaded[0], list) else loaded[0]}." if loaded else ""
            parts += [f"## {title}\n", f"{found[name]['when']}, {where}{load} {first}".rstrip() + "\n", *rest]
    return "\n".join(parts)


def summary() -> str:
    """The key figures in one paragraph, those that miss their aim included."""
    found = results()
    names = ("peers", "spreading", "fetching", "verifying", "building")
    peers, transfer, fetching, verifying, building = (found[name] for name in names)
    near = [each for each in peers["fleets"] if not each["delay_ms"]]
    one, most = near[0], near[-1]
    others = ", ".join(f"{name} {_rough(most, name)}" for name in one["tools"] if name not in ("floor", "sparkops"))
    copies = building["ratios"]
    latest = max(found[name]["when"] for name in names)
    missed = sum(each["to_floor"] > TO_FLOOR for each in peers["fleets"])
    return "\n".join(
        (
            NOTE,
            "# Performance\n",
            "Checking ten resources that are as declared takes one connection and one exec per node. `sparkops drift` "
            f"did it on one node in {_rough(one, 'sparkops')} and on {most['nodes']} in {_rough(most, 'sparkops')}, "
            f"with {most['tools']['sparkops']['memory_mib']} MiB of memory. The same check of {most['nodes']} nodes by "
            f"other tools: {others}; connecting alone: {_rough(most, 'floor')}. sparkops aims at "
            f"{TO_FLOOR} times the last figure, and missed it in {missed} of {len(peers['fleets'])} fleets. A "
            f"checkpoint goes from node to node at {transfer['copies']['sparkops']['mb_per_second']} MB/s, every byte "
            f"hashed ({transfer['faster_than_rsync']} times as fast as rsync over ssh). From a hub it is fetched at "
            f"{fetching['ratios']['hf download']} of the speed of `hf download` and {fetching['ratios']['curl']} of "
            f"that of parallel `curl` ranges, which hash nothing (aims "
            f"{fetching['limits']['hf download']} and {fetching['limits']['curl']}). Verifying runs at "
            f"{verifying['ratio']} of the speed of `openssl dgst` on all cores, building a hybrid checkpoint at "
            f"{copies['cp and sync']} of the speed of `cp` and `sync`.\n",
            f"Measured {peers['when']} to {latest} on {peers['machine']['cores']} cores that ran the nodes "
            f"as well, with a load of {most['load_before']} before the runs with {most['nodes']}: ratios "
            "mean more than seconds, a figure from one round is rough, and nothing was measured on a Spark. All tables "
            "and how each was measured are in [bench](../bench/README.md); `make bench` repeats them.\n",
        )
    )


def _rough(found: Figures, name: str) -> str:
    figures = found["tools"].get(name)
    if not figures:
        return _absent(found, name)
    rounds = figures["rounds"]
    return f"{figures['median']:.1f} s ({rounds} round{'s' if rounds > 1 else ''})"


def _peers(found: Figures) -> Iterable[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"{versions}; sshd's own log counts connections and execs."
    yield (
        "The same ten resources per node in each tool's own words (two directories, six files, a link, an account), "
        "already as declared; as root, without sudo. sparkops `drift`, pyinfra `--dry`, BundleWrap `verify` with the "
        "shared connections of its guide and a worker per node, Ansible `--check` with a fork per node, pipelining, "
        "shared connections and no facts. Each run starts cold; all tools take turns; a tool that has used 12 s gets "
        "no further round. The nodes are three sshds in namespaces of their own on the controller's cores, each under "
        "many names, so ratios mean more than seconds (measured before 2026-11-29: three containers); a delay is made "
        "by a proxy. The floor is a process that connects to each "
        "node by paramiko alone and runs `python3 -c pass`.\n"
    )
    yield (
        "Seconds (median; the number of rounds behind it). The load is the machine's before a fleet's runs: with "
        "a high one, or from one round, a figure is rough.\n"
    )
    fleets = found["fleets"]
    names = list(fleets[0]["tools"])
    peers = [name for name in names if name not in ("floor", "sparkops")]
    yield _table(
        ["nodes", "round trip", "measured", "load before", *names],
        [[*_fleet(each), each["when"], each["load_before"], *(_seconds(each, name) for name in names)]
         for each in fleets],
    )  # fmt: skip
    yield "Ratios:\n"
    yield _table(
        ["nodes", "round trip", "sparkops to the floor", *(f"{name} to sparkops" for name in peers)],
        [[*_fleet(each), each["to_floor"], *(each["faster_than"].get(name, _absent(each, name)) for name in peers)]
         for each in fleets],
    )  # fmt: skip
    yield "Aims:\n"
    yield _aims(["nodes", "round trip"], _fleet_aims(fleets))
    yield "What one run costs, with no delay:\n"
    yield _table(
        ["nodes", "tool", *COSTS],
        [[each["nodes"], name, *(_number(figures["per_node"].get(key, figures.get(key))) for key in COSTS.values())]
         for each in fleets if each["delay_ms"] == 0 for name, figures in each["tools"].items()],
    )  # fmt: skip
    if first := found["first"]:
        yield "## A first apply\n"
        yield (
            f"The same ten resources on {first['nodes']} nodes that have none of them, each a machine of its own. "
            "sparkops and BundleWrap verify each step; the others don't.\n"
        )
        yield _table(
            ["tool", "seconds (rounds)", "to sparkops", "execs per node", "SFTP sessions per node"],
            [[name, _seconds(first, name), first["faster_than"].get(name, ""),
              *(_number(figures["per_node"][key]) for key in ("execs", "sftp"))]
             for name, figures in first["tools"].items()],
        )  # fmt: skip


COSTS = {
    "connections per node": "connections",
    "execs per node": "execs",
    "SFTP sessions per node": "sftp",
    "processes and threads per node": "processes",
    "controller's CPU, s": "cpu",
    "controller's memory, MiB": "memory_mib",
}


def _fleet(each: Figures) -> tuple[object, str]:
    return each["nodes"], f"+{each['delay_ms']} ms"


def _fleet_aims(fleets: Sequence[Figures]) -> Iterable[Sequence[object]]:
    """Each aim, what was found, and whether that reaches it."""
    for each in fleets:
        yield *_fleet(each), f"at most {TO_FLOOR}x the floor", each["to_floor"], each["to_floor"] <= TO_FLOOR
    for each in fleets:
        fleet, faster = (each["nodes"], each["delay_ms"]), each["faster_than"]
        for name, least, meant in (
            ("pyinfra", 3, fleet == (50, 0)),
            ("pyinfra", 4, fleet == (10, 100)),
            ("Ansible", 25, each["nodes"] >= 10),
        ):
            if meant and name in faster:
                yield *_fleet(each), f"at least {least}x faster than {name}", faster[name], faster[name] >= least
        if fleet == (100, 0) and faster:
            name, memory = min(faster, key=faster.__getitem__), each["tools"]["sparkops"]["memory_mib"]
            yield (
                *_fleet(each),
                f"at least 4x faster than the fastest measured, {name}",
                faster[name],
                faster[name] >= 4,
            )
            yield *_fleet(each), f"controller's memory below {MEMORY} MiB", memory, memory < MEMORY


def _simulated(found: Figures) -> Iterable[str]:
    drift, apply, limits = found["drift"], found["apply"], found["limits"]
    yield (
        f"A drift over {drift['nodes']} nodes with {drift['resources']} resources that are as declared, the nodes "
        f"being threads of the controller that run the real worker: {drift['seconds']} s (aim {limits['seconds']}), "
        f"{drift['cpu']} s of the CPU and {drift['memory_mib']} MiB, the nodes' share included. No network is in it."
    )
    yield (
        f"A first apply of {apply['nodes']} such nodes, {apply['resources']} steps: by its event log no step waited "
        f"longer than {apply['lag']} s while what it needs was done and its node had a free slot (aim "
        f"{limits['lag']}).\n"
    )


def _spreading(found: Figures) -> Iterable[str]:
    yield (
        f"{found['gb']} GB from one node of the lab to another, in memory on both, all ways in turn; CPU seconds are "
        "those of both nodes together. The figure of sparkops includes the jobs' start, certificates on both sides and "
        "the hash of every byte; bare TLS is one Python program on each side, one connection, the same cipher, no hash."
    )
    yield _table(
        ["way", "seconds (rounds)", "MB/s", "CPU seconds per GB"],
        [[name, f"{each['seconds']['median']} ({each['seconds']['rounds']})", each["mb_per_second"], each["cpu_per_gb"]]
         for name, each in found["copies"].items()],
    )  # fmt: skip
    faster, cpu, bare, chain = found["faster_than_rsync"], found["cpu_to_rsync"], found["of_bare_tls"], found["chain"]
    yield "Aims:\n"
    yield _aims(
        [],
        [
            ("at least 1.3x as fast as rsync over ssh", faster, faster >= 1.3),
            ("at most 0.7x of its CPU seconds per GB", cpu, cpu <= 0.7),
            ("at least 0.9x as fast as bare TLS", bare, bare >= 0.9),
            (f"four nodes by chain in at most 1.3x of one copy ({chain['rate']} a link)",
             chain["ratio"], chain["ratio"] <= 1.3),
        ],
    )  # fmt: skip


def _noop(found: Figures) -> Iterable[str]:
    yield "`sparkops drift` and the floor alone, in turn."
    yield _table(
        ["nodes", "drift, s (rounds)", "floor, s (rounds)", "ratio (aim 1.5)", "least to least"],
        [[each["nodes"], _seconds(each, "sparkops"), _seconds(each, "floor"), each["to_floor"],
          round(each["tools"]["sparkops"]["min"] / each["tools"]["floor"]["min"], 2)] for each in found["fleets"]],
    )  # fmt: skip
    yield "More resources on one node need no further round trip:\n"
    yield _table(
        ["resources", "drift, s (rounds)", "connections", "execs"],
        [[each["resources"], _seconds(each, "sparkops")]
         + [_number(each["tools"]["sparkops"]["per_node"][name]) for name in ("connections", "execs")]
         for each in found["resources"]],
    )  # fmt: skip


def _output(found: Figures) -> Iterable[str]:
    yield (
        f"{found['megabytes']} MB of text from one node of the lab to /dev/null, start and connection included: "
        f"`sparkops exec`, which checks every character and names the node on each line, beside `ssh` (aim: "
        f"{found['least']} of its speed). The node runs on the same cores."
    )
    yield _table(
        ["output", "ssh", "sparkops exec", "part of ssh's speed"],
        [[name, *(f"{each['seconds'][tool]['median']:.2f} s" for tool in ("ssh", "sparkops")), each["speed_of_ssh"]]
         for name, each in found["sorts"].items()],
    )  # fmt: skip


def _fetching(found: Figures) -> Iterable[str]:
    yield (
        f"{found['files']} files of together {found['bytes'] / 1e9:.1f} GB from the tests' hub on the same cores, in "
        f"memory on both sides, in turn. sparkops: a node's job with {found['connections']} connections, from its "
        f"start to the published folder, every byte hashed. hf {found['versions']['hf']}: `hf download` with an empty "
        f"cache, which compares sizes. curl {found['versions']['curl']}: as many connections, ranges of 64 MiB that "
        "stay parts; nothing is hashed."
    )
    yield _table(
        ["", "seconds, least to most (rounds)", "MB/s", "CPU seconds per GB", "speed of sparkops to it", "aim"],
        [[name, _spread(each, 1), found["mb_per_second"][name], found["cpu_per_gb"][name],
          found["ratios"].get(name, ""), found["limits"].get(name, "")] for name, each in found["seconds"].items()],
    )  # fmt: skip
    if found["real_time"]:
        yield "All three ran with real-time priority (`chrt -r 1`), before the other work that the load tells of.\n"


def _watching(found: Figures) -> Iterable[str]:
    yield (
        f"The launcher of a service that nobody asks used {found['cpu_seconds']} s of the CPU in {found['seconds']} s, "
        f"{found['percent_of_a_core']} % of a core (aim: below {found['most']} %), and asked the engine for "
        f"{found['completions']} completions of one token meanwhile."
    )


def _watch(found: Figures) -> Iterable[str]:
    yield (
        f"`sparkops watch` over {found['nodes']} names for one "
        f"sshd on the controller itself, {found['resources']} files as declared, {found['rounds']} rounds without a "
        f"pause, connections kept: {found['round_seconds']} s a round ({found['round_cpu_seconds']} s of the "
        f"controller's CPU), {found['ratio']}x of a cold `sparkops drift` of the same run, "
        f"{found['cold_seconds']} s (aim: at most {found['most']}). Most of the cold run is what the nodes do to start "
        f"workers, here on the same cores. The watcher's memory: {found['memory_mib']} MiB at most (aim: below "
        f"{found['most_memory_mib']}), {found['slope_kib_per_round']} KiB more per round.\n"
    )


def _startup(found: Figures) -> Iterable[str]:
    yield "CPU seconds, which other work on the machine disturbs less than those of the wall."
    yield _table(
        ["command", "ratio to `python -c pass`", "aim"],
        [[f"`sparkops {name}`", ratio, START.get(name, "")] for name, ratio in found["ratios"].items()],
    )


def _inventory(found: Figures) -> Iterable[str]:
    load, both = (found["seconds"][name] for name in ("load", "load and compile"))
    yield (
        f"{found['nodes']} nodes and {found['services']} services: {load['median']:.3f} s to load; "
        f"{both['median']:.2f} s to load and compile to {found['resources']} resources (medians of {load['rounds']})."
    )


def _lint(found: Figures) -> Iterable[str]:
    limits, seconds = found["limits"], found["seconds"]
    least = {name: each["min"] / seconds["python -c pass"]["min"] for name, each in seconds.items()}
    ratios = (f"`{name}` {ratio}x (least to least {least[name]:.1f}x)" for name, ratio in found["ratios"].items())
    yield (
        f"{found['nodes']} nodes and {found['services']} services: {found['cpu_seconds']:.2f} s of the CPU to load, "
        f"lint and fit (aim {limits['cpu_seconds']}). One pasted line of a listed model, and of a repository that the "
        f"cache has, in CPU seconds of `python -c pass` (aim {limits['ratios']}x): {', '.join(ratios)}."
    )


def _verifying(found: Figures) -> Iterable[str]:
    limits, seconds = found["limits"], found["seconds"]
    yield (
        f"{found['files']} files of {found['file_mib']} MiB, all read before each run, hashed by a job of the node "
        f"(its start included) and by `xargs -P {found['workers']} openssl dgst -sha256`, in turn: "
        f"{seconds['sparkops']['median']:.2f} s against {seconds['openssl']['median']:.2f} s (medians of "
        f"{seconds['sparkops']['rounds']}), so {found['ratio']}x the speed (aim {limits['ratio']}). Peak memory of the "
        f"job: {found['peak_mib']} MiB."
    )
    yield (
        f"A checkpoint of {found['small_files']} files that has not changed: {found['again_ms']} ms of the CPU of the "
        f"node to observe it, {found['verify_ms']} ms to verify it (aim {limits['again_ms']}).\n"
    )


def _building(found: Figures) -> Iterable[str]:
    limits = found["limits"]
    yield (
        f"A hybrid of {found['bytes'] / 1e9:.1f} GB in {found['shards']} shards, all of which change, against `cp` of "
        "the base on the same disk, in turn, all files in memory at the start. The build hashes, checks samples and "
        "returns when the disk has everything, as `cp` does only with `sync`. Its processes together used at most "
        f"{found['memory_mib']} MiB (aim {limits['memory_mib']})."
    )
    yield _table(
        ["", "seconds, least to most (rounds)", "CPU, s", f"speed of the build to it (aim {limits['ratio']})"],
        [[name, _spread(each, 2), found["cpu_seconds"][name], found["ratios"].get(name, "")]
         for name, each in found["seconds"].items()],
    )  # fmt: skip


def _reports(found: Figures) -> Iterable[str]:
    kept, limits = found["kept"], found["limits"]
    yield (
        f"{found['nodes']} nodes with {found['things']} resources each, {found['share']:.0%} of them not as declared "
        f"(medians of {found['rounds']}; aim for the HTML page {limits['html_seconds']} s and {limits['html_mb']} MB)."
    )
    yield _table(
        ["format", "seconds of a processor", "MB"],
        [[form, each["seconds"], each["mb"]] for form, each in found["formats"].items()],
    )
    yield (
        f"30 days of kept runs, one every five minutes ({kept['runs']} runs of {kept['nodes']} nodes with "
        f"{kept['resources']} resources; what is found differs in each run, and others differ every hour): "
        f"{kept['mb']} MB (aim {limits['kept_mb']}); keeping one takes {kept['keep_ms']} ms. Milliseconds of a "
        f"question (aim {limits['question_ms']}):\n"
    )
    yield _table(["question", "ms"], list(kept["questions_ms"].items()))


SECTIONS = {
    "peers": ("Other tools", _peers),
    "noop": ("A check and the floor", _noop),
    "simulated": ("A thousand nodes", _simulated),
    "startup": ("Start-up", _startup),
    "inventory": ("Loading", _inventory),
    "lint": ("Lint and fit", _lint),
    "output": ("Output of programs", _output),
    "watching": ("Watching an engine", _watching),
    "watch": ("Rounds of a watcher", _watch),
    "spreading": ("A checkpoint from node to node", _spreading),
    "fetching": ("A checkpoint from a hub", _fetching),
    "verifying": ("Verifying checkpoints", _verifying),
    "building": ("Building a checkpoint", _building),
    "reports": ("Reports", _reports),
}


def _seconds(found: Figures, name: str) -> str:
    figures = found["tools"].get(name)
    return f"{figures['median']:.2f} ({figures['rounds']})" if figures else _absent(found, name)


def _absent(found: Figures, name: str) -> str:
    return "left out" if found.get("failed", {}).get(name) == "left out" else "failed"


def _spread(each: Figures, digits: int) -> str:
    median, least, most = (f"{each[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median}, {least} to {most} ({each['rounds']})"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _aims(about: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of aims; each row ends with what was measured and whether that reaches it."""
    told = [[*row[:-1], "yes" if row[-1] else "**no**"] for row in rows]
    return _table([*about, "aim", "measured", "reached"], told)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
