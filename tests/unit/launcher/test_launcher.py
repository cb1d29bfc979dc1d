"""The launcher's parts on plain values and on small servers of the test's own."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
import threading
import types
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sparkops.compile.launcher_file import launcher_file
from sparkops.models import engine_errors
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.checkpoints.proof import PROVEN, RECORD, identity, seen, standing
from tests.worker.engines import running, say

Answer = Callable[[str, str], tuple[int, bytes]]
launcher: Any = types.ModuleType("launcher")
"""The one file that is on a node, as a module."""
launcher.__file__ = "/usr/local/lib/sparkops/launcher.py"
exec(compile(launcher_file(), launcher.__file__, "exec"), launcher.__dict__)


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], int]]:
    """Starts a server that answers by a function of method and path; returns its port."""
    servers = []

    def start(answer: Answer) -> int:
        class Handler(BaseHTTPRequestHandler):
            def reply(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = answer(self.command, self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = reply

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def spec(**given: Any) -> dict[str, Any]:
    base = {
        "name": "qwen",
        "container": "sparkops-qwen",
        "image": "repo@sha256:00",
        "entrypoint": None,
        "argv": ["vllm", "serve", "/model"],
        "environment": {"A": "b"},
        "secrets": None,
        "key": "/nowhere",
        "cache": None,
        "mounts": [{"source": "/srv/m", "target": "/model", "read_only": True}],
        "manifest": None,
        "devices": ["/dev/infiniband"],
        "cap_add": ["IPC_LOCK"],
        "gpus": "all",
        "network": "host",
        "ipc": None,
        "host": "0.0.0.0",
        "port": 8000,
        "rank": 0,
        "kept": None,
        "limits": {"shm_size_bytes": 1 << 30, "memory_bytes": 0, "ulimits": {"memlock": -1}},
        "probe": {"model": "m", "prompt": "Hello", "seconds": 1.0},
    }
    return {**base, **given}


def api(port: int, container: str = "", key: str = "") -> Any:
    """Of an engine that is this very process, which is in no container of its own."""
    listener = launcher.Listener(port, "127.0.0.1", container)
    return launcher.Api(listener, key, launcher.Question("m", "a few words"))


def activity_of(port: int, seconds: float = 1.0) -> Any:
    """Of one that may show no sign of life for ten minutes."""
    return launcher.TokenActivity(api(port), seconds, 600.0)


def completion(**usage: int) -> bytes:
    return json.dumps({"choices": [{"text": "x"}], "usage": usage}).encode()


def metrics(running: int, tokens: int, waiting: int = 0) -> bytes:
    return (
        f'vllm:num_requests_running{{engine="0"}} {running}.0\nvllm:num_requests_waiting{{engine="0"}} {waiting}.0\n'
        f'vllm:generation_tokens_total{{engine="0"}} {tokens}.0\n'
    ).encode()


def test_the_container_gets_gpus_limits_labels_and_a_read_only_model() -> None:
    body = launcher.body_of(spec(), "abc", {"TOKEN": "s"}, "hmac", "/cache")
    host = body["HostConfig"]
    assert host["DeviceRequests"][0]["Count"] == -1
    assert host["Init"] is True
    assert host["Ulimits"] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    assert {"Type": "bind", "Source": "/srv/m", "Target": "/model", "ReadOnly": True} in host["Mounts"]
    assert body["Labels"] == {"sparkops.service": "qwen", "sparkops.spec": "abc", "sparkops.secret": "hmac"}
    assert "VLLM_CACHE_ROOT=/var/cache/sparkops/vllm" in body["Env"]
    assert "TOKEN=s" in body["Env"]
    assert "PortBindings" not in host
    assert "Entrypoint" not in body


def test_a_bridged_container_publishes_its_port_at_the_declared_address() -> None:
    host = launcher.body_of(spec(network="bridge", host="127.0.0.1", gpus=None), "abc", {}, "", "")["HostConfig"]
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]}
    assert "DeviceRequests" not in host


def test_a_container_of_ours_that_docker_does_not_remove_is_not_called_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "GONE_SECONDS", 0.1)
    with running(str(tmp_path / "docker.sock")) as engine:
        engine.answers["/containers/json"] = say(json.dumps([{"Id": "c" * 64, "State": "removing"}]))
        engine.answers[f"/containers/{'c' * 64}"] = say('{"message": "already in progress"}', 409)
        engine.answers[f"/containers/{'c' * 64}/json"] = say(json.dumps({"Id": "c" * 64}))
        docker = launcher.Docker(str(tmp_path / "docker.sock"))
        docker.wait_for(5.0, threading.Event())
        with pytest.raises(launcher.Failed, match="still there") as caught:
            launcher.Container(docker, spec(), "abc").remove_stale(0)
    assert caught.value.status == launcher.ENGINE_UNAVAILABLE, "systemd tries again"


ID = "c" * 64


@pytest.fixture
def container(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """The service's container at an engine that says what a test wants, and that engine."""
    with running(str(tmp_path / "docker.sock")) as engine:
        docker = launcher.Docker(str(tmp_path / "docker.sock"))
        docker.wait_for(5.0, threading.Event())
        found = launcher.Container(docker, spec(), "abc", re.compile("bad argument"))
        found.id = ID
        yield found, engine


