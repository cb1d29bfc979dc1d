"""The lock: what moves upstream is pinned beside the inventory, and stays until it is renewed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkops.cli.app import run
from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.inventory.load import load
from sparkops.inventory.secrets import Secrets
from sparkops.operate.lock import complete, renew, upstream
from sparkops.reconcile.inputs import inputs
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.image import Image
from sparkops.resources.images import registry
from sparkops.resources.images.registry import Login
from tests.errors import fails
from tests.lab.hub import Hub

REPO = "lab/tiny"


class Registry:
    """A registry of one image on loopback, plain HTTP; `tags` maps a tag to the bytes of its index."""

    def __init__(self) -> None:
        self.tags: dict[str, bytes] = {"1": b"one"}
        self.challenge = ""
        self.silent_digest = False
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                body = outer.tags.get(self.path.rpartition("/")[2])
                status = 401 if outer.challenge else 200 if body is not None else 404
                self.send_response(status)
                if outer.challenge:
                    self.send_header("WWW-Authenticate", outer.challenge)
                if status == 200 and body is not None and not outer.silent_digest:
                    self.send_header("Docker-Content-Digest", of(body))
                self.send_header("Content-Length", str(len(body or b"") if with_body else 0))
                self.end_headers()
                if with_body and status == 200:
                    self.wfile.write(body or b"")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.name = f"127.0.0.1:{self.server.server_address[1]}/lab/engine"


def of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


class World:
    """An inventory with one service, its registry and its hub."""

    def __init__(self, folder: Path, registry: Registry, hub: Hub) -> None:
        self.registry, self.hub = registry, hub
        self.path, self.lock = folder / "inventory.yml", folder / "inventory.lock.yml"
        self.model = folder / "tiny"
        self.model.mkdir()
        self.publish("one")
        self.declare()

    def publish(self, text: str) -> str:
        (self.model / "config.json").write_text(text)
        return self.hub.add_repo(REPO, self.model)

    def declare(self, image: str = "", checkpoint: str = "") -> None:
        self.path.write_text(
            "version: 1\ncluster: x\nnodes: {a: {host: 192.0.2.1}}\nservices:\n  s:\n    nodes: [a]\n"
            f"    image: {image or f'{{pull: {self.registry.name}:1}}'}\n"
            f"    checkpoint: {{repository: {REPO}, endpoint: '{self.hub.endpoint}'{checkpoint}}}\n"
        )

    @property
    def key(self) -> str:
        return f"{self.hub.endpoint}/{REPO}@main"

    def written(self) -> dict[str, Any]:
        found = yaml.safe_load(self.lock.read_text())
        assert isinstance(found, dict)
        return found

    def declared(self) -> tuple[str | None, str]:
        """The digest and the commit that the nodes get to hear."""
        resources = compile_inventory(load(self.path)).resources
        image = next(each for each in resources if isinstance(each, Image))
        checkpoint = next(each for each in resources if isinstance(each, Checkpoint))
        return image.pinned, checkpoint.pinned


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    registry = Registry()
    with Hub() as hub:
        yield World(tmp_path, registry, hub)
    registry.server.shutdown()


def test_lock_pins_tags_and_branches_and_everything_sees_it(world: World) -> None:
    assert world.declared() == (None, "")
    assert run(["lock", str(world.path)]) == 0
    commit = world.written()["checkpoints"][world.key]
    assert world.written()["images"] == {f"{world.registry.name}:1": of(b"one")}
    assert world.declared() == (of(b"one"), commit)
    inventory = load(world.path)
    assert inventory.variables("a", "s")["image"]["digest"] == of(b"one")
    assert "lock" in inputs(inventory, ())


def test_lock_moves_entries_tells_them_and_drops_what_is_not_declared(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["lock", str(world.path)])
    old = world.written()["checkpoints"][world.key]
    world.registry.tags = {"1": b"two", "2": b"three"}
    new = world.publish("two")
    capsys.readouterr()
    assert run(["lock", str(world.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"~ {world.registry.name}:1: {of(b'one')} → {of(b'two')}",
        f"~ {world.key}: {old} → {new}",
    ]
    world.declare(image=f"{{pull: {world.registry.name}:2}}")
    assert run(["lock", str(world.path)]) == 0
    assert world.written()["images"] == {f"{world.registry.name}:2": of(b"three")}


def test_apply_adds_what_is_lacking_and_never_moves_an_entry(world: World) -> None:
    run(["lock", str(world.path)])
    world.registry.tags = {"1": b"two", "2": b"three"}
    before = world.written()
    assert complete(load(world.path), Secrets(), add=True)[1] == ()
    assert world.written() == before
    world.declare(image=f"{{pull: {world.registry.name}:2}}")
    with fails("lock-file-lacks"):
        complete(load(world.path), Secrets(), add=False)
    inventory, told = complete(load(world.path), Secrets(), add=True)
    assert told == (Message.of("lock-added", key=f"{world.registry.name}:2", value=of(b"three")),)
    assert inventory.variables("a", "s")["image"]["digest"] == of(b"three")
    assert world.written()["images"] == {**before["images"], f"{world.registry.name}:2": of(b"three")}


def test_an_inventory_without_a_lock_file_gets_none_by_apply(world: World) -> None:
    inventory, told = complete(load(world.path), Secrets(), add=True)
    assert (told, inventory.lock.on_disk, world.lock.exists()) == ((), False, False)


def test_upstream_is_told_and_nothing_is_written(world: World) -> None:
    run(["lock", str(world.path)])
    before = world.lock.read_bytes()
    assert upstream(load(world.path), Secrets()) == ()
    world.registry.tags = {"1": b"two"}
    (told,) = upstream(load(world.path), Secrets())
    key = f"{world.registry.name}:1"
    assert told == Message.of("lock-moved-upstream", key=key, locked=of(b"one"), found=of(b"two"))
    assert world.lock.read_bytes() == before


def test_without_upstream_the_lock_stays_as_it_is(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    run(["lock", str(world.path)])
    before = world.written()
    world.registry.tags = {}
    world.hub.remove_repo(REPO)
    assert run(["lock", str(world.path)]) == 3
    assert world.written() == before
    assert "the registry has no tag" in capsys.readouterr().err
    assert world.declared()[0] == of(b"one")


@pytest.mark.parametrize(
    ("image", "checkpoint"),
    [
        ("{pull: 'a/b@sha256:" + "0" * 64 + "'}", f", revision: {'a1' * 20}"),
        ("{pull: 'a/b:1', digest: 'sha256:" + "0" * 64 + "'}", f", commit: {'a1' * 20}"),
        ("{build: {tag: 'local/x:1', base: 'a/b:1'}}", f", commit: {'a1' * 20}"),
    ],
)
def test_what_the_inventory_pins_itself_is_not_locked(world: World, image: str, checkpoint: str) -> None:
    world.declare(image, checkpoint)
    assert renew(load(world.path), Secrets()).lock.images == {}
    assert renew(load(world.path), Secrets()).lock.checkpoints == {}


@pytest.mark.parametrize("text", ["", "version: 2\n", "version: 1\nimages: {a: latest}\n", "version: 1\nother: {}\n"])
def test_a_lock_file_that_is_none_is_a_fault_with_its_place(world: World, text: str) -> None:
    world.lock.write_text(text)
    with pytest.raises(InventoryError) as caught:
        load(world.path)
    assert "inventory.lock.yml:" in str(caught.value)


def test_a_registry_without_the_header_is_told_by_the_content(world: World) -> None:
    world.registry.silent_digest = True
    assert registry.digest(f"{world.registry.name}:1") == of(b"one")


@pytest.mark.parametrize(
    ("challenge", "id"),
    [
        ('Bearer realm="http://192.0.2.1/token",service="x"', "registry-unreachable"),
        ("Bearer", "registry-access-denied"),
        ('Basic realm="x"', "registry-access-denied"),
    ],
)
def test_a_registry_that_asks_for_more_is_told(world: World, challenge: str, id: str) -> None:
    world.registry.challenge = challenge
    with pytest.raises(registry.RegistryError) as refused:
        registry.digest(f"{world.registry.name}:1")
    assert refused.value.id == id


def test_a_password_is_never_sent_in_the_clear(world: World) -> None:
    with pytest.raises(registry.RegistryUnreachable):
        registry.digest(f"{world.registry.name}:1", Login(world.registry.name, "me", "secret"))
    assert world.registry.asked == []
