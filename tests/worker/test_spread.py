"""One node serves a checkpoint to another: the server and its receiver, on loopback, with folders for nodes."""

import http.client
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints import authority as authorities
from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Step
from sparkops.programs.transfer import tls
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.transfers.source import Upstream
from sparkops.worker import dispatch
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import checkpoint
from sparkops.worker.requests import transfer
from sparkops.worker.system import jobs
from tests.errors import fails
from tests.lab.hub import Fault, Hub
from tests.lab.machine import wait_until
from tests.worker.nodes import apply, call

REPO = "org/tiny"
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for job in jobs.running():
        os.killpg(job["pid"], signal.SIGKILL)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model = tmp_path / "model"
    chance = random.Random(1)
    (model / "extra").mkdir(parents=True)
    (model / "model-1.safetensors").write_bytes(chance.randbytes(700_001))
    (model / "model-2.safetensors").write_bytes(chance.randbytes(3_000_000))
    (model / "config.json").write_text("{}")
    (model / "extra" / "empty.txt").write_bytes(b"")
    with Hub() as running:
        running.add_repo(REPO, model)
        yield running


def serve(order: Any) -> int:
    return transfer.serve(order["folder"], "files", order)["port"]


class Ground:
    """Two nodes as two folders, and what one run hands to both."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.authority = Authority()
        self.source, self.receiver = self.node("n1"), self.node("n2")

    def node(self, name: str) -> Checkpoint:
        return Checkpoint(
            node=name,
            name=str(self.folder / name / "models" / "tiny"),
            state_dir=str(self.folder / name / "state"),
            repository=REPO,
            endpoint=self.hub.endpoint,
            adopt=(),
            segment=64 << 10,
            stall=2.0,
        ).prepare()

    def order(self, **more: Any) -> dict[str, Any]:
        """What the source's server gets."""
        way = Upstream(
            source=self.source,
            receiver=self.receiver,
            addresses=(HERE,),
            fabric=True,
            receivers=("n2",),
            authority=self.authority,
        )
        order = way._order(HERE)
        return {**order, "serve": {**order["serve"], "quiet": 1.0, **more}}

    def serve(self, **more: Any) -> int:
        """The port of the source's server."""
        port = serve(self.order(**more))
        assert isinstance(port, int)
        return port

    def act(self, port: int, **more: Any) -> dict[str, Any]:
        one = self.receiver
        step = Step(
            id=one.id, kind=one.kind, node=one.node, action="create", before=None, after=one.desired(), changes=()
        )
        peer = {"node": "n1", "address": HERE, "port": port, "credentials": self.authority.receiver("n2"), **more}
        act = one.act(step)
        return {**act, "manner": {**act["manner"], "pause": 0.05}, "peer": peer}

    def receive(self, port: int, **more: Any) -> dict[str, Any]:
        """The receiver converged; its state."""
        one = self.receiver
        found = checkpoint.observe(one.ask())
        args = {
            "kind": one.kind,
            "id": one.id,
            "ask": one.ask(),
            "before": found,
            "want": one.desired(),
            "action": "create",
            "act": self.act(port, **more),
        }
        answer = dispatch.converge(call(), args)["found"]
        assert isinstance(answer, dict)
        return answer

    def ask(self, port: int, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        trusted = tls.context(self.act(port)["peer"]["credentials"], serving=False)
        connection = http.client.HTTPSConnection(HERE, port, timeout=30.0, context=trusted)
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def range(self, port: int, number: int, span: str) -> tuple[int, bytes]:
        return self.ask(port, f"/{number}", Range=f"bytes={span}")


@pytest.fixture
def ground(tmp_path: Path, hub: Hub) -> Ground:
    return Ground(tmp_path, hub)


def content(one: Checkpoint) -> dict[str, bytes]:
    folder = Path(one.name)
    paths = [path for path in folder.rglob("*") if path.is_file() and ".sparkops" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def killed(work: Callable[[], object]) -> None:
    """A piece of work whose job is killed."""
    with fails("job-killed", Refused):
        work()


def gone(port: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HERE, port), 1).close()
        except OSError:
            return True
        time.sleep(0.1)
    return False


def numbers(one: Checkpoint) -> dict[str, int]:
    assert one.manifest is not None
    return {file.path: number for number, file in enumerate(one.manifest.files)}


def test_it_comes_whole_from_the_other_node_and_the_listener_is_gone_afterwards(ground: Ground, hub: Hub) -> None:
    apply(ground.source)
    hub.forget()
    port = ground.serve()
    state = ground.receive(port)
    assert (state["missing"], state["wrong"], state["unverified"], state["leftover"]) == ([], [], [], "")
    assert content(ground.receiver) == content(ground.source)
    assert hub.bytes_sent() == 0
    assert gone(port)
    assert jobs.running() == []
    assert sorted(os.listdir(Path(ground.source.name).parent)) == ["tiny"]


def test_a_receiver_that_is_first_waits_and_gets_each_file_once_it_is_proven(ground: Ground, hub: Hub) -> None:
    hub.fail("model-2*", Fault(rate=150_000))
    port = ground.serve(quiet=20.0)
    ends: list[Any] = []
    receiving_side = threading.Thread(target=lambda: ends.append(ground.receive(port)))
    receiving_side.start()
    time.sleep(0.5)
    bringing = threading.Thread(target=lambda: apply(ground.source))
    bringing.start()
    early = False
    while bringing.is_alive():
        store = Path(ground.receiver.name).parent / ".tiny.sparkops-partial" / ".sparkops" / "content"
        early = early or any(path.suffix == "" for path in store.glob("sha256-*"))
        time.sleep(0.02)
    receiving_side.join(90)
    assert ends and content(ground.receiver) == content(ground.source)
    assert early, "a proven shard was passed on only when all were there"
    assert hub.bytes_sent("model-2*") == 3_000_000


def test_a_source_that_ends_without_the_content_is_named_with_its_reason(ground: Ground, hub: Hub) -> None:
    hub.fail("model-2*", Fault(status=404))
    port = ground.serve()
    with fails("hub-not-answering", Refused):
        apply(ground.source)
    with fails("transfer-source-ended", Refused) as ended_without:
        ground.receive(port)
    assert isinstance(ended_without.value, Refused)
    assert ended_without.value.values["path"] == "model-2.safetensors"
    assert ended_without.value.values["error"]["id"] == "hub-not-answering"
    hub.heal()
    hub.forget()
    apply(ground.source)
    ground.receive(ground.serve())
    assert content(ground.receiver) == content(ground.source)


def test_who_has_no_certificate_gets_no_answer(ground: Ground) -> None:
    apply(ground.source)
    port = ground.serve()
    bare = ssl.create_default_context(cadata=ground.authority.receiver("x")["authority"])
    with bare.wrap_socket(socket.create_connection((HERE, port), 3), server_hostname=HERE) as connection:
        connection.sendall(b"GET /0 HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            connection.recv(1)
    with socket.create_connection((HERE, port), 3) as plain:
        plain.sendall(b"GET /0 HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in plain.recv(100)
    assert ground.ask(port, "/0")[0] == 206


def test_a_certificate_of_another_authority_is_not_accepted_on_either_side(ground: Ground) -> None:
    apply(ground.source)
    port = ground.serve()
    stranger = Authority().receiver("n2")
    with fails("transfer-source-untrusted", Refused):
        ground.receive(port, credentials=stranger)
    mixed = {**stranger, "authority": ground.authority.receiver("n2")["authority"]}
    with fails("transfer-receiver-untrusted", Refused):
        ground.receive(port, credentials=mixed)
    assert not Path(ground.receiver.name).exists()


def test_a_receivers_certificate_serves_nobody_and_a_sources_asks_nobody(ground: Ground) -> None:
    apply(ground.source)
    with fails("transfer-source-untrusted", Refused):
        ground.receive(ground.serve(credentials=ground.authority.receiver("n1"), fingerprint="other"))
    with fails("transfer-receiver-untrusted", Refused):
        ground.receive(ground.serve(), credentials=ground.authority.source("n2", HERE))


def test_after_its_time_a_certificate_is_worth_nothing_and_the_relay_has_ended(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(ground.source)
    assert ground.authority.fingerprint
    with monkeypatch.context() as late:
        late.setattr(authorities, "LIFETIME", -10)
        old = ground.authority.receiver("n2")
        with fails("transfer-source-untrusted", Refused) as source:
            ground.receive(ground.serve())
    assert "expired" in str(source.value)
    with fails("transfer-receiver-untrusted", Refused) as receiver:
        ground.receive(ground.serve(fingerprint="new"), credentials=old)
    assert "EXPIRED" in str(receiver.value)
    assert gone(ground.serve(fingerprint="short", seconds=0.5))


def test_only_files_of_the_manifest_by_their_number_are_answered(ground: Ground) -> None:
    apply(ground.source)
    port = ground.serve()
    log = Path(jobs.folder_of(jobs.running()[0]["key"])) / "log"
    outside = ["/", "/4", "/-1", "/00", "/1/2", "/../0", "/etc/passwd", "/config.json", "0", "/0?", "/%30", "/9" * 9]
    for target in outside:
        assert ground.ask(port, target)[0] == 404, target
        line = f"receiver=n2 request=GET {target!r}"
        assert wait_until(lambda line=line: line in log.read_text(), 10.0), target
    assert ground.ask(port, "/0", "PUT")[0] == 501
    assert ground.ask(port, "/0", "POST")[0] == 404
    assert ground.ask(port, "/0", **{"Content-Length": "3"})[0] == 404


def test_ranges_are_exact_and_others_refused(ground: Ground) -> None:
    apply(ground.source)
    port = ground.serve()
    number = numbers(ground.source)["model-1.safetensors"]
    whole = content(ground.source)["model-1.safetensors"]
    assert ground.range(port, number, "100-299") == (206, whole[100:300])
    assert ground.range(port, number, "700000-700001")[0] == 416
    assert ground.range(port, number, "5-1")[0] == 416


def test_a_file_that_changed_since_it_was_proven_is_not_passed_on(ground: Ground) -> None:
    apply(ground.source)
    port = ground.serve()
    with (Path(ground.source.name) / "model-2.safetensors").open("r+b") as shard:
        shard.write(b"rot")
    with fails("transfer-source-ended", Refused):
        ground.receive(port)
    assert not Path(ground.receiver.name).exists()


def test_wrong_content_is_refused_and_names_the_node(ground: Ground) -> None:
    apply(ground.source)
    assert ground.source.manifest is not None
    port = Lying(ground, {numbers(ground.source)["model-1.safetensors"]: os.urandom(700_001)}).port
    with pytest.raises(Refused) as caught:
        ground.receive(port)
    assert caught.value.id == "peer-content-wrong"
    assert caught.value.values["file"] == "model-1.safetensors from n1 over 127.0.0.1"
    assert not Path(ground.receiver.name).exists()


class Lying:
    """A node of the run that answers with contents of its own, after `pause` seconds, or breaks off after `cut`."""

    def __init__(self, ground: Ground, contents: dict[int, bytes], pause: float = 0.0, cut: int = 1 << 40) -> None:
        self.contents, self.pause, self.cut = contents, pause, cut
        self.asked = 0
        context = tls.context(ground.authority.source("n1", HERE), serving=True)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                return

        server = ThreadingHTTPServer((HERE, 0), Handler)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        number = int(request.path[1:]) if request.path != "/done" else -1
        whole = self.contents.get(number)
        if whole is None:
            request.send_response(425)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self.asked += 1
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) + 1
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(whole)}")
        request.send_header("Content-Length", str(end - start))
        request.end_headers()
        request.wfile.write(whole[start:end][: self.cut])
        time.sleep(self.pause)
        if self.cut < end - start:
            raise OSError("cut")


@pytest.mark.parametrize("how", [{"cut": 10_000}, {"cut": 10_000, "pause": 5.0}], ids=["dropped", "stalled"])
def test_a_source_that_drops_or_stalls_is_resumed_where_it_ended(ground: Ground, how: dict[str, Any]) -> None:
    apply(ground.source)
    held = content(ground.source)
    bad = Lying(ground, {number: held[path] for path, number in numbers(ground.source).items()}, **how)
    ends: list[BaseException] = []

    def receive() -> None:
        try:
            ground.receive(bad.port)
        except Refused as error:
            ends.append(error)

    running = threading.Thread(target=receive)
    running.start()
    deadline = time.monotonic() + 90
    while bad.asked < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
    bad.cut, bad.pause = 1 << 40, 0.0
    running.join(60)
    assert ends == []
    assert content(ground.receiver) == held


def test_a_killed_receiver_and_a_killed_relay_are_resumed(ground: Ground, hub: Hub) -> None:
    apply(ground.source)
    hub.forget()
    held = content(ground.source)
    slow = Lying(ground, {number: held[path] for path, number in numbers(ground.source).items()}, pause=0.15)
    key = f"checkpoint {ground.receiver.name}"
    running = threading.Thread(target=killed, args=(lambda: ground.receive(slow.port),))
    running.start()
    part = Path(ground.receiver.name).parent / ".tiny.sparkops-partial" / ".sparkops" / "content"
    deadline = time.monotonic() + 90
    while not any("done" in path.read_text() for path in part.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (job,) = [each for each in jobs.running() if each["key"] == key]
    os.killpg(job["pid"], signal.SIGKILL)
    running.join(60)
    port = ground.serve()
    (relay,) = [each for each in jobs.running() if each["key"].startswith("relay ")]
    os.killpg(relay["pid"], signal.SIGKILL)
    assert gone(port)
    with fails("peer-not-answering", Refused):
        ground.receive(port)
    ground.receive(ground.serve())
    assert content(ground.receiver) == held
    assert hub.bytes_sent() == 0


def test_a_relay_that_nobody_asks_ends_by_itself(ground: Ground) -> None:
    apply(ground.source)
    assert gone(ground.serve(idle=1.0), 6)


def test_an_address_that_the_node_does_not_have_is_told_as_such(ground: Ground) -> None:
    apply(ground.source)
    order = ground.order(address="192.0.2.1", credentials=ground.authority.source("n1", "192.0.2.1"))
    with fails("transfer-listen-failed", Refused) as refused:
        serve(order)
    assert isinstance(refused.value, Refused) and refused.value.type == "address"
    with fails("transfer-source-unreachable", Refused) as refused:
        transfer.reach(call(), {"node": "n1", "address": HERE, "port": 1})
    assert isinstance(refused.value, Refused) and refused.value.type == "address"


def test_no_key_stands_on_a_disk_or_in_an_argument(ground: Ground, tmp_path: Path) -> None:
    apply(ground.source)
    order = ground.order()
    serve(order)
    secret = order["serve"]["credentials"]["key"].splitlines()[1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert secret.encode() not in (process / name).read_bytes()
            except OSError:
                continue
