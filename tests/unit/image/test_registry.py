"""Registries as Docker's own SDK knows them: credentials of `docker login`, helpers and stores, and nearest tags."""

from __future__ import annotations

from typing import Any

import pytest

from sparkops.core.errors import ConvergeFailed
from sparkops.core.plan import Step
from sparkops.core.secrets import Secret
from sparkops.nodes.session import CallFailed
from sparkops.resources.image import Image
from sparkops.resources.images import registry
from sparkops.resources.images.registry import Login, RegistryError, docker_login
from tests.docker_config import DockerConfig, entry
from tests.errors import fails

HUB = "https://index.docker.io/v1/"


def test_without_a_login_nothing_is_sent(docker_config: DockerConfig) -> None:
    assert docker_login("r.test/x") is None
    docker_config.write({"auths": {"other.test": entry("me", "secret")}})
    assert docker_login("r.test/x") is None


def test_a_plain_login_is_for_its_registry_only(docker_config: DockerConfig) -> None:
    docker_config.write({"auths": {"r.test:5000": entry("me", "pa:ss"), HUB: entry("hub", "token")}})
    assert docker_login("r.test:5000/a/b") == Login("r.test:5000", "me", "pa:ss")
    assert docker_login("vllm/vllm-openai") == docker_login("busybox") == Login(HUB, "hub", "token")


def test_a_credential_helper_and_a_store_are_asked(docker_config: DockerConfig) -> None:
    docker_config.write(
        {"auths": {"s.test": {}}, "credsStore": "keychain", "credHelpers": {"r.test": "cloud"}},
        keychain={"s.test": ("stored", "one"), HUB: ("<token>", "identity")},
        cloud={"r.test": ("helped", "two")},
    )
    assert docker_login("r.test/x") == Login("r.test", "helped", "two")
    assert docker_login("s.test/x") == Login("s.test", "stored", "one")
    assert docker_login("busybox") == Login(HUB, identity_token="identity")
    assert docker_login("nobody.test/x") is None


@pytest.mark.filterwarnings("ignore:docker-credential-missing")
@pytest.mark.parametrize(
    "config", [{"credsStore": "missing"}, {"auths": {"r.test": {"auth": "%%%"}}}, {"auths": {"r.test": "text"}}]
)
def test_credentials_that_cannot_be_read_are_an_error_not_a_missing_login(
    docker_config: DockerConfig, config: dict[str, Any]
) -> None:
    docker_config.write(config)
    with fails("docker-credentials-unreadable", RegistryError):
        docker_login("r.test/x")


def test_what_the_engine_gets_is_its_own_form_and_no_password_is_shown() -> None:
    login = Login("r.test", "me", "pa55")
    assert login.as_json() == {"serveraddress": "r.test", "username": "me", "password": "pa55"}
    assert Login("r.test", identity_token="t").as_json() == {"serveraddress": "r.test", "identitytoken": "t"}
    assert "pa55" not in repr(login)


def act(image: Image) -> dict[str, Any]:
    step = Step(id=image.id, kind="image", node="a", action="create", before=None, after={}, changes=())
    return image.act(step)


def test_a_pull_gets_the_login_of_docker_unless_one_is_declared(docker_config: DockerConfig) -> None:
    docker_config.write({"auths": {"r.test": entry("me", "stored")}})
    assert act(Image(node="a", name="r.test/x:1"))["auth"]["password"] == "stored"
    declared = Image(node="a", name="r.test/x:1", username="you", password=Secret("declared"))
    assert act(declared)["auth"] == {"serveraddress": "r.test", "username": "you", "password": "declared"}
    assert act(Image(node="a", name="other.test/x:1"))["auth"] is None


def test_each_base_of_a_build_gets_the_login_of_its_own_registry_and_no_other(docker_config: DockerConfig) -> None:
    docker_config.write({"auths": {"two.test": entry("me", "stored")}})
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
    monkeypatch: pytest.MonkeyPatch, docker_config: DockerConfig, tags: list[str] | None, id: str, shown: str
) -> None:
    monkeypatch.setattr(registry, "tags", lambda repository, login: tags)
    error = CallFailed.of("worker-refused", where="a", reason="", hint="")
    error.id, error.args_by_name = "image-not-in-registry", {"name": "r.test/x:v2.6"}
    found: ConvergeFailed = Image(node="a", name="r.test/x:v2.6")._missing(error, "r.test/x", "v2.6")
    assert found.id == id and shown in found.what
