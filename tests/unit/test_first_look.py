"""What `init` makes of what a machine answers: engines by their words and ports, whoever started them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sparkops.operate.first_contact.look import ANY, _container, _unit
from sparkops.programs.launch.listening import sockets
from sparkops.worker.requests import adopt


def container(*words: str, bindings: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """As the worker describes one."""
    return {
        "name": "mine",
        "config": {"Image": "vllm/vllm-openai:v1", "Cmd": list(words), **config},
        "host": {"PortBindings": bindings},
        "mounts": [{"Source": "/srv/models--org--name"}],
    }


@pytest.mark.parametrize(
    ("found", "port"),
    [
        (container("serve", "m"), 8000),
        (container("serve", "m", "--port", "8123"), 8123),
        (container("serve", "m", "--port=8123"), 8123),
        (container("serve", "m", bindings={"8000/tcp": [{"HostIp": "", "HostPort": "9000"}]}), 9000),
        (container("serve", "m", bindings={"8000/tcp": None}), 8000),
    ],
)
def test_the_port_of_a_container_is_the_nodes(found: dict[str, Any], port: int) -> None:
    engine = _container(found)
    assert (engine.kind, engine.name, engine.port) == ("container", "mine", port)
    assert "models--org--name" in engine.words


def test_the_environment_of_a_container_is_not_kept() -> None:
    assert "planted" not in _container(container("serve", "m", Env=["HF_TOKEN=planted"])).words


@pytest.mark.parametrize(
    ("text", "port"), [("ExecStart=/opt/vllm serve m --port 81", 81), ("ExecStart=vllm serve", 8000)]
)
def test_the_port_of_a_unit_is_in_its_text(text: str, port: int) -> None:
    assert _unit({"name": "mine.service", "text": text}).port == port


@pytest.mark.parametrize(
    ("image", "words", "engine"),
    [("x:1", ["vllm", "serve"], True), ("vllm/vllm-openai:v1", [], True), ("nginx:1", ["nginx"], False)],
)
def test_without_a_declaration_engines_are_known_by_their_words(image: str, words: list[str], engine: bool) -> None:
    found = {"Id": "1", "Name": "/a", "Image": "sha256:1", "State": {"Running": True}}
    assert adopt.stands_for({**found, "Config": {"Image": image, "Cmd": words}}, ANY, None) is engine
    assert not adopt._starts("nginx.service", "ExecStart=/usr/sbin/nginx", ANY, [])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_ports_on_which_somebody_listens_are_told(family: socket.AddressFamily) -> None:
    with socket.socket(family) as taken:
        try:
            taken.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
        except OSError:
            pytest.skip("this machine has no such address")
        assert taken.getsockname()[1] not in {port for _, port, _ in sockets()}
        taken.listen()
        assert taken.getsockname()[1] in {port for _, port, _ in sockets()}