def test_a_container_that_ended_before_its_log_was_read_has_its_last_words(container: tuple[Any, Any]) -> None:
    """What another start would not change was not seen, and systemd tried again."""
    found, engine = container
    said = b"bad argument: --x\n"
    engine.answers[f"/containers/{ID}/logs"] = say(b"\2\0\0\0" + len(said).to_bytes(4, "big") + said)
    found.ended.set()
    found._follow_log()
    assert found.refusal == "bad argument: --x"


def test_how_a_container_ended_that_somebody_removed_is_unknown(container: tuple[Any, Any]) -> None:
    found, engine = container
    engine.answers[f"/containers/{ID}/json"] = say('{"message": "No such container"}', 404)
    found.told.set()
    found.refusal = "bad argument: --x"
    assert "how it ended is unknown" in str(found.verdict())
    assert not found.refusal, "it did not end of what it said"


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ({"ExitCode": 1}, True),
        ({"ExitCode": 0}, True),
        ({"ExitCode": 134}, True),
        ({"ExitCode": 137}, False),
        ({"ExitCode": 137, "OOMKilled": True}, False),
        ({"ExitCode": 1, "OOMKilled": True}, False),
        ({"ExitCode": 143}, False),
    ],
)
def test_an_engine_that_was_killed_did_not_end_of_what_it_had_said_before(
    container: tuple[Any, Any], state: dict[str, Any], refused: bool
) -> None:
    """A warning of the load counted as a refusal when memory ran out later, and systemd did not try again."""
    found, engine = container
    engine.answers[f"/containers/{ID}/json"] = say(json.dumps({"Id": ID, "State": state}))
    found.told.set()
    found.refusal = "bad argument: --x"
    found.verdict()
    assert bool(found.refusal) is refused


OWNER = launcher.Owner(41, "vllm", "", "")


@pytest.mark.parametrize(
    ("owner", "labels", "leaves"),
    [
        (OWNER._replace(container=ID), None, True),
        (OWNER._replace(container=ID), {}, False),
        (OWNER._replace(container=ID), {"sparkops.service": "other"}, True),
        (OWNER._replace(process="docker-proxy", relayed="172.17.0.2"), {"sparkops.service": "other"}, True),
        (OWNER._replace(process="docker-proxy", relayed="172.17.0.2"), {}, False),
        (OWNER._replace(process="dockerd", unit="docker.service"), {"sparkops.service": "other"}, True),
        (OWNER._replace(process="dockerd", unit="docker.service"), {}, False),
        (OWNER, {"sparkops.service": "other"}, False),
    ],
)
def test_what_another_service_of_ours_holds_is_waited_for_also_behind_dockers_proxy(
    container: tuple[Any, Any], owner: Any, labels: dict[str, str] | None, leaves: bool
) -> None:
    """Two services that swap their ports, one of them on Docker's bridge."""
    found, engine = container
    there = {"Id": ID, "Config": {"Labels": labels}}
    engine.answers[f"/containers/{ID}/json"] = say("", 404) if labels is None else say(json.dumps(there))
    engine.answers["/containers/json"] = say(json.dumps([there] if labels else []))
    assert found.leaves(owner) is leaves
    listed = [urllib.parse.unquote(path) for _, path, *_ in engine.asked if "filters" in path]
    assert all('"publish": ["8000/tcp"]' in each for each in listed)


