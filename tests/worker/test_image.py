"""The kind image, node half: states out of what engines answer, progress, and errors in words."""

from __future__ import annotations

import contextlib
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.programs import docker
from sparkops.worker.calls import Refused
from sparkops.worker.images import build, pull
from sparkops.worker.kinds import image
from tests.errors import fails
from tests.worker.engines import running, say

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
LAYERS = [A, B]
ENGINE = {"Os": "linux", "Arch": "arm64"}


def told(**more: Any) -> dict[str, Any]:
    return {
        "Id": C,
        "Os": "linux",
        "Architecture": "arm64",
        "Size": 1,
        "RepoDigests": [f"x/y@{A}"],
        "RootFS": {"Layers": LAYERS},
        "Config": {"Cmd": ["x"], "Hostname": "", "Labels": None},
        **more,
    }


def state(answer: dict[str, Any], **ask: Any) -> dict[str, Any]:
    return image.state(answer, {"name": "x/y:1", "repository": "x/y", "tag": "1", **ask}, ENGINE)


def test_the_digest_is_the_pinned_one_where_the_image_has_several() -> None:
    several = told(RepoDigests=[f"x/y@{A}", f"x/y@{B}", f"z@{C}"])
    assert state(several, digest=B)["digest"] == B
    assert state(several, digest=C)["digest"] == A


def test_a_loaded_image_has_no_digest_and_the_same_content() -> None:
    loaded = state(told(RepoDigests=[], Id=A))
    assert loaded["digest"] == "" and loaded["content"] == state(told())["content"]


def test_content_is_the_order_of_layers_and_how_it_runs() -> None:
    same = state(told(Config={"Cmd": ["x"], "Domainname": "d", "Image": "sha256:other", "Env": []}))
    assert same["content"] == state(told())["content"]
    for other in (
        told(RootFS={"Layers": [B, A]}),
        told(Config={"Cmd": ["y"]}),
        told(Config={"Cmd": ["x"], "Env": ["A=1"]}),
    ):
        assert state(other)["content"] != state(told())["content"]


def test_an_archive_is_recognised_by_content() -> None:
    config = {"Cmd": ["x"], "ArgsEscaped": True}
    assert state(told(), like=(LAYERS, config))["archive"] == "declared"
    assert state(told(), like=([A], config))["archive"] == "other"


def test_a_containerd_store_tells_the_manifest_of_the_platform() -> None:
    def kept(digest: str, architecture: str, available: bool = True, kind: str = "image") -> dict[str, Any]:
        platform = {"os": "linux", "architecture": architecture}
        return {"ID": digest, "Kind": kind, "Available": available, "ImageData": {"Platform": platform}}

    answer = told(
        Descriptor={"digest": A},
        RepoDigests=[f"x/y@{C}", f"x/y@{A}"],
        Manifests=[kept(A, "amd64"), kept(C, "arm64", available=False), kept(B, "arm64")],
    )
    assert state(answer)["manifest"] == B
    assert state(answer)["digest"] == A


def test_another_engine_tells_the_manifest_only_where_it_was_pulled_by_it() -> None:
    assert state(told())["manifest"] is None
    assert state(told(RepoDigests=[f"x/y@{A}", f"x/y@{B}"]), manifest=B)["manifest"] == B


@pytest.mark.parametrize(
    ("platform", "wanted", "serves"),
    [
        ("linux/arm64", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm", "linux/arm64", False),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm/v6", "linux/arm/v7", False),
    ],
)
def test_a_platform_serves_where_it_runs(platform: str, wanted: str, serves: bool) -> None:
    assert pull.fits(platform, wanted) is serves


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("manifest for r.test/x:9 not found: manifest unknown: manifest unknown", "image-not-in-registry"),
        ('failed to resolve reference "r.test/x:9": r.test/x:9: not found', "image-not-in-registry"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "image-platform-missing"),
        ("no match for platform in manifest: not found", "image-platform-missing"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "image-access-denied"),
        ('Head "https://r.test/v2/x/manifests/9": no basic auth credentials', "image-access-denied"),
        ('Get "https://r.test/v2/": unauthorized: authentication required', "image-access-denied"),
        ('Get "https://r.test/v2/": http: server gave HTTP response to HTTPS client', "image-registry-plain-http"),
        ('Get "https://r.test/v2/": dial tcp: lookup r.test: no such host', "image-registry-unreachable"),
        ('Get "https://r.test/v2/": dial tcp 1.2.3.4:443: connect: connection refused', "image-registry-unreachable"),
        ("net/http: request canceled (Client.Timeout exceeded while awaiting headers)", "image-registry-unreachable"),
        ("tls: failed to verify certificate: x509: signed by unknown authority", "image-registry-certificate"),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "image-disk-full"),
        ("toomanyrequests: You have reached your pull rate limit", "image-registry-rate-limit"),
        ("something new", "image-engine-error"),
    ],
)
def test_each_of_an_engines_errors_is_told_from_the_others(text: str, id: str) -> None:
    refused = pull.engine_error(text, {"name": "r.test/x:9", "repository": "r.test/x", "tag": "9"}, "linux/arm64")
    assert (refused.id, refused.values["server"], refused.values["tag"]) == (id, "r.test", "9")


