"""`lint INVENTORY`: findings with their lines, what only an inventory shows, what it accepts, and the gate of plan."""

import json
from datetime import date
from pathlib import Path

import pytest

from sparkops.cli.app import run
from sparkops.core.errors import LintError
from sparkops.inventory.load import load
from sparkops.lint.check import Finding
from sparkops.lint.declared import lint_inventory, refuse

TODAY = date(2026, 3, 1)
HEAD = """\
version: 1
cluster: attic
nodes:
  spark-01: {host: 192.0.2.1, fabric: {address: 198.51.100.1}}
  spark-02: {host: 192.0.2.2, fabric: {address: 198.51.100.2}}
services:
"""
PINNED = "sha256:" + "0" * 64
COMMIT = "1" * 40


def service(name: str, serve: str = "", more: str = "", nodes: str = "spark-01", version: str = "v0.26.0") -> str:
    """A service whose image and checkpoint are pinned; `serve` are its flags, one a line below line 4 of it."""
    limits = "max-num-batched-tokens: 8192, max-num-seqs: 4, enable-prefix-caching: false"
    return (
        f"  {name}:\n    nodes: [{nodes}]\n"
        f"    image: {{pull: 'vllm/vllm-openai:{version}', digest: '{PINNED}'}}\n"
        f"    checkpoint: {{repository: Intel/Qwen3.5-122B-A10B-int4-AutoRound, revision: '{COMMIT}'}}\n"
        f"    serve: {{{limits}, gpu-memory-utilization: 0.4{', ' + serve if serve else ''}}}\n{more}"
    )


def found(tmp_path: Path, *services: str, more: str = "") -> list[Finding]:
    path = tmp_path / "inventory.yml"
    path.write_text(HEAD + "".join(services) + more)
    return lint_inventory(load(path), TODAY)


def ids(findings: list[Finding]) -> list[str]:
    return [each.id for each in findings]


def test_a_sound_service_has_no_finding(tmp_path: Path) -> None:
    assert found(tmp_path, service("qwen")) == []


def test_a_finding_stands_at_the_line_of_its_flag(tmp_path: Path) -> None:
    each = found(tmp_path, service("qwen", "tensor-parallel-size: 3"))[0]
    assert (each.id, each.subject) == ("heads-not-divisible", "services.qwen")
    assert each.where == f"{tmp_path}/inventory.yml:11"


def test_the_thread_s_crash_is_found_in_an_inventory_and_its_cure_is_right(tmp_path: Path) -> None:
    crash = "kv-cache-dtype: fp8, enable-prefix-caching: true, max-num-batched-tokens: {}"
    flags = service("qwen").replace("max-num-batched-tokens: 8192, ", "").replace("enable-prefix-caching: false, ", "")
    line = flags.replace("gpu-memory-utilization: 0.4", "gpu-memory-utilization: 0.4, " + crash.format(4175))
    assert "align-block-over-batched-tokens" in ids(found(tmp_path, line))
    assert ids(found(tmp_path, line.replace("4175", "4176"))) == []


def test_the_engine_is_what_is_declared_before_the_tag_and_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "r.yml").write_text("summary: s\nengine: '0.33.0'\nvariables: {}\n")
    own = "    recipe: r\n    engine: '0.19.1'\n"
    flag = "quantization-config: {linear: fp8_per_block}"
    engines = {each.engine for each in found(tmp_path, service("qwen", flag, own))}
    assert engines == {"0.19.1"}
    assert ids(found(tmp_path, service("qwen", flag, "    recipe: r\n", version="lab"))) == []


def test_an_unknown_engine_is_told_and_its_line_is_not_judged(tmp_path: Path) -> None:
    assert ids(found(tmp_path, service("qwen", "swap-space: 4", version="lab"))) == ["engine-unknown"]


def test_a_line_that_cannot_be_made_is_an_error_with_its_reason(tmp_path: Path) -> None:
    each = found(tmp_path, service("qwen").replace(f"pull: 'vllm/vllm-openai:v0.26.0', digest: '{PINNED}'", ""))[0]
    assert (each.id, each.severity, each.subject) == ("line-not-made", "error", "services.qwen")
    assert "the service has no image" in each.message
    assert "set image:" in each.remedy


