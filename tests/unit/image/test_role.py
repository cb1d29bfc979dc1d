"""The role image: what it makes of an inventory, and the Dockerfile and patches that a build consists of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparkops.compile.compiler import compile_inventory
from sparkops.inventory.load import load
from sparkops.resources.image import Image
from sparkops.resources.images.build import BuiltImage
from sparkops.resources.images.origin import PulledImage
from tests.errors import fails

A = "sha256:" + "a" * 64


def declared(folder: Path, text: str) -> Image:
    file = folder / "inventory.yml"
    file.write_text(
        "version: 1\ncluster: attic\nnodes: {a: {host: 192.0.2.1}}\n"
        f"services: {{one: {{nodes: [a], image: {text}}}}}\n"
    )
    (made,) = compile_inventory(load(file), roles=["image"]).resources
    assert isinstance(made, Image)
    return made


def test_a_reference_is_pulled(tmp_path: Path) -> None:
    made = declared(tmp_path, f"{{pull: 'vllm/vllm-openai:v0.26.0', digest: '{A}'}}")
    assert made.name == "vllm/vllm-openai:v0.26.0" and made.pinned == A and isinstance(made.origin, PulledImage)


def test_a_tag_for_a_build_asks_for_a_build(tmp_path: Path) -> None:
    made = declared(
        tmp_path,
        f"""{{build: {{tag: 'local/x:1', base: 'vllm/vllm-openai@{A}', packages: ['a>=1'], env: {{A: "b c"}},
        files: {{/opt/x.txt: hello}}, run: ["echo x"]}}}}""",
    )
    assert isinstance(made.origin, BuiltImage)
    assert made.origin.dockerfile.splitlines() == [
        f"FROM vllm/vllm-openai@{A}",
        'ENV A="b c"',
        'COPY ["opt/x.txt","/opt/x.txt"]',
        "RUN python3 -m pip install --no-cache-dir 'a>=1'",
        "RUN echo x",
    ]
    assert made.origin.files == {"opt/x.txt": b"hello"}
    assert "torch.version.cuda" in made.origin.checks[0][2]


def test_a_build_without_a_base_is_refused(tmp_path: Path) -> None:
    with fails("image-name-invalid"):
        declared(tmp_path, "{build: {tag: 'local/x:1'}}")


def test_a_service_without_an_image_is_refused(tmp_path: Path) -> None:
    with fails("resource-name-not-text"):
        declared(tmp_path, "{platform: linux/arm64}")


def patched(tmp_path: Path, text: str, sentinel: str = "") -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the patch program that a build gets, on a file with this text."""
    file = tmp_path / "module.py"
    file.write_text(text)
    patch = {"path": str(file), "find": "old = 1", "replace": "new = 1", **({"sentinel": sentinel} if sentinel else {})}
    made = declared(tmp_path, f"{{build: {{tag: 'local/x:1', base: 'x@{A}', patches: [{json.dumps(patch)}]}}}}")
    assert isinstance(made.origin, BuiltImage)
    program, order = tmp_path / "patch.py", tmp_path / "patches.json"
    program.write_bytes(made.origin.files[".sparkops/patch.py"])
    order.write_bytes(made.origin.files[".sparkops/patches.json"])
    done = subprocess.run([sys.executable, str(program), str(order)], capture_output=True, text=True, check=False)
    return done, file.read_text()


def test_a_patch_replaces_its_anchor(tmp_path: Path) -> None:
    done, text = patched(tmp_path, "old = 1\n")
    assert done.returncode == 0 and text == "new = 1\n"


@pytest.mark.parametrize("text", ["other = 1\n", "old = 1\nold = 1\n"])
def test_a_patch_whose_anchor_is_not_there_once_ends_the_build(tmp_path: Path, text: str) -> None:
    done, left = patched(tmp_path, text)
    assert done.returncode != 0 and "upstream has changed" in done.stderr and left == text


def test_a_patch_that_is_in_already_is_left_alone(tmp_path: Path) -> None:
    done, left = patched(tmp_path, "new = 1\n", sentinel="new = 1")
    assert done.returncode == 0 and left == "new = 1\n"
