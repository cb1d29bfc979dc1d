"""The kind image, control half: names, what counts as another image, and what is refused before any node is asked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.errors import InventoryError
from sparkops.core.plan import Step
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Observed, Unknown
from sparkops.reconcile.diff import diff
from sparkops.resources.image import Image
from sparkops.resources.images.archive import read_archive
from sparkops.resources.images.build import LABEL, BuiltImage
from sparkops.resources.images.reference import Reference
from tests.errors import fails

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
BASE = f"nvcr.io/nvidia/vllm@{A}"


def image(name: str = "vllm/vllm-openai:v0.26.0", **more: Any) -> Image:
    return Image(node="a", name=name, where="inventory.yml:3:5", **more)


def refused(make: Callable[[], object]) -> str:
    """The id of the error of a declaration that is wrong."""
    with pytest.raises(InventoryError) as caught:
        make()
    return caught.value.id


def found(**more: Any) -> dict[str, Any]:
    seen = {"reference": "vllm/vllm-openai:v0.26.0", "digest": A, "manifest": None, "fits": True, "content": "c"}
    return {**seen, "build": "", **more}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vllm/vllm-openai:v0.26.0", ("vllm/vllm-openai", "v0.26.0", "")),
        ("busybox", ("busybox", "latest", "")),
        ("docker.io/library/busybox:1", ("busybox", "1", "")),
        ("docker.io/library/busybox", ("busybox", "latest", "")),
        ("10.0.0.1:5000/lab/engine:1", ("10.0.0.1:5000/lab/engine", "1", "")),
        ("10.0.0.1:5000/lab/engine", ("10.0.0.1:5000/lab/engine", "latest", "")),
        (f"nvcr.io/nvidia/vllm@{A}", ("nvcr.io/nvidia/vllm", "", A)),
        (f"nvcr.io/nvidia/vllm:26.05@{A}", ("nvcr.io/nvidia/vllm", "26.05", A)),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, parts: tuple[str, str, str]) -> None:
    reference = Reference.parse(text)
    assert (reference.repository, reference.tag, reference.digest) == parts


@pytest.mark.parametrize("text", ["r.test/Upper:1", "a b", "x:", "x@sha256:12", "x@md5:1", "", "-x", "a//b", "x:t/y:"])
def test_what_is_no_name_is_refused_with_its_place(text: str) -> None:
    with fails("image-name-invalid"):
        image(text)


@given(st.text(max_size=60))
def test_a_name_is_either_refused_or_reads_the_same_again(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InventoryError:
        return
    assert Reference.parse(reference.name).name == reference.name


def test_a_tag_is_content_with_what_is_there() -> None:
    assert diff(image(), found(digest=B), {}) is None


def test_a_pinned_digest_is_compared() -> None:
    difference = diff(image(digest=A), found(digest=B), {})
    assert difference is not None and not isinstance(difference, Unknown)
    assert difference.changes == ("digest",)


def test_an_image_for_another_platform_differs() -> None:
    difference = diff(image(), found(fits=False), {})
    assert difference is not None and not isinstance(difference, Unknown)
    assert difference.changes == ("fits",)


def test_a_manifest_that_the_engine_does_not_tell_is_said_and_not_held_against_it() -> None:
    pinned = image(manifest=B)
    assert diff(pinned, found(manifest=None), {}) is None
    assert diff(pinned, found(manifest=A), {}) is not None
    assert pinned.notices(found(manifest=None))[0].id == "image-manifest-unreported"
    assert pinned.notices(found(manifest=B)) == ()


def test_a_digest_in_the_name_is_a_pin() -> None:
    assert (image(f"x/y@{A}").desired() or {})["digest"] == A
    assert refused(lambda: image(f"x/y@{A}", digest=B)) == "image-digests-differ"


def built(**more: Any) -> Image:
    return image("local/x:1", **{"content": f"FROM {BASE}\nCOPY a /a\n", "files": {"/a": "1"}, **more})


def test_equal_inputs_are_one_build_and_every_input_counts() -> None:
    others = [
        built(content=f"FROM {BASE}\nCOPY a /b\n"),
        built(content=f"FROM {BASE.replace('aa', 'bb')}\nCOPY a /a\n"),
        built(files={"/a": "2"}),
        built(files={"/a": "1", "/b": ""}),
        built(args={"X": "1"}),
        built(labels={"x": "1"}),
        built(checks=[["true"]]),
        built(platform="linux/arm64"),
    ]
    hashes = {each.origin.build for each in (*others, built())}
    assert len(hashes) == len(others) + 1
    assert built().origin.build == built(content=Content(f"FROM {BASE}\nCOPY a /a\n")).origin.build


def test_credentials_are_no_input_of_a_build() -> None:
    assert built(username="me", password=Secret("x")).origin.build == built().origin.build


def test_a_build_carries_its_hash_as_a_label_and_names_its_bases() -> None:
    text = f"FROM {BASE} AS first\nFROM --platform=linux/arm64 busybox\nFROM first\nFROM scratch\n"
    wanted = built(content=text)
    step = Step(
        id=wanted.id, kind="image", node="a", action="create", before=None, after=wanted.desired(), changes=("build",)
    )
    act = wanted.act(step)
    assert act["labels"] == {LABEL: wanted.origin.build}
    assert [each["name"] for each in act["bases"]] == [BASE, "busybox:latest"]
    assert wanted.notices(None)[0].args["base"] == "busybox:latest"


def test_secrets_do_not_get_into_an_image() -> None:
    secret = Secret("x")
    assert refused(lambda: built(args={"T": secret})) == "image-build-secret"
    assert refused(lambda: built(labels={"T": secret})) == "image-build-secret"
    assert refused(lambda: built(files={"/t": secret})) == "image-build-file-invalid"
    assert refused(lambda: built(content=Content(Secret("FROM x")))) == "image-dockerfile-secret"


def test_a_password_is_on_its_way_to_the_node_and_nowhere_else() -> None:
    wanted = image("10.0.0.1:5000/x/y:1", username="me", password=Secret("pa55"))
    step = Step(id=wanted.id, kind="image", node="a", action="create", before=None, after={}, changes=())
    assert wanted.act(step)["auth"] == {"serveraddress": "10.0.0.1:5000", "username": "me", "password": "pa55"}
    assert "pa55" not in repr(wanted) + str(wanted.ask()) + str(wanted.desired())


def test_files_beside_the_inventory_are_taken_folders_whole(tmp_path: Path) -> None:
    (tmp_path / "patches" / "deep").mkdir(parents=True)
    (tmp_path / "patches" / "deep" / "a").write_text("A")
    wanted = built(files={"/opt/p": {"file": "patches"}}, folder=str(tmp_path))
    assert isinstance(wanted.origin, BuiltImage)
    assert wanted.origin.files == {"opt/p/deep/a": b"A"}
    missing = refused(lambda: built(files={"/a": {"file": "missing"}}, folder=str(tmp_path)))
    assert missing == "image-build-file-unreadable"


def test_a_folders_dockerignore_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    for path in ("a.txt", "b.log", "keep.log", "deep/c.log", "deep/d.txt", ".git/HEAD", "Dockerfile"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / ".dockerignore").write_text("# a comment\n**/*.log\n!keep.log\n.git\n\n")
    for target, prefix in (("/src", "src/"), (".", "")):
        origin = built(files={target: {"file": str(tmp_path)}}).origin
        assert isinstance(origin, BuiltImage)
        expected = {".dockerignore", "a.txt", "keep.log", "deep/d.txt"} | ({"Dockerfile"} if prefix else set())
        assert set(origin.files) == {prefix + each for each in expected}


@pytest.mark.parametrize("name", ["../up", "a/../../b", "Dockerfile", "/"])
def test_files_stay_inside_of_the_build(name: str) -> None:
    assert refused(lambda: built(files={name: "x"})) == "image-build-path-invalid"


def archive(path: Path, images: int = 1) -> Path:
    config = {"os": "linux", "architecture": "arm64", "config": {"Cmd": ["x"]}, "rootfs": {"diff_ids": [A, B]}}
    members = {
        "layer.tar": b"x" * 4096,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}] * images).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_an_archive_tells_layers_and_configuration_without_being_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar")
    read = read_archive(path)
    assert read.layers == (A, B) and read.config == {"Cmd": ["x"]} and read.platform == "linux/arm64"
    wanted = image("local/x:1", archive="image.tar", folder=str(tmp_path))
    assert wanted.prepare().ask()["like"] == ([A, B], {"Cmd": ["x"]})
    assert diff(wanted, found(reference="local/x:1", archive="declared"), {}) is None
    assert diff(wanted, found(archive="other"), {}) is not None


def test_what_is_no_archive_of_one_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")
    assert refused(lambda: read_archive(tmp_path / "text")) == "image-archive-invalid"
    assert refused(lambda: read_archive(archive(tmp_path / "two.tar", images=2))) == "image-archive-invalid"
    missing = image("local/x:1", archive="missing.tar", folder=str(tmp_path))
    assert refused(missing.prepare) == "image-archive-unreadable"


def test_one_tag_that_is_two_images_in_a_service_is_a_violation() -> None:
    here = image(peer_nodes=("a", "b", "c", "d"))
    others: dict[str, Observed] = {
        "image vllm/vllm-openai:v0.26.0 @b": found(content="other"),
        "image vllm/vllm-openai:v0.26.0 @c": found(),
        "image vllm/vllm-openai:v0.26.0 @d": None,
    }
    (violation,) = here.violations(found(), others.__getitem__)
    assert violation.blocks and violation.message.args["nodes"] == ["b"]
    assert image(peer_nodes=("a", "b"), digest=A).violations(found(), others.__getitem__) == ()