def test_a_disk_that_is_full_ends_no_engine_that_serves(tmp_path: Path) -> None:
    """Its mark in the folder of compiled kernels could not be written; the engine was ended and loaded again."""
    launcher.mark("/dev/full/x")
    launcher.mark(str(tmp_path / "served"))
    assert (tmp_path / "served").exists()


def test_a_file_that_cannot_be_written_is_not_told_as_a_silence_of_dockers(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        os.makedirs(tmp_path / "file" / "x")
    assert launcher.trouble(caught.value) == f"{tmp_path / 'file' / 'x'}: Not a directory"
    with pytest.raises(OSError) as caught:
        launcher.Docker(str(tmp_path / "docker.sock")).ask("GET", "/version")
    assert launcher.trouble(caught.value).startswith("Docker does not answer: ")


@pytest.mark.parametrize(("service", "removed"), [("qwen", True), ("other", False)])
def test_a_container_that_an_earlier_launcher_asked_for_is_not_called_foreign(
    container: tuple[Any, Any], service: str, removed: bool
) -> None:
    """Docker made it between the list and the look at the name; the unit failed for good."""
    found, engine = container
    there = {"Id": ID, "Config": {"Labels": {"sparkops.service": service}}}
    engine.answers["/containers/json"] = say("[]")
    engine.answers["/containers/sparkops-qwen/json"] = say(json.dumps(there))
    engine.answers[f"/containers/{ID}/json"] = say("", 404)
    engine.answers[f"/containers/{ID}"] = say("", 204)
    if removed:
        found.remove_stale(0)
    else:
        with pytest.raises(launcher.Failed, match="sparkops did not make"):
            found.remove_stale(0)
    assert removed == any(method == "DELETE" for method, *_ in engine.asked)


def test_declared_environment_beats_the_caches(tmp_path: Path) -> None:
    body = launcher.body_of(spec(environment={"VLLM_CACHE_ROOT": "/mine"}), "abc", {}, "", "/cache")
    assert "VLLM_CACHE_ROOT=/mine" in body["Env"]


@pytest.mark.parametrize("change", [{"argv": ["vllm", "serve", "x"]}, {"rank": 1}])
def test_other_arguments_or_another_rank_get_another_cache(tmp_path: Path, change: dict[str, Any]) -> None:
    base = spec(cache=str(tmp_path))
    first = launcher.cache_folder(base, "sha256:1")
    assert launcher.cache_folder(base, "sha256:1") == first
    assert launcher.cache_folder({**base, **change}, "sha256:1") != first
    assert launcher.cache_folder(base, "sha256:2") != first


def test_counters_are_summed_over_their_labels() -> None:
    text = '# TYPE x\nvllm:a{engine="0",m="q"} 1.5\nvllm:a{engine="1",m="q"} 2e1\nother 3\nvllm:b 4\n'
    shares = 'vllm:k_perc{engine="0"} 0.2\nvllm:k_perc{engine="1"} 0.9\n'
    assert launcher.counters(text + shares) == {"vllm:a": 21.5, "vllm:b": 4.0, "vllm:k_perc": 0.9}


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf", "1.2.3", "-", "1e999"])
def test_what_is_no_number_is_no_movement(serve: Callable[[Answer], int], text: str) -> None:
    said = metrics(1, 5) + f"vllm:kv_cache_usage_perc {text}\n".encode()
    activity = activity_of(serve(lambda method, path: (200, said if path == "/metrics" else b"")))
    activity.found()
    assert not activity.found(), "a request is open, and nothing moves"
    assert "no token moves" in activity.why


def test_when_tokens_were_last_generated_is_seen(serve: Callable[[Answer], int]) -> None:
    said = {"tokens": 5}
    port = serve(lambda method, path: (200, metrics(1, said["tokens"]) if path == "/metrics" else b""))
    activity = launcher.TokenActivity(api(port), 1.0, 600.0)
    activity.found()
    assert activity.generated == 0.0, "what was generated before it looked has no known time"
    said["tokens"] = 6
    activity.found()
    seen = activity.generated
    assert seen > 0
    activity.found()
    assert activity.generated == seen


def test_an_idle_engine_is_asked_for_a_token_now_and_then_and_a_frozen_one_does_not_live(
    serve: Callable[[Answer], int],
) -> None:
    said: dict[str, Any] = {"body": metrics(0, 5), "status": 200, "asked": 0}

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path == "/metrics":
            return 200, said["body"]
        said["asked"] += 1
        return said["status"], completion(completion_tokens=1)

    activity = activity_of(serve(answer))
    assert (activity.found(), activity.why, said["asked"]) == (False, "", 0), "nothing runs, and it was proven just now"
    activity.proved -= 201
    assert (activity.found(), said["asked"]) == (True, 1)
    said["body"] = metrics(1, 6)
    assert activity.found(), "a token came"
    assert not activity.found()
    assert "no token moves" in activity.why
    said["body"] = metrics(0, 6, waiting=3)
    assert not activity.found(), "requests wait and none runs"
    assert said["asked"] == 1
    activity.proved -= 201
    said["status"] = 500
    assert not activity.found()
    assert "no token moves; /v1/completions answers 500" in activity.why
    said["body"] = metrics(1, 7)
    assert activity.found()


def test_a_worker_that_stops_while_nothing_runs_is_found_though_its_gauges_stay(serve: Callable[[Answer], int]) -> None:
    stop = threading.Event()

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path not in ("/metrics", "/health"):
            stop.wait(60)
        return 200, metrics(0, 5)

    activity = activity_of(serve(answer), seconds=0.3)
    activity.proved -= 201
    assert not activity.found()
    assert activity.why == "no completion within 0.3 s, though /health answers 200"
    stop.set()


def test_an_engine_without_metrics_is_asked_for_a_token(serve: Callable[[Answer], int]) -> None:
    good = {"on": True}

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path == "/v1/chat/completions":
            return (200, completion(completion_tokens=1)) if good["on"] else (500, b"dead")
        return 404, b""

    activity = activity_of(serve(answer))
    activity.proved -= 201
    assert activity.found(), "chat is asked where there are no plain completions"
    good["on"] = False
    activity.proved -= 201
    assert not activity.found()
    assert "500" in activity.why


def test_an_engine_whose_metrics_cannot_be_read_lives_while_it_completes(serve: Callable[[Answer], int]) -> None:
    stop, good = threading.Event(), {"on": True}

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path == "/metrics":
            stop.wait(60)
        return (200, completion(completion_tokens=1)) if good["on"] else (500, b"dead")

    activity = launcher.TokenActivity(api(serve(answer)), 1.0, 6.0)
    activity.proved -= 3
    assert (activity.found(), activity.why) == (True, "")
    good["on"] = False
    activity.proved -= 3
    assert not activity.found()
    assert "/metrics: " in activity.why and "500" in activity.why
    stop.set()


def test_an_engine_that_sends_requests_away_while_open_ones_stand_still_does_not_live(
    serve: Callable[[Answer], int],
) -> None:
    said = {"body": metrics(4, 5)}
    port = serve(lambda method, path: (200, said["body"]) if path in ("/metrics", "/health") else (429, b"full"))
    activity = activity_of(port)
    activity.found()
    activity.proved -= 201
    assert not activity.found()
    assert "no token moves; /v1/completions answers 429" in activity.why
    said["body"] = metrics(0, 5)
    assert activity.found(), "nothing is open"


@pytest.mark.parametrize(
    ("status", "health", "found"),
    [
        (401, 200, (True, False)),
        (403, 200, (True, False)),
        (404, 200, (True, False)),
        (400, 200, (True, False)),
        (429, 200, (False, True)),
        (503, 200, (False, True)),
        (503, 503, (False, False)),
        (500, 200, (False, False)),
        (408, 200, (False, False)),
    ],
)
def test_a_refusal_says_nothing_of_its_health_and_to_be_busy_is_a_sign_of_life(
    serve: Callable[[Answer], int], status: int, health: int, found: tuple[bool, bool]
) -> None:
    port = serve(lambda method, path: (health if path == "/health" else 200 if path == "/metrics" else status, b""))
    asked = api(port).completion(1.0)
    assert (asked.refused, asked.busy) == found
    assert str(status) in asked.why
    activity = activity_of(port)
    activity.proved -= 201
    assert activity.found() is any(found)
    assert bool(activity.why) is not any(found)


def test_what_a_foreign_process_answers_does_not_count_and_it_is_not_given_the_key(
    serve: Callable[[Answer], int],
) -> None:
    asked = []

    def answer(method: str, path: str) -> tuple[int, bytes]:
        asked.append(path)
        return 200, completion(completion_tokens=1)

    port = serve(answer)
    foreign = api(port, container="f" * 64, key="s")
    assert "and not this service's container" in foreign.completion(1.0).why
    assert not launcher.TokenActivity(foreign, 1.0, 1.0).found()
    assert asked == []


def test_a_completion_that_does_not_come_ends_at_its_deadline(serve: Callable[[Answer], int]) -> None:
    stop = threading.Event()

    def answer(method: str, path: str) -> tuple[int, bytes]:
        stop.wait(60)
        return 200, b""

    asked = api(serve(answer)).completion(0.3)
    assert asked.why.startswith("no completion within 0.3 s")
    stop.set()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "no completion"),
        (b"{}", "no completion"),
        (completion(completion_tokens=0), "no token"),
        (b"[" * 100_000 + b"]" * 100_000, "no completion"),
        (b'{"choices": [{"text": "x"}], "error": {"message": "the engine is dead"}}', "no completion"),
        (b'{"choices": [{"text": "x", "finish_reason": "error"}]}', "no completion"),
        (b'{"choices": [{"text": "", "finish_reason": "abort"}], "usage": {"completion_tokens": 1}}', "no completion"),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}', "no completion"),
    ],
)
def test_garbage_is_no_completion(serve: Callable[[Answer], int], body: bytes, words: str) -> None:
    port = serve(lambda method, path: (200, body))
    assert words in api(port).completion(1.0).why


