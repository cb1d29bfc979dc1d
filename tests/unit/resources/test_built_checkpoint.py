"""`built_checkpoint`, control half: the identity of a build, the steps' order, pinned donors, where it is put."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.checkpoints.manifest import Manifest, ManifestFile
from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.core.plan import Step
from sparkops.core.states import Pending, Unknown
from sparkops.inventory.load import load
from sparkops.inventory.lockfile import Lock
from sparkops.inventory.secrets import Masked
from sparkops.models import build_steps
from sparkops.models.built_model import built
from sparkops.models.catalogue import find
from sparkops.models.service_spec import base_folder, model_folder
from sparkops.operate.gc import declared
from sparkops.operate.lock import movable
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.unit import Unit
from tests.errors import fails

COMMIT, OTHER = "1" * 40, "2" * 40
HYBRID: dict[str, Any] = {"hybrid": {"donor": "org/fp8"}}
INVENTORY = """\
version: 1
cluster: attic
nodes: {{spark-01: {{host: 192.0.2.1}}}}
services:
  qwen:
    nodes: [spark-01]
    image: {{pull: vllm/vllm-openai:v0.33.0}}
    checkpoint:
      repository: org/int4
      steps:
{steps}
"""


def manifest(repository: str, commit: str = COMMIT, size: int = 1) -> Manifest:
    return Manifest(repository, commit, (ManifestFile("a.safetensors", size, "sha256:" + "0" * 64),))


def ready(steps: Any, base: Manifest | None = None, *donors: Manifest) -> BuiltCheckpoint:
    """A built checkpoint as `prepare` leaves it."""
    one = BuiltCheckpoint(node="n", name="/m/built", base="/m/base", repository="org/int4", steps=tuple(steps))
    return replace(one, manifest=base or manifest("org/int4"), donors=donors)


def identity(*args: Any) -> str:
    inputs = ready(*args).inputs
    assert inputs is not None
    return inputs.identity


def inventory(tmp_path: Path, *steps: str) -> Path:
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY.format(steps="\n".join(f"        - {step}" for step in steps)))
    return path


def test_the_identity_moves_with_base_donor_and_steps_and_with_nothing_else() -> None:
    donor = manifest("org/fp8")
    first = identity([HYBRID], None, donor)
    assert first == identity(
        [{"hybrid": {"donor": "org/fp8", "revision": "main", "layers": "shared_expert"}}], None, donor
    )
    assert first == identity([{"hybrid": {"donor": "org/fp8", "commit": COMMIT}}], None, donor)
    others = {
        identity([HYBRID], manifest("org/int4", OTHER), donor),
        identity([HYBRID], None, manifest("org/fp8", OTHER)),
        identity([{"hybrid": {"donor": "org/fp8", "layers": "self_attn"}}], None, donor),
        identity([HYBRID, {"lm_head": "int8"}], None, donor),
    }
    assert len(others) == 4
    assert first not in others


def test_donors_are_told_to_the_node_by_number_each_once() -> None:
    steps = [HYBRID, {"mtp": {"donor": "org/bf16"}}, {"lm_head": "int8"}, {"repack": "compressed-tensors"}]
    again = [*steps[:1], {"mtp": {"donor": "org/fp8", "revision": "main"}}]
    assert build_steps.numbered(steps) == [
        {"hybrid": {"layers": "shared_expert", "donor": 0}},
        {"mtp": {"donor": 1}},
        {"lm_head": "int8"},
        {"repack": "compressed-tensors"},
    ]
    assert [donor.repository for donor in build_steps.donors(again)] == ["org/fp8"]


@given(st.permutations(["quantize", "hybrid", "mtp", "lm_head", "repack"]))
def test_quantize_stands_first_and_repack_last_or_it_is_a_fault(order: list[str]) -> None:
    needed = {"hybrid": {"donor": "org/fp8"}, "quantize": {"image": "i", "network": True}}
    steps = [{name: needed.get(name, {})} for name in order]
    right = order[0] == "quantize" and order[-1] == "repack"
    assert (list(build_steps.faults(steps)) == []) is right


@pytest.mark.parametrize(
    ("steps", "line", "id"),
    [
        (["lm_head: int8", "lm_head: int8"], 12, "step-duplicate"),
        (["repack: compressed-tensors", "lm_head: int8"], 11, "step-repack-not-last"),
        (["lm_head: int8", "quantize: {image: i, network: true}"], 12, "step-quantize-not-first"),
        (["hybrid: {donor: fp8}"], 11, "step-donor-invalid"),
        (["hybrid: {donor: org/fp8, layers: '('}"], 11, "hybrid-layers-invalid"),
        (["hybrid: {}"], 11, "required-key-missing"),
        (["hybrid: {donor: org/fp8, force: true}"], 11, "unknown-key"),
        (["lm_head: int4"], 11, "value-not-allowed"),
        (["merge: {}"], 11, "unknown-key"),
        (["{lm_head: int8, mtp: {}}"], 11, "value-out-of-limits"),
    ],
)
def test_a_wrong_step_is_told_at_load_with_its_place(tmp_path: Path, steps: list[str], line: int, id: str) -> None:
    with fails(id, InventoryError) as caught:
        load(inventory(tmp_path, *steps))
    assert f"inventory.yml:{line}:" in str(caught.value)


def test_what_is_served_is_the_built_folder_and_the_base_stands_beside_it(tmp_path: Path) -> None:
    made = compile_inventory(load(inventory(tmp_path, "hybrid: {donor: org/fp8}")))
    ids = [each.id for each in made.resources]
    (one,) = [each for each in made.resources if isinstance(each, BuiltCheckpoint)]
    (unit,) = [each for each in made.resources if isinstance(each, Unit) and each.model]
    base = "/var/lib/sparkops/models/org--int4/main"
    assert one.base == base
    assert one.name == unit.model == f"{base}--built-{build_steps.digest([HYBRID])}"
    assert ids.index(f"checkpoint {base} @spark-01") < ids.index(one.id) < ids.index(unit.id)
    assert one.after == (f"checkpoint {base} @spark-01",)
    built = Step(id=one.id, kind=one.kind, node=one.node, action="create", before=None, after={}, changes=())
    assert unit.pending({one.id: built}, None) == {"container_checkpoint": Pending(one.id)}
    assert declared(made.of("spark-01"))["folders"] == [base, one.name]


def test_a_declared_folder_is_the_built_one_s() -> None:
    told = {"repository": "org/int4", "revision": "main", "folder": "/srv/model", "steps": [HYBRID]}
    assert (model_folder(told, "/s"), base_folder(told, "/s")) == ("/srv/model", "/s/models/org--int4/main")
    plain = {**told, "steps": []}
    assert model_folder(plain, "/s") == base_folder(plain, "/s") == "/srv/model"


def test_a_donor_s_branch_is_locked_like_the_base_s_and_the_lock_moves_no_folder(tmp_path: Path) -> None:
    found = load(inventory(tmp_path, "hybrid: {donor: org/fp8}"))
    keys = {each.key for each in movable(found, Masked())}
    assert {"org/int4@main", "org/fp8@main"} <= keys
    spaces = found.variables("spark-01", "qwen")
    lock = Lock(checkpoints={"org/int4@main": COMMIT, "org/fp8@main": OTHER}, on_disk=True)
    pinned = lock.pinned(spaces)["checkpoint"]
    assert pinned["steps"] == [{"hybrid": {"donor": "org/fp8", "commit": OTHER}}]
    assert model_folder(pinned, "/s") == model_folder(spaces["checkpoint"], "/s")


def test_without_the_hub_s_word_the_state_is_unknown_and_no_folder_is_built_into_its_base() -> None:
    one = BuiltCheckpoint(node="n", name="/m/built", base="/m/base", repository="org/int4", steps=(HYBRID,))
    assert isinstance((one.desired() or {})["identity"], Unknown)
    for folder in ("/m/base", "/m/base/sub", "/m"):
        with fails("build-base-overlaps"):
            BuiltCheckpoint(node="n", name=folder, base="/m/base", repository="org/int4", steps=(HYBRID,))
    BuiltCheckpoint(node="n", name="/m/base-2", base="/m/base", repository="org/int4", steps=(HYBRID,))
    with fails("step-unknown"):
        BuiltCheckpoint(node="n", name="/m/built", base="/m/base", repository="org/int4", steps=({"merge": {}},))


def test_fit_and_lint_see_the_parts_as_they_stand_after_the_steps() -> None:
    base = find("Intel/Qwen3.5-122B-A10B-int4-AutoRound")
    assert base is not None
    after = built(base, [HYBRID, {"mtp": {}}, {"lm_head": "int8"}, {"repack": "compressed-tensors"}])
    formats = {"shared_experts": "fp8", "head": "int8"}
    assert after.quantisation.formats == {**base.quantisation.formats, **formats}
    assert (after.quantisation.method, after.mtp_weights) == ("compressed-tensors", True)
    assert base.quantisation.method == "auto-round"
