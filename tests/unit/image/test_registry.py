"""Registries as Docker's own SDK knows them: credentials of `docker login`, helpers and stores, and nearest tags."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.errors import ConvergeFailed
from sparkops.core.plan import Step
from sparkops.core.secrets import Secret
from sparkops.nodes.session import CallFailed
from sparkops.resources import registry
from sparkops.resources.image import Image
from sparkops.resources.registry import Login, RegistryError, docker_login

Configure = Callable[..., None]
HUB = "https://index.docker.io/v1/"


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes Docker's config.json, and credential helpers as programs on PATH that answer for servers."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(config: dict[str, Any], **helpers: dict[str, tuple[str, str]]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        for name, known in helpers.items():
            program = tmp_path / f"docker-credential-{name}"
            program.write_text(
                f"#!{sys.executable}\nimport json, sys\nserver = sys.stdin.read().strip()\nknown = {known!r}\n"
                "if server not in known:\n    print('credentials not found in native keychain')\n    sys.exit(1)\n"
                "print(json.dumps({'ServerURL': server, 'Username': known[server][0], 'Secret': known[server][1]}))\n"
            )
            program.chmod(0o755)

    return write


def entry(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_without_a_login_nothing_is_sent(configure: Configure) -> None:
    assert docker_login("r.test/x") is None
    configure({"auths": {"other.test": entry("me:secret")}})
    assert docker_login("r.test/x") is None


def test_a_plain_login_is_for_its_registry_only(configure: Configure) -> None:
    configure({"auths": {"r.test:5000": entry("me:pa:ss"), HUB: entry("hub:token")}})
    assert docker_login("r.test:5000/a/b") == Login("r.test:5000", "me", "pa:ss")
    assert docker_login("vllm/vllm-openai") == docker_login("busybox") == Login(HUB, "hub", "token")


def test_a_credential_helper_and_a_store_are_asked(configure: Configure) -> None:
    configure(
        {"auths": {"s.test": {}}, "credsStore": "keychain", "credHelpers": {"r.test": "cloud"}},
        keychain={"s.test": ("stored", "one"), HUB: ("<token>", "identity")},
        cloud={"r.test": ("helped", "two")},
    )
    assert docker_login("r.test/x") == Login("r.test", "helped", "two")
    assert docker_login("s.test/x") == Login("s.test", "stored", "one")
    assert docker_login("busybox") == Login(HUB, identity_token="identity")
    assert docker_login("nobody.test/x") is None


@pytest.mark.parametrize(
    "config", [{"credsStore": "missing"}, {"auths": {"r.test": {"auth": "%%%"}}}, {"auths": {"r.test": "text"}}]
)
def test_credentials_that_cannot_be_read_are_an_error_not_a_missing_login(
    configure: Configure, config: dict[str, Any]
) -> None:
    configure(config)
    with pytest.raises(RegistryError) as caught:
        docker_login("r.test/x")
    assert caught.value.id == "docker-credentials-unreadable"


def test_what_the_engine_gets_is_its_own_form_and_no_password_is_shown() -> None:
    login = Login("r.test", "me", "pa55")
    assert login.as_json() == {"serveraddress": "r.test", "username": "me", "password": "pa55"}
    assert Login("r.test", identity_token="t").as_json() == {"serveraddress": "r.test", "identitytoken": "t"}
    assert "pa55" not in repr(login)


def act(image: Image) -> dict[str, Any]:
    step = Step(id=image.id, kind="image", node="a", action="create", before=None, after={}, changes=())
    return image.act(step)


def test_a_pull_gets_the_login_of_docker_unless_one_is_declared(configure: Configure) -> None:
    configure({"auths": {"r.test": entry("me:stored")}})
    assert act(Image(node="a", name="r.test/x:1"))["auth"]["password"] == "stored"
    declared = Image(node="a", name="r.test/x:1", username="you", password=Secret("declared"))
    assert act(declared)["auth"] == {"serveraddress": "r.test", "username": "you", "password": "declared"}
    assert act(Image(node="a", name="other.test/x:1"))["auth"] is None


def test_each_base_of_a_build_gets_the_login_of_its_own_registry_and_no_other(configure: Configure) -> None:
    configure({"auths": {"two.test": entry("me:stored")}})
    content = "FROM one.test/a:1 AS first\nFROM two.test/b:1\nFROM one.test/c:1\nFROM busybox:1\n"
    image = Image(node="a", name="local/x:1", content=content, username="you", password=Secret("declared"))
    found = {each["name"]: each["auth"] and each["auth"]["password"] for each in act(image)["bases"]}
    assert found == {
        "one.test/a:1": "declared",
        "two.test/b:1": "stored",
        "one.test/c:1": "declared",
        "busybox:1": None,
    }


@pytest.mark.parametrize(
    ("tags", "id", "shown"),
    [
        (None, "image-not-in-registry", ""),
        ([], "image-repository-missing", "r.test/x"),
        (["v1.0", "nightly", "v2.5"], "image-tag-missing", "v2.5"),
    ],
)
def test_a_tag_that_is_not_there_is_answered_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, configure: Configure, tags: list[str] | None, id: str, shown: str
) -> None:
    monkeypatch.setattr(registry, "tags", lambda repository, login: tags)
    error = CallFailed("", where="a", hint="", detail="", type="failed")
    error.id, error.args_by_name = "image-not-in-registry", {"name": "r.test/x:v2.6"}
    found: ConvergeFailed = Image(node="a", name="r.test/x:v2.6")._missing(error, "r.test/x", "v2.6")
    assert found.id == id and shown in found.what