def test_a_refused_login_is_another_matter_than_a_missing_one() -> None:
    asked = {"name": "r.test/x:9", "repository": "r.test/x", "auth": {"username": "me"}}
    assert pull.engine_error("unauthorized", asked).id == "image-login-refused"


@pytest.mark.parametrize(
    ("repository", "server"),
    [
        ("vllm/vllm-openai", "docker.io"),
        ("nvcr.io/nvidia/vllm", "nvcr.io"),
        ("localhost/x", "localhost"),
        ("h:5000/x", "h:5000"),
    ],
)
def test_the_registry_is_the_first_part_that_looks_like_a_host(repository: str, server: str) -> None:
    assert pull.engine_error("", {"name": repository, "repository": repository}).values["server"] == server


PULL = [
    {"status": "Pulling from x/y", "id": "1"},
    {"status": "Pulling fs layer", "id": "a"},
    {"status": "Pulling fs layer", "id": "b"},
    {"status": "Already exists", "id": "c"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}},
    {"status": "Downloading", "id": "b", "progressDetail": {"current": 10, "total": 300}},
    {"status": "Download complete", "id": "a"},
    {"status": "Extracting", "id": "a", "progressDetail": {"current": 5, "total": 100}},
    {"status": "Pull complete", "id": "a"},
    {"status": "Digest: sha256:…"},
]


def test_progress_is_summed_over_the_layers() -> None:
    tally = pull.PullProgress()
    for line in PULL:
        tally.take(line)
    assert (tally.done, tally.total) == (110, 400)
    assert tally.text == "pulling, 2 of 3 layers ready"


_LINE = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b"]),
        "status": st.sampled_from(["Downloading", "Extracting", "Download complete", "Pull complete", "Waiting"]),
        "progressDetail": st.fixed_dictionaries({"current": st.integers(0, 100), "total": st.just(100)}),
    }
)


@given(st.lists(_LINE))
def test_progress_never_goes_back_and_never_beyond_its_total(lines: list[dict[str, Any]]) -> None:
    tally = pull.PullProgress()
    before = 0
    for line in lines:
        tally.take(line)
        assert before <= tally.done <= (tally.total or 0)
        before = tally.done


def test_a_build_context_is_the_same_bytes_for_the_same_input() -> None:
    first = build.context("FROM x", {"b": b"2", "a/c": b"1"})
    assert first == build.context("FROM x", {"a/c": b"1", "b": b"2"})
    with tarfile.open(fileobj=BytesIO(first)) as tar:
        assert tar.getnames() == ["Dockerfile", "a/c", "b"]


def test_a_build_tells_its_step_and_keeps_the_lines_of_the_failing_one() -> None:
    log = build.BuildLog()
    for text in ("Step 1/2 : FROM x\n", " ---> 1\n", "Step 2/2 : RUN make\n", "compiling\n", "boom\n"):
        log.take({"stream": text})
    log.take({"aux": {"ID": "sha256:1"}})
    assert (log.number, log.steps, log.image) == (2, 2, "sha256:1")
    refused = log.failure("The command '/bin/sh -c make' returned a non-zero code: 2", "local/x:1")
    assert refused.id == "image-build-failed"
    assert [refused.values[key] for key in ("step", "steps", "instruction")] == [2, 2, "RUN make"]
    assert refused.detail.splitlines()[:2] == ["compiling", "boom"]


def test_a_full_disk_in_a_build_is_called_that() -> None:
    log = build.BuildLog()
    log.take({"stream": "Step 1/1 : RUN x\n"})
    assert log.failure("write /x: no space left on device", "local/x:1").id == "image-disk-full"


def test_a_containers_output_comes_without_the_engines_frames() -> None:
    framed = b"\1\0\0\0\0\0\0\2ab" + b"\2\0\0\0\0\0\0\1c"
    assert docker.unframed(framed) == b"abc"


@pytest.mark.parametrize(("status", "passes"), [(204, True), (404, True), (409, True), (500, False)])
def test_a_check_that_passed_has_passed_whoever_removes_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, passes: bool
) -> None:
    """A prune was faster, and the build failed."""
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    with running(docker.SOCKET) as engine:
        engine.answers = {
            "/containers/create": say('{"Id": "c"}', 201),
            "/containers/c/start": say("", 204),
            "/containers/c/wait": say('{"StatusCode": 0}'),
            "/containers/c": say("" if status == 204 else '{"message": "no"}', status),
        }
        with contextlib.nullcontext() if passes else fails("docker-error", docker.EngineError):
            build.check("i", ["true"], {"name": "x:1", "at": None})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(("status", "id"), [(200, ""), (404, ""), (409, "image-in-use"), (500, "docker-error")])
def test_an_image_that_somebody_else_removes_meanwhile_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, id: str
) -> None:
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    with running(docker.SOCKET) as engine:
        engine.answers["/images/x:1"] = say('{"message": "no"}', status)
        with fails(id, Refused) if id else contextlib.nullcontext():
            image.remove("x:1", None)
