"""The step `quantize` on a node: AutoRound itself on the tiny model, and a stand-in for it that fails on demand."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import model as tiny
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

REPO = "org/tiny"
ROLE = ("--role", "checkpoint")
TEXTS = "/srv/texts.json"
STAND_IN = "local/stand-in:1"
WORK = "/data/.tiny.sparkops-quantized"

PROGRAM = '''#!/usr/bin/python3
"""Takes auto-round's command line and writes the base with a quantization_config; how it goes is said by the data."""
import json, os, shutil, sys, time
given = dict(zip(sys.argv[1:], sys.argv[2:]))
mode = json.load(open(given["--dataset"]))[0]
print("Quantizing model.layers.1:  25%|##  | 1/4 [00:01<00:03,  1.0s/it] going", flush=True)
while mode == "wait" and not os.path.exists("/work/home/go"):
    time.sleep(0.05)
if mode == "eat":
    eaten = b"x" * (512 << 20)
if mode == "fail":
    sys.exit("ValueError: W9A16 is not supported. only dict_keys(['W4A16'])")
made = given["--output_dir"] + "/base-w4g128"
shutil.copytree(given["--model"], made, ignore=shutil.ignore_patterns(".sparkops"))
config = json.load(open(made + "/config.json"))
os.chmod(made + "/config.json", 0o644)
scheme = {"bits": 4, "quant_method": "auto-round"}
json.dump({**config, "quantization_config": scheme}, open(made + "/config.json", "w"))
'''


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Node]:
    """One node for all tests of the stand-in; it has the stand-in's image."""
    node = lab.add_node()
    node.write("/root/stand-in/auto-round", PROGRAM.encode(), mode=0o755)
    lines = f"FROM {lab.engine_image.pinned}\nENTRYPOINT []\nCOPY auto-round /usr/local/bin/auto-round\n"
    node.write("/root/stand-in/Dockerfile", lines.encode())
    node.exec("docker", "build", "-q", "-t", STAND_IN, "/root/stand-in", timeout=120)
    yield node
    lab.remove_node(node)


class Declared:
    """An inventory whose model is quantised, and what became of it on the node."""

    def __init__(self, shell: Shell, hub: Hub, node: Node, model: Path) -> None:
        self.shell, self.hub, self.node = shell, hub, node
        hub.add_repo(REPO, tiny.write(model))

    def write(self, *more: dict[str, Any], **step: Any) -> None:
        """Declare the step with these options, and `more` steps behind it."""
        given = {"gpu": False, "dataset": TEXTS, "torch_compile": False, **step}
        checkpoint = {
            "repository": REPO,
            "endpoint": self.hub.endpoint,
            "folder": "/data/tiny",
            "steps": [{"quantize": given}, *more],
        }
        name = self.node.name
        self.shell.write(
            "inventory.yml",
            "version: 1\ncluster: quantize\nconnection: {user: spark, become: true}\n"
            f"nodes: {{{name}: {{}}}}\nservices:\n  tiny:\n    nodes: [{name}]\n    port: 8000\n"
            f"    image: {{pull: none}}\n    checkpoint: {json.dumps(checkpoint)}\n",
        )

    def mode(self, word: str) -> None:
        self.node.write(TEXTS, json.dumps([word]).encode())

    def start(self) -> subprocess.Popen[str]:
        return self.shell.start("apply", "inventory.yml", "--yes", *ROLE)

    def container(self) -> str:
        """Id of the container, running or not; empty without one."""
        return self.node.text("docker", "ps", "-aq", "--filter", "label=sparkops.quantize")

    def running(self) -> str:
        """Id of the container where it runs."""
        return self.node.text("docker", "ps", "-q", "--filter", "label=sparkops.quantize")

    def failed(self) -> str:
        """What an apply says that does not come through."""
        done = self.shell.run("apply", "inventory.yml", "--yes", *ROLE, status=4)
        return " ".join((done.stdout + done.stderr).split())

    def settled(self) -> dict[str, Any]:
        """An apply that comes through, with nothing left over; the config.json that it published."""
        self.shell.run("apply", "inventory.yml", "--yes", *ROLE)
        self.shell.run("drift", "inventory.yml", *ROLE)
        assert self.container() == ""
        names = self.node.text("ls", "-A", "/data").split()
        assert [name for name in names if name.startswith(".")] == []
        found = json.loads(self.node.read("/data/tiny/config.json"))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def declared(shell: Shell, hub: Hub, machine: Node, tmp_path: Path) -> Iterator[Declared]:
    yield Declared(shell, hub, machine, tmp_path / "model")
    machine.exec("sh", "-c", "docker rm -f $(docker ps -aq) 2>&1; rm -rf /data /srv/texts.json; mkdir /data")


def test_what_can_not_run_says_why(lab: Lab, declared: Declared) -> None:
    declared.write(image=f"{lab.registry.host}/none/auto-round:9", iters=0, plain_rtn=True)
    said = declared.failed()
    assert "none/auto-round:9 is not in the registry" in said
    declared.write(image=lab.engine_image.pinned, iters=0, plain_rtn=True)
    assert "has no auto-round on its PATH" in declared.failed()
    declared.mode("eat")
    declared.write(image=STAND_IN, memory=0.1)
    said = declared.failed()
    # Docker learns of the end and of its reason by two events; where the end comes first, it never says OOMKilled.
    assert "AutoRound ran out of memory" in said or "by a person or for lack of memory" in said
    assert declared.container() == ""


def test_a_container_outlives_its_job_and_is_followed_again(declared: Declared) -> None:
    declared.mode("wait")
    declared.write(image=STAND_IN)
    process = declared.start()
    until(declared.running, process)
    first = declared.running()
    declared.node.exec("pkill", "-9", "-f", "sparkops-job")
    assert process.wait(180) == 4
    assert declared.running() == first
    again = declared.start()
    until(lambda: declared.node.exec("pgrep", "-f", "sparkops-job", check=False).returncode == 0, again)
    declared.node.exec("touch", f"{WORK}/home/go")
    out, err = again.communicate(timeout=180)
    assert again.returncode == 0, out + err
    assert declared.container() == ""
    assert declared.node.text("stat", "-c", "%U", "/data/tiny/config.json") == "spark"


def test_other_options_remove_the_container_of_the_old_ones(declared: Declared) -> None:
    declared.mode("wait")
    declared.write(image=STAND_IN)
    process = declared.start()
    until(declared.running, process)
    first = declared.running()
    declared.node.exec("pkill", "-9", "-f", "sparkops-job")
    assert process.wait(180) == 4
    declared.write(image=STAND_IN, iters=50)
    process = declared.start()
    until(lambda: declared.running() not in ("", first), process)
    declared.node.exec("docker", "kill", declared.running())
    out, err = process.communicate(timeout=180)
    assert process.returncode == 4 and "by a person or for lack of memory" in " ".join((out + err).split())
    declared.mode("well")
    assert declared.settled()["quantization_config"]["bits"] == 4


def test_a_cancelled_apply_takes_its_container_away(declared: Declared) -> None:
    declared.mode("wait")
    declared.write(image=STAND_IN)
    process = declared.start()
    until(declared.running, process)
    declared.shell.run("cancel", "--yes")
    assert process.wait(180) != 0
    assert declared.container() == ""
    assert declared.node.exists(f"{WORK}/resume"), "finished layers are kept"


@pytest.mark.slow
@pytest.mark.torch
def test_auto_round_quantises_the_tiny_model_killed_in_the_middle_and_resumed(
    lab: Lab, declared: Declared, tmp_path: Path
) -> None:
    image = lab.auto_round_image()
    declared.node.exec("docker", "pull", "-q", image.pinned, timeout=600)
    texts = [{"text": " ".join(f"{word} {number}" for word in ("a", "quick", "fox") * 40)} for number in range(16)]
    declared.node.write(TEXTS, json.dumps(texts).encode())
    step = {"iters": 3, "nsamples": 2, "seqlen": 64, "batch_size": 1, "group_size": 32, "keep": ["linear_attn"]}
    declared.write(image=image.pinned, **step)

    process = declared.start()
    layers = f"cat {WORK}/resume/*/resume_manifest.json 2>/dev/null | grep -q layers.0"
    until(lambda: declared.node.exec("sh", "-c", layers, check=False).returncode == 0, process, 300)
    declared.node.exec("docker", "kill", declared.running())
    assert process.wait(180) == 4
    process = declared.start()
    until(declared.running, process)
    log = ""
    while (found := declared.running()) and process.poll() is None:
        log = declared.node.text("sh", "-c", f"docker logs {found} 2>&1 || true") or log
        time.sleep(0.5)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err + log
    assert "ResumeState: resuming after" in log

    config = declared.settled()
    assert config["quantization_config"]["bits"] == 4 and config["architectures"] == ["Qwen3_5MoeForCausalLM"]
    built = tmp_path / "built"
    built.mkdir()
    for name in declared.node.text("ls", "/data/tiny").split():
        (built / name).write_bytes(declared.node.read(f"/data/tiny/{name}"))
    told = declared.shell.json("checkpoint", "inspect", str(built))
    assert told["faults"] == [] and "4 bits, groups of 32" in told["quantization"]
    shares = {(each["part"], each["dtype"]) for each in told["shares"]}
    assert {("experts", "I32"), ("mtp", "BF16")} <= shares
    kept = {dtype for part, dtype in shares if part == "linear attention"}
    assert kept and kept <= {"F32", "BF16"}, "transformers' versions differ in what they write of it"
    serves(declared.node, lab)


def serves(node: Node, lab: Lab) -> None:
    """transformers loads what was published, and says something."""
    program = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "m, t = M.from_pretrained('/model'), T.from_pretrained('/model')\n"
        "assert any(type(x).__name__ == 'QuantLinear' for x in m.modules())\n"
        "print('made', m.generate(**t('hello', return_tensors='pt'), max_new_tokens=4).shape[1])\n"
    )
    run = ("docker", "run", "--rm", "--network", "none", "-e", "HF_HUB_OFFLINE=1", "-v", "/data/tiny:/model:ro")
    image = lab.auto_round_image().pinned
    said = node.text(*run, "--entrypoint", "/usr/bin/python3", image, "-c", program)
    assert "made 9" in said