def test_what_is_no_vllm_is_not_judged(tmp_path: Path) -> None:
    assert ids(found(tmp_path, service("qwen", "swap-space: 4", "    command: [python3, server.py]\n"))) == []


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (f", digest: '{PINNED}'", "", "image-not-pinned"),
        (f":v0.26.0', digest: '{PINNED}'", ":latest'", "image-moves"),
        (COMMIT, "main", "checkpoint-not-pinned"),
        ("serve:", "timeouts: {first_boot_seconds: 2399}\n    serve:", "cold-start-limit"),
    ],
)
def test_what_moves_or_is_too_short_is_told(tmp_path: Path, old: str, new: str, name: str) -> None:
    assert name in ids(found(tmp_path, service("qwen").replace(old, new)))


@pytest.mark.parametrize("folder", ["/etc", "/home", "/home/spark", "/usr/bin", "/var/lib/sparkops/claims", "/proc/1"])
def test_a_checkpoint_in_a_folder_of_the_system_is_an_error(tmp_path: Path, folder: str) -> None:
    text = service("qwen").replace("{repository:", f"{{folder: {folder}, repository:")
    (each,) = found(tmp_path, text)
    assert (each.id, each.severity) == ("checkpoint-folder-taken", "error")


@pytest.mark.parametrize("name", ["docker", "ssh", "dbus", "systemd-journald"])
def test_a_service_called_like_a_unit_of_the_system_is_an_error(tmp_path: Path, name: str) -> None:
    (each,) = found(tmp_path, service(name))
    assert (each.id, each.severity) == ("unit-of-system", "error")
    assert found(tmp_path, service(name, more="    unit: engine.service\n")) == []


def test_two_services_on_one_port_are_an_error_unless_they_exclude_each_other(tmp_path: Path) -> None:
    assert ids(found(tmp_path, service("a"), service("b"))) == ["port-taken-twice"]
    assert ids(found(tmp_path, service("a"), service("b", more="    port: 8001\n"))) == []
    assert ids(found(tmp_path, service("a"), service("b", more="    conflicts: [a.service]\n"))) == []
    assert ids(found(tmp_path, service("a"), service("b", nodes="spark-02"))) == []


def test_the_memory_of_all_services_of_a_node_counts(tmp_path: Path) -> None:
    more = service("b", more="    port: 8001\n").replace("0.4", "0.51")
    each = found(tmp_path, service("a"), more)[0]
    assert each.id == "memory-of-services"
    assert "0.91" in each.message
    assert ids(found(tmp_path, service("a"), more.replace("0.51", "0.5"))) == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("port-taken-twise", "did you mean port-taken-twice?"),
        ("port-taken-twice@qwem", "did you mean qwen?"),
        ("weights-do-not-fits", "did you mean weights-do-not-fit?"),
        ("port-taken-twice, until: '2026-01-01'", "ran out on 2026-01-01"),
        ("driver.version-denied", ""),
        ("port-taken-twice@qwen", ""),
        ("weights-do-not-fit", ""),
    ],
)
def test_an_acceptance_that_accepts_nothing_is_told(tmp_path: Path, entry: str, words: str) -> None:
    more = f"accept: [{{id: {entry}, reason: because}}]\n"
    each = found(tmp_path, service("qwen"), more=more)
    assert [finding.id for finding in each] == (["acceptance-idle"] if words else [])
    assert all(words in finding.message for finding in each)


def test_ranks_and_nodes_of_a_service_have_to_agree(tmp_path: Path) -> None:
    both = "spark-01, spark-02"
    ready = "    environment: {VLLM_ENGINE_READY_TIMEOUT_S: 3600}\n"
    flags = "enforce-eager: true, tensor-parallel-size: "
    assert ids(found(tmp_path, service("a", f"{flags}4", ready, nodes=both)))[0] == "nodes-of-service"
    assert ids(found(tmp_path, service("a", f"{flags}2", ready, nodes=both))) == []
    assert ids(found(tmp_path, service("a", f"{flags}2", nodes=both))) == ["engine-ready-limit"]


def test_replicas_on_several_nodes_are_no_ranks(tmp_path: Path) -> None:
    assert ids(found(tmp_path, service("a", nodes="spark-01, spark-02").replace("0.4", "0.85"))) == []


