"""Manifests are values: canonical, identified by content, and hostile ones are refused."""

import random
import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile, parse
from tests.errors import fails

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OID = "sha256:" + "a" * 64


def manifest(*files: ManifestFile) -> Manifest:
    return Manifest("org/name", COMMIT, files)


def a_file(path: str = "config.json", size: int = 5, oid: str = OID) -> ManifestFile:
    return ManifestFile(path, size, oid)


names = st.text(string.ascii_lowercase, min_size=1, max_size=5)
many = st.dictionaries(names, st.integers(0, 1 << 40), max_size=8).map(
    lambda found: [a_file(name, size, f"sha256:{size:064x}") for name, size in found.items()]
)


@given(many, st.randoms())
def test_the_order_in_which_a_hub_lists_files_does_not_change_the_identity(
    files: list[ManifestFile], chance: random.Random
) -> None:
    shuffled = list(files)
    chance.shuffle(shuffled)
    assert manifest(*files).digest == manifest(*shuffled).digest


@given(many)
def test_the_canonical_text_reads_back_as_the_same_manifest(files: list[ManifestFile]) -> None:
    assert parse(manifest(*files).canonical) == manifest(*files)


def test_any_other_content_is_another_identity() -> None:
    one = manifest(a_file())
    others = [
        manifest(a_file(size=6)),
        manifest(a_file(path="other")),
        manifest(a_file(oid="sha256:" + "b" * 64)),
        Manifest("org/name", "f" * 40, (a_file(),)),
    ]
    assert len({one.digest, *(each.digest for each in others)}) == 5


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../up", "a/../../b", "a//b", "./a", "", "a\nb", "a\0b", "a\\b", "x" * 300,
     ".sparkops/manifest.json"],
)  # fmt: skip
def test_a_hostile_path_is_refused(path: str) -> None:
    with fails("manifest-file-invalid"):
        manifest(a_file(path))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([a_file(size=-1)], "config.json -1"),
        ([a_file(size=True)], "config.json True"),
        ([a_file(oid="md5:00")], "config.json 'md5:00'"),
        ([a_file(oid="sha256:../../etc/passwd")], "config.json 'sha256:"),
        ([a_file(), a_file()], "config.json it is listed twice"),
        ([a_file("a"), a_file("a/b")], "a it is both"),
        ([a_file("a", 1), a_file("b", 2)], "b one content"),
    ],
)
def test_a_hostile_list_of_files_is_refused(files: Sequence[ManifestFile], why: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest(*files)
    assert caught.value.id == "manifest-file-invalid"
    assert "{path} {why}".format(**caught.value.args_by_name).startswith(why)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": [[1]]}', '{"files": 3}', "[" * 100_000])
def test_a_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(text)
    assert caught.value.id == "manifest-unreadable"


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a b", "org/..", "/x", "-x/y"])
def test_a_name_that_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest(name, COMMIT, (a_file(),))
    assert caught.value.id == "hub-repository-name-invalid"


def test_patterns_choose_files_as_the_hubs_client_does() -> None:
    whole = manifest(a_file("a.json"), a_file("b.bin"), a_file("sub/c.json"), a_file("sub/d.bin"))

    def left(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
        return [file.path for file in whole.chosen(include, exclude).files]

    assert left() == ["a.json", "b.bin", "sub/c.json", "sub/d.bin"]
    assert left(include=["*.json"]) == ["a.json", "sub/c.json"]
    assert left(include=["sub/"]) == ["sub/c.json", "sub/d.bin"]
    assert left(exclude=["sub/*", "*.bin"]) == ["a.json"]
    with pytest.raises(ManifestError) as caught:
        left(include=["*.gguf"])
    assert caught.value.id == "manifest-choice-empty"