def test_the_label_of_the_secrets_is_an_hmac_by_the_nodes_key(tmp_path: Path) -> None:
    secrets, key = tmp_path / "q.env", tmp_path / "key"
    secrets.write_text('{"TOKEN": "a\\nb"}')
    key.write_bytes(b"k" * 32)
    found = launcher.secrets_of(spec(secrets=str(secrets), key=str(key)))
    assert found == ({"TOKEN": "a\nb"}, hmac.new(b"k" * 32, secrets.read_bytes(), hashlib.sha256).hexdigest())


def test_systemd_is_told_by_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(path)
        systemd = launcher.Systemd({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
        systemd.phase("loading\nshards")
        systemd.phase("loading shards")
        systemd.tell(READY=1)
        assert link.recv(999) == b"STATUS=loading shards"
        assert link.recv(999) == b"READY=1"
        assert systemd.watchdog == 30.0


def test_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n")
    assert launcher.available(str(path)) == 2 << 20


def test_a_spec_that_cannot_be_read_has_its_own_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.main([str(tmp_path / "none.json")]) == launcher.WRONG_SPEC
    assert "none.json" in capsys.readouterr().out


def test_the_container_says_which_checkpoint_it_was_started_from(tmp_path: Path) -> None:
    (tmp_path / ".sparkops").mkdir()
    (tmp_path / ".sparkops" / "manifest.json").write_bytes(b"{}")
    mounts = [{"source": str(tmp_path), "target": "/model", "read_only": True}]
    body = launcher.body_of(spec(manifest={"repository": "a/b"}, mounts=mounts), "d", {}, "", "")
    assert body["Labels"]["sparkops.checkpoint"] == hashlib.sha256(b"{}").hexdigest()


def test_the_files_that_an_engine_starts_on_are_proven_or_told_apart_by_their_statuses(tmp_path: Path) -> None:
    folder, state = tmp_path / "model", str(tmp_path / "state")
    (folder / ".sparkops").mkdir(parents=True)
    (folder / "a").write_bytes(b"right")
    (folder / RECORD).write_text(json.dumps({"files": [["a", 5, "sha256:1"], ["b", 5, "sha256:2"]]}))
    missing = standing(str(folder), state)
    (folder / "b").write_bytes(b"other")
    unproven = standing(str(folder), state)
    index = Index(state, str(folder))
    for name, oid in (("a", "sha256:1"), ("b", "sha256:2")):
        index.note(identity(os.stat(folder / name)), oid)
    index.save()
    assert standing(str(folder), state) == PROVEN
    assert seen(str(folder)) == unproven and unproven != missing
    os.link(folder / "a", tmp_path / "link")
    assert seen(str(folder)) == unproven, "a link writes nothing"
    (folder / "b").unlink()
    (folder / "b").write_bytes(b"other")
    assert standing(str(folder), state) == seen(str(folder)) not in (unproven, missing, PROVEN)


def test_a_rank_without_an_api_is_ready_when_its_container_runs(tmp_path: Path) -> None:
    address, file = str(tmp_path / "notify"), tmp_path / "spec.json"
    file.write_text(json.dumps(spec(argv=["vllm", "serve", "/model", "--headless"], rank=1)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(60)
        found = launcher.Launcher(str(file), {"NOTIFY_SOCKET": address}, launcher.Docker("/nowhere"))
        found._wait_for_completion("")
        told = systemd.recv(4096).decode()
    assert told.startswith("READY=1\nSTATUS=rank 1 of an engine")


BLOCKS = "AssertionError: In Mamba cache align mode, block_size (4176) must be <= max_num_batched_tokens (2048)."


@pytest.mark.parametrize(
    ("line", "certain"),
    [
        (BLOCKS, True),
        ("vllm serve: error: unrecognized arguments: --enable-mtp", True),
        ("ValueError: No available memory for the cache blocks.", False),
        ("torch.OutOfMemoryError: CUDA out of memory", False),
        ("OSError: [Errno 98] Address already in use", False),
        ("INFO: block_size (16)", False),
    ],
)
def test_only_what_would_end_alike_again_is_permanent(tmp_path: Path, line: str, certain: bool) -> None:
    (tmp_path / "errors.json").write_text(engine_errors.permanent())
    found = launcher.permanent_errors(str(tmp_path / "errors.json"))
    assert found is not None
    assert bool(found.search(line)) is certain


@pytest.mark.parametrize("text", [None, "", "[1]", '["("]', "{}"])
def test_without_a_usable_list_nothing_is_permanent(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "errors.json").write_text(text)
    found = launcher.permanent_errors(str(tmp_path / "errors.json"))
    assert found is None or not found.search(BLOCKS)


def test_the_file_on_the_node_runs_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "launcher.py"
    file.write_text(launcher_file())
    assert "sparkops.programs" not in launcher_file()
    done = subprocess.run([sys.executable, "-I", "-S", file, "--remove", "/no/spec"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (launcher.WRONG_SPEC, b"")
