"""A repack as a build makes it, held against compressed-tensors and transformers themselves, in the lab's image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.worker import checkpoints_made as made
from tests.worker import quantized
from tests.worker.builds import Build

SCRIPT = Path(__file__).parents[1] / "lab" / "decompress.py"


def give(node: Node, folder: Path, name: str) -> None:
    """Put a checkpoint at /srv/repack/NAME."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            node.write(f"/srv/repack/{name}/{path.name}", path.read_bytes())


def decompress(node: Node, image: str, base: str, repacked: str, *options: str) -> dict[str, int]:
    run = [
        "docker",
        "run",
        "--rm",
        "-e",
        "HF_HUB_OFFLINE=1",
        "-v",
        "/srv/repack:/srv:ro",
        "--entrypoint",
        "python3",
        image,
    ]
    said = node.exec(*run, "/srv/decompress.py", f"/srv/{base}", f"/srv/{repacked}", *options, timeout=300)
    found = json.loads(said.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.torch
@pytest.mark.slow
def test_what_is_repacked_is_the_same_bit_for_bit_to_compressed_tensors(lab: Lab, node: Node, tmp_path: Path) -> None:
    """Slow: an image of 1.2 GB is pulled into a fresh node, and torch starts twice."""
    mixed = made.save(tmp_path / "mixed", quantized.tensors(head=False), quantized.config())
    plain = quantized.tensors(fp8=False, head=False, eight=())
    alike = made.save(tmp_path / "alike", plain, quantized.config(eight=()))
    head, whole = tmp_path / "head", tmp_path / "whole"
    Build(mixed, head, [{"lm_head": "int8"}]).run()
    Build(mixed, whole, [{"lm_head": "int8"}, {"repack": "compressed-tensors"}]).run()
    Build(alike, tmp_path / "alone", [{"repack": "compressed-tensors"}]).run()
    for name in ("head", "whole", "alike", "alone"):
        give(node, tmp_path / name, name)
    node.write("/srv/repack/decompress.py", SCRIPT.read_bytes())
    image = lab.auto_round_image().pinned
    node.exec("docker", "pull", "-q", image, timeout=300)

    assert decompress(node, image, "head", "whole") == {
        "float-quantized 8 block": 12,
        "pack-quantized 4 group": 107,
        "pack-quantized 8 channel": 1,
        "pack-quantized 8 group": 2,
    }
    assert decompress(node, image, "alike", "alone", "--logits") == {"pack-quantized 4 group": 109}
