"""The laws under a fetch: ranges, journals that survive, links that are followed, folders that change places."""

import contextlib
import http.server
import itertools
import json
import os
import pwd
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.programs.checkpoints import hashes, verify
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.fetch.http import Client, Hub, Remote, Retry
from sparkops.programs.fetch.partial_file import Content, gaps, make_store, merged
from sparkops.worker.calls import Refused

spans = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@given(st.lists(spans, max_size=12))
def test_merged_ranges_hold_exactly_what_was_put_in(parts: list[tuple[int, int]]) -> None:
    ranges: list[tuple[int, int]] = []
    for start, end in parts:
        ranges = merged(ranges, start, end)
    held = {n for start, end in parts for n in range(start, end)}
    assert [n for start, end in ranges for n in range(start, end)] == sorted(held)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges))
    missing = [n for start, end in gaps(ranges, 60) for n in range(start, end)]
    assert missing == [n for n in range(60) if n not in held]


@given(st.permutations(range(8)), st.integers(0, 8))
def test_parts_in_any_order_over_two_runs_prove_the_content(order: list[int], cut: int) -> None:
    data = bytes(range(200)) * 4
    size = len(data)
    oid = _hashed(data).oid
    with working_in_a_fresh_folder():
        make_store()
        for run in (order[:cut], order[cut:]):
            one = Content(oid, size)
            one.open()
            for part in run:
                one.write(part * 100, data[part * 100 : part * 100 + 100])
                completed = one.mark(part * 100, part * 100 + 100)
                one.follow(wait=completed)
            if one.arrived == size:
                one.follow(wait=True)
                if not one.proven():
                    assert one.prove() == oid
            one.close()
        assert Content(oid, size).proven()
        assert Path(one.place).read_bytes() == data


@contextlib.contextmanager
def working_in_a_fresh_folder() -> Iterator[None]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _hashed(data: bytes) -> hashes.Hasher:
    made = hashes.Hasher("sha256:", len(data))
    made.update(data)
    return made


def test_a_journal_that_claims_more_than_the_file_holds_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store()
    one = Content("sha256:" + "0" * 64, 100)
    Path(one.part).write_bytes(b"x" * 10)
    Path(one.place + ".json").write_text('{"done": [[0, 100], [5, 8], [-1, 3], ["a", 2], [0, 10]]}')
    one.open()
    assert one.done == [(0, 10)]
    one.close()


@contextlib.contextmanager
def server(location: str) -> Iterator[str]:
    """A server that redirects everything; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("location", ["http://127.0.0.1:9/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_an_encrypted_hub_never_leads_to_a_plain_address(location: str) -> None:
    with server(location) as address:
        client = Client(Hub("https://hub.example.org", "o/n", "0" * 40, ""), 2.0)
        with pytest.raises(Refused) as caught:
            client.get(Remote(f"{address}/file", 10, "a file"), 0, 10)
        assert caught.value.id == "hub-redirect-not-encrypted"


def test_a_circle_of_redirects_ends() -> None:
    with server("/again") as address:
        client = Client(Hub(address, "o/n", "0" * 40, ""), 2.0)
        with pytest.raises(Refused) as caught:
            client.get(Remote(f"{address}/file", 10, "a file"), 0, 10)
        assert caught.value.id == "hub-redirects-endless"


def test_the_proxy_of_the_environment_is_used_unless_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub("http://hub.example.org", "o/n", "0" * 40, "")
    with server("http://elsewhere.invalid/") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "elsewhere.invalid")
        with pytest.raises(Retry, match="elsewhere.invalid"):
            Client(hub, 2.0).get(hub.remote("f", 1), 0, 1)


def test_a_folder_takes_the_place_of_another_at_once(tmp_path: Path) -> None:
    place = CheckpointFolder(str(tmp_path / "tiny"))
    who = pwd.getpwuid(os.getuid())
    for word in ("old", "new"):
        staging = place.stage(who)
        (tmp_path / place.partial / "word").write_text(word)
        place.publish(staging)
        os.close(staging)
    assert (tmp_path / "tiny" / "word").read_text() == "new"
    assert place.leftover() == place.old
    place.sweep()
    assert os.listdir(tmp_path) == ["tiny"]


def test_a_folder_that_another_one_takes_the_place_of_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    """A drift beside a fetch that just published said that files of the new commit were missing."""
    place = CheckpointFolder(str(tmp_path / "tiny"))
    who = pwd.getpwuid(os.getuid())

    def publish(commit: str, path: str) -> None:
        staging = place.stage(who)
        record = {"repository": "o/n", "commit": commit, "files": [[path, 1, "sha256:0"]]}
        (tmp_path / place.partial / ".sparkops").mkdir()
        (tmp_path / place.partial / ".sparkops/manifest.json").write_text(json.dumps(record))
        (tmp_path / place.partial / path).write_text("x")
        place.publish(staging)
        os.close(staging)
        place.sweep()

    publish("1", "old")
    looks = iter(["2"])

    def describe(digest: str, record: dict[str, Any], index: Index) -> dict[str, Any]:
        for commit in looks:
            publish(commit, "new")
        return {"commit": record["commit"]}

    found = verify.observe({"folder": place.path, "state_dir": str(tmp_path / "state")}, describe)
    assert found is not None
    assert (found["commit"], found["missing"], found["unverified"]) == ("2", [], ["new"])


@pytest.mark.parametrize("text", ["", "[]", '{"files": [[1]]}', '{"files": 1}', "[" * 100_000])
def test_a_record_that_is_no_record_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".sparkops").mkdir()
    (tmp_path / ".sparkops" / "manifest.json").write_text(text)
    handle = os.open(tmp_path, os.O_RDONLY)
    assert record_of(handle) == ("", {})
    (tmp_path / ".sparkops" / "manifest.json").unlink()
    os.mkfifo(tmp_path / ".sparkops" / "manifest.json")
    assert record_of(handle) == ("", {})
    os.close(handle)