def test_on_a_spark_what_freezes_it_is_an_error(tmp_path: Path) -> None:
    assert [each.severity for each in found(tmp_path, service("a").replace("0.4", "0.93"))] == ["error"]


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        ("{id: heads-not-divisible, reason: patched}", True),
        ("{id: heads-not-divisible@qwen, reason: patched, until: 2026-03-01}", True),
        ("{id: heads-not-divisible@other, reason: patched}", False),
        ("{id: heads-not-divisible, reason: patched, until: 2026-02-28}", False),
    ],
)
def test_an_accepted_finding_is_told_with_its_reason_and_refuses_nothing(
    tmp_path: Path, entry: str, taken: bool
) -> None:
    text = entry.replace("2026-03-01", "'2026-03-01'").replace("2026-02-28", "'2026-02-28'")
    findings = found(tmp_path, service("qwen", "tensor-parallel-size: 3"), more=f"accept: [{text}]\n")
    each = next(each for each in findings if each.id == "heads-not-divisible")
    assert each.accepted.startswith("patched") is taken


def test_the_gate_raises_every_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(HEAD + service("a", "tensor-parallel-size: 3") + service("b", "kv-cache-dtype: int8"))
    with pytest.raises(LintError) as raised:
        refuse(load(path), TODAY)
    text = str(raised.value)
    assert "inventory.yml:11: services.a" in text
    assert "[port-taken-twice]" in text
    assert "[flag-choice]" in text
    refuse(load(path), TODAY, ["spark-02"])


def test_plan_stops_before_any_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(HEAD + service("a", "tensor-parallel-size: 3"))
    assert run(["plan", str(path)]) == 1
    assert "heads-not-divisible" in capsys.readouterr().err


def test_the_command_judges_an_inventory_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(HEAD + service("a", "tensor-parallel-size: 3"))
    assert run(["lint", str(path), "--format", "json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["findings"][0]["where"] == f"{path}:11"
    assert run(["lint", str(path), "--format", "github"]) == 1
    assert f"::error file={path},line=11,title=heads-not-divisible::" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["one-spark", "two-sparks", "lab"])
def test_no_error_fires_on_a_shipped_inventory(name: str) -> None:
    loaded = load(Path(__file__).parents[3] / "inventories" / f"{name}.yml")
    assert [each for each in lint_inventory(loaded, TODAY) if each.severity == "error"] == []


def built(steps: str, version: str = "v0.33.0") -> str:
    """A service whose checkpoint is built by these steps."""
    text = service("qwen", version=version)
    return text.replace(f"revision: '{COMMIT}'}}", f"revision: '{COMMIT}', steps: [{steps}]}}")


def test_what_declared_steps_make_is_judged_with_the_engine_that_serves_it(tmp_path: Path) -> None:
    hybrid = f"hybrid: {{donor: Qwen/Qwen3.5-122B-A10B-FP8, revision: '{COMMIT}'}}"
    names = ids(found(tmp_path, built(f"{hybrid}, lm_head: int8")))
    assert {"hybrid-checkpoint", "head-int8-unread"} <= set(names)
    repacked = found(tmp_path, built(f"{hybrid}, lm_head: int8, repack: compressed-tensors"))
    assert not {"hybrid-checkpoint", "head-int8-unread"} & set(ids(repacked))


@pytest.mark.parametrize(
    ("steps", "version", "told"),
    [
        ("lm_head: int8, repack: compressed-tensors", "v0.25.1", True),
        ("lm_head: int8, repack: compressed-tensors", "v0.33.0", False),
        ("repack: compressed-tensors", "v0.28.0", False),
    ],
)
def test_what_repack_makes_of_a_hybrid_wants_an_engine_that_was_seen_to_read_it(
    tmp_path: Path, steps: str, version: str, told: bool
) -> None:
    assert ("repack-unread" in ids(found(tmp_path, built(steps, version)))) is told


def test_a_donor_s_branch_is_told_where_it_stands(tmp_path: Path) -> None:
    (each,) = found(tmp_path, built("mtp: {donor: Qwen/Qwen3.5-122B-A10B}"))
    assert (each.id, "the donor Qwen/Qwen3.5-122B-A10B at main" in each.message) == ("checkpoint-not-pinned", True)
    assert each.where.endswith("inventory.yml:10")
    assert "mtp: {donor: Qwen/Qwen3.5-122B-A10B, revision: …}" in each.remedy


@pytest.mark.parametrize(
    ("image", "name"),
    [("org/auto-round", "image-moves"), ("org/auto-round:0.16", "image-not-pinned"), (f"org/auto-round@{PINNED}", "")],
)
def test_the_image_that_quantises_is_judged_like_the_one_that_serves(tmp_path: Path, image: str, name: str) -> None:
    findings = found(tmp_path, built(f"quantize: {{image: '{image}', network: true}}"))
    assert [each.id for each in findings if each.id.startswith("image-")] == ([name] if name else [])
    assert all("digest: image:" in each.remedy for each in findings if each.id == name)
