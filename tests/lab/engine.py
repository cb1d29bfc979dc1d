"""The lab's small engine: takes `vllm serve …`, and answers over HTTP as vLLM's server does.

It is put into the image `lab/engine` as `/usr/local/bin/vllm`, so it stands alone: standard library, one file. It
reads the model folder as far as a broken download shows (config, index, every shard whole), then says the next
tokens of a fixed text. How it behaves is said by the environment variable LAB_ENGINE, words separated by commas:

    slow=SECONDS     the load takes that long             never-ready   the load never ends
    crash            the load ends in a traceback         crash-after=SECONDS   dies that long after the load
    hang             answers /health, generates nothing   hang-after=N  the same from the N-th completion on
    unhealthy        /health answers 503                  garbage       completions are not JSON
    empty            completions have no text             token-time=SECONDS   per generated token (default 0.002)
    deaf             ignores SIGTERM                      busy          completions are answered by 429
    ranks            with --nnodes: loads until all ranks are connected, takes no step without all of them
    chat-only        has no /v1/completions               gibberish     says "!" for every token
    tool-text        a tool call's number comes as text   no-tool       calls no tool

`POST /lab/mode` with such words as body changes the behaviour of the running engine; `GET /lab/argv` tells how it
was called. It exits on SIGTERM with 0, as vLLM does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = os.environ.get("LAB_ENGINE_VERSION", "0.33.0")
SENTENCE = "The capital of France is Paris and the quick brown fox jumps over the lazy dog ."
TEXT = SENTENCE.split()
_LINE = "(EngineCore pid=97) ERROR 01-01 00:00:00 [core.py:1108] "
ALIGN_CRASH = f"""{_LINE}EngineCore failed to start.
{_LINE}Traceback (most recent call last):
{_LINE}  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1082, in run_engine_core
{_LINE}    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)
{_LINE}AssertionError: In Mamba cache align mode, block_size (4176) must be <= max_num_batched_tokens (2048).
Traceback (most recent call last):
  File "/usr/local/bin/vllm", line 10, in <module>
    sys.exit(main())
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}"""


class Mode:
    """The behaviour asked for; read anew for each request, so that it can change while the engine runs."""

    def __init__(self, words: str) -> None:
        self.words = {name: value for name, _, value in (w.strip().partition("=") for w in words.split(",")) if name}

    def __contains__(self, name: str) -> bool:
        return name in self.words

    def number(self, name: str, default: float) -> float:
        return float(self.words.get(name) or default)


class Arguments:
    """`vllm serve MODEL --flag value --flag=value --switch …`: any flag is taken, as strings."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.positional: list[str] = []
        self.flags: dict[str, str] = {}
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                self.positional.append(word)
                continue
            name, joined, value = word.lstrip("-").partition("=")
            values = [value] if joined else []
            while not joined and rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            self.flags[name.replace("_", "-")] = " ".join(values)

    @property
    def model(self) -> str:
        return self.flags.get("model") or (self.positional[1:] or [""])[0]

    @property
    def served_names(self) -> list[str]:
        return self.flags.get("served-model-name", "").split() or [self.model]


class Ranks:
    """The ranks of one engine over several nodes. Whoever is lost is waited for, for ever, as in NCCL."""

    def __init__(self, flags: dict[str, str], stopping: threading.Event) -> None:
        self.count, self.rank = int(flags.get("nnodes") or 1), int(flags.get("node-rank") or 0)
        self.place = (flags.get("master-addr", ""), int(flags.get("master-port") or 29501))
        self.stopping = stopping
        self.links: list[socket.socket] = []
        self.lock = threading.Lock()

    def meet(self) -> None:
        """Until all are connected, the head at its port."""
        if self.rank == 0:
            with socket.create_server(self.place) as server:
                server.settimeout(0.2)
                while len(self.links) < self.count - 1 and not self.stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        self.links.append(server.accept()[0])
        while self.rank and not self.links and not self.stopping.wait(0.2):
            with contextlib.suppress(OSError):
                self.links.append(socket.create_connection(self.place, timeout=2))
        for link in self.links:
            link.settimeout(0.2)

    def step(self) -> None:
        """One step of all ranks."""
        with self.lock:
            for link in self.links:
                with contextlib.suppress(OSError):
                    link.sendall(b".")
            for link in self.links:
                self.next_byte(link)

    def follow(self) -> int:
        """What a rank without an API does."""
        while not self.stopping.is_set():
            self.next_byte(self.links[0])
            with contextlib.suppress(OSError):
                self.links[0].sendall(b".")
        return 0

    def next_byte(self, link: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                if link.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                pass
            self.stopping.wait()


class Histogram:
    """Observed numbers, counted by their upper bounds as Prometheus has them."""

    def __init__(self, *bounds: float) -> None:
        self.counts = dict.fromkeys((*bounds, float("inf")), 0)
        self.sum, self.count = 0.0, 0

    def observe(self, number: float) -> None:
        self.sum, self.count = self.sum + number, self.count + 1
        for bound in self.counts:
            self.counts[bound] += number <= bound

    def text(self, name: str, labels: str) -> str:
        bounds = [("+Inf" if bound == float("inf") else bound, count) for bound, count in self.counts.items()]
        lines = [f'{name}_bucket{{{labels},le="{bound}"}} {float(count)}\n' for bound, count in bounds]
        whole = f"{name}_sum{{{labels}}} {self.sum}\n{name}_count{{{labels}}} {float(self.count)}\n"
        return f"# HELP {name} {name}.\n# TYPE {name} histogram\n{''.join(lines)}{whole}"


class Engine:
    """The state that all requests share, and its counters."""

    def __init__(self, arguments: Arguments, mode: Mode) -> None:
        self.arguments, self.mode = arguments, mode
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.ranks = Ranks(arguments.flags, self.stopping)
        self.running = self.cached = self.completions = self.ended = self.prompt_tokens = self.generation_tokens = 0
        self.first, self.between, self.whole = (Histogram(0.001, 0.01, 0.1, 1.0, 10.0) for _ in range(3))
        self.iterations = Histogram(1, 8, 64, 512)

    def generate(self, prompt_tokens: int, limit: int) -> Any:
        """Yield words, taking the time that the mode says; a hung engine never yields and counts as running.

        What is read and cached is counted with the first step, as vLLM does.
        """
        with self.lock:
            self.running += 1
            self.completions += 1
            number = self.completions
        last = begun = time.monotonic()
        cached = 0
        try:
            if "hang" in self.mode or ("hang-after" in self.mode and number >= self.mode.number("hang-after", 1)):
                while "hang" in self.mode or "hang-after" in self.mode:
                    if self.stopping.wait(0.05):
                        return
            for index in range(0 if "empty" in self.mode else limit):
                self.ranks.step()
                if self.stopping.wait(self.mode.number("token-time", 0.002)):
                    return
                now = time.monotonic()
                with self.lock:
                    if not cached:
                        cached = 1
                        self.cached += 1
                        self.prompt_tokens += prompt_tokens
                    self.generation_tokens += 1
                    self.iterations.observe(1 if index else prompt_tokens)
                    (self.between if index else self.first).observe(now - last)
                last = now
                yield "!" if "gibberish" in self.mode else ("" if index == 0 else " ") + TEXT[index % len(TEXT)]
            with self.lock:
                self.ended += 1
                self.whole.observe(time.monotonic() - begun)
        finally:
            with self.lock:
                self.running -= 1
                self.cached -= cached

    def metrics(self) -> str:
        labels = f'engine="0",model_name="{self.arguments.served_names[0]}"'
        values = [
            ("gauge", "vllm:num_requests_running", self.running),
            ("gauge", "vllm:num_requests_waiting", 0),
            ("gauge", "vllm:kv_cache_usage_perc", 0.01 * self.cached),
            ("counter", "vllm:prompt_tokens_total", self.prompt_tokens),
            ("counter", "vllm:generation_tokens_total", self.generation_tokens),
            ("counter", "vllm:num_preemptions_total", 0),
            ("counter", "vllm:prefix_cache_queries_total", self.prompt_tokens),
            ("counter", "vllm:prefix_cache_hits_total", 0),
            ("counter", "vllm:spec_decode_num_drafts_total", self.generation_tokens // 2),
            ("counter", "vllm:spec_decode_num_draft_tokens_total", self.generation_tokens),
            ("counter", "vllm:spec_decode_num_accepted_tokens_total", self.generation_tokens // 2),
        ]
        histograms = [
            ("vllm:time_to_first_token_seconds", self.first),
            ("vllm:inter_token_latency_seconds", self.between),
            ("vllm:e2e_request_latency_seconds", self.whole),
            ("vllm:iteration_tokens_total", self.iterations),
        ]
        ended = f'vllm:request_success_total{{{labels},finished_reason="length"}} {float(self.ended)}\n'
        told = "".join(histogram.text(name, labels) for name, histogram in histograms)
        return f"# TYPE vllm:request_success_total counter\n{ended}{told}" + "".join(
            f"# HELP {name} {name}.\n# TYPE {name} {kind}\n{name}{{{labels}}} {float(value)}\n"
            for kind, name, value in values
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, format: str, *args: Any) -> None:
        print(f'(APIServer pid={os.getpid()}) INFO:     {self.client_address[0]}:0 - "{format % args}"', flush=True)

    def do_GET(self) -> None:
        engine = self.engine
        if self.path in ("/health", "/ping"):
            self.send(503 if "unhealthy" in engine.mode else 200, b"")
        elif self.path == "/version":
            self.json({"version": VERSION})
        elif self.path == "/v1/models":
            self.json({"object": "list", "data": [self.model(name) for name in engine.arguments.served_names]})
        elif self.path == "/metrics":
            self.send(200, engine.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif self.path == "/load":
            self.json({"server_load": engine.running})
        elif self.path == "/lab/argv":
            self.json({"argv": engine.arguments.argv, "environment": dict(os.environ)})
        else:
            self.json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/lab/mode":
            self.engine.mode = Mode(body.decode())
            self.json({"mode": self.engine.mode.words})
        elif self.path == "/v1/completions" and "chat-only" in self.engine.mode:
            self.json({"detail": "Not Found"}, 404)
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            self.complete(body, chat="chat" in self.path)
        elif self.path == "/tokenize":
            prompt = json.loads(body).get("prompt", "")
            self.json(
                {
                    "count": len(prompt.split()),
                    "max_model_len": self.limit(),
                    "tokens": list(range(len(prompt.split()))),
                }
            )
        else:
            self.json({"detail": "Not Found"}, 404)

    def limit(self) -> int:
        text = self.engine.arguments.flags.get("max-model-len", "")
        return int(text) if text.isdigit() else 262144

    def model(self, name: str) -> dict[str, object]:
        root = self.engine.arguments.model
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "vllm",
            "root": root,
            "parent": None,
            "max_model_len": self.limit(),
        }

    def complete(self, body: bytes, *, chat: bool) -> None:
        key = self.engine.arguments.flags.get("api-key") or os.environ.get("VLLM_API_KEY")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            return self.json({"error": "Unauthorized"}, 401)
        try:
            asked = json.loads(body)
            prompt = json.dumps(asked["messages"]) if chat else str(asked["prompt"])
        except (ValueError, KeyError, TypeError) as wrong:
            return self.json({"error": {"message": f"{wrong!r}", "type": "BadRequestError", "code": 400}}, 400)
        name = asked.get("model", self.engine.arguments.served_names[0])
        if name not in self.engine.arguments.served_names:
            text = f"The model `{name}` does not exist."
            return self.json({"error": {"message": text, "type": "NotFoundError", "param": "model", "code": 404}}, 404)
        if "busy" in self.engine.mode:
            return self.json({"error": {"message": "Too many requests", "code": 429}}, 429)
        if "garbage" in self.engine.mode:
            return self.send(200, b"<html>!!!!!!!!</html>", "application/json")
        count = len(prompt.split()) + 1
        limit = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16)
        answer = Answer(name, chat=chat)
        if asked.get("stream"):
            return self.stream(
                answer, count, limit, with_usage=bool((asked.get("stream_options") or {}).get("include_usage"))
            )
        words = list(self.engine.generate(count, limit))
        if self.engine.stopping.is_set():
            self.close_connection = True
            return None
        whole = answer.whole("".join(words), usage(count, len(words)))
        if asked.get("tools") and "no-tool" not in self.engine.mode:
            name = asked["tools"][0]["function"]["name"]
            days = "3" if "tool-text" in self.engine.mode else 3
            called = {"name": name, "arguments": json.dumps({"city": "Paris", "days": days})}
            whole["choices"][0]["message"]["tool_calls"] = [{"id": "1", "type": "function", "function": called}]
        return self.json(whole)

    def stream(self, answer: Answer, count: int, limit: int, *, with_usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        made = 0
        for word in self.engine.generate(count, limit):
            made += 1
            self.event(answer.part(word, "length" if made == limit else None))
        if with_usage:
            self.event({**answer.part("", None), "choices": [], "usage": usage(count, made)})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value: object) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Answer:
    """The JSON shapes of one completion, whole or in parts."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self.chat = chat
        self.common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, usage: dict[str, int]) -> dict[str, Any]:
        said: dict[str, object] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        return {**self.common, "object": kind, "choices": [choice], "usage": usage}

    def part(self, text: str, reason: str | None) -> dict[str, object]:
        said: dict[str, object] = {"delta": {"content": text}} if self.chat else {"text": text}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self.common, "object": kind, "choices": [{"index": 0, **said, "finish_reason": reason}]}


def usage(prompt: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def check_model(folder: Path) -> None:
    """Refuse a folder that vLLM could not load: no config, an index without its shards, a shard cut short."""
    if not folder.is_dir():
        raise SystemExit(f"OSError: {folder} is not a local folder, and the hub is off limits in the lab")
    json.loads((folder / "config.json").read_text())
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    for shard in sorted(shards):
        size = (folder / shard).stat().st_size
        with (folder / shard).open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if 8 + length + max(ends) != size:
            raise SystemExit(
                "safetensors_rust.SafetensorError: Error while deserializing header: "
                f"incomplete metadata, file not fully covered: {shard}"
            )


def load(engine: Engine) -> None:
    """What happens between the start and the first answer."""
    log = f"(EngineCore pid={os.getpid()}) INFO 01-01 00:00:00 "
    print(
        f"(APIServer pid={os.getpid()}) INFO 01-01 00:00:00 [utils.py:325] vLLM API server version {VERSION}",
        flush=True,
    )
    print(
        f"{log}[core.py:93] Initializing a V1 LLM engine (v{VERSION}) with config: model='{engine.arguments.model}'",
        flush=True,
    )
    if "crash" in engine.mode:
        print(ALIGN_CRASH, file=sys.stderr, flush=True)
        raise SystemExit(1)
    check_model(Path(engine.arguments.model))
    if "never-ready" in engine.mode:
        engine.stopping.wait()
    engine.stopping.wait(engine.mode.number("slow", 0))
    if "ranks" in engine.mode:
        engine.ranks.meet()
    print(f"{log}[default_loader.py:268] Loading weights took {engine.mode.number('slow', 0):.2f} seconds", flush=True)


def serve(engine: Engine) -> int:
    flags = engine.arguments.flags
    address = (flags.get("host") or "0.0.0.0", int(flags.get("port") or 8000))
    handler = type("EngineHandler", (Handler,), {"engine": engine})
    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(address, handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print(f"(APIServer pid={os.getpid()}) INFO:     Application startup complete.", flush=True)
    if "crash-after" in engine.mode and not engine.stopping.wait(engine.mode.number("crash-after", 1)):
        print(
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", file=sys.stderr, flush=True
        )
        return 1
    engine.stopping.wait()
    server.shutdown()
    return 0


def main(argv: list[str]) -> int:
    if argv[:1] in (["--version"], ["-v"]):
        print(VERSION)
        return 0
    if argv[:1] != ["serve"]:
        print(f"usage: vllm serve MODEL [OPTIONS]; not {argv!r}", file=sys.stderr)
        return 2
    arguments = Arguments(argv)
    engine = Engine(arguments, Mode(os.environ.get("LAB_ENGINE", "")))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if "deaf" in engine.mode else lambda *_: engine.stopping.set())
    load(engine)
    if engine.ranks.rank and engine.ranks.links:
        return engine.ranks.follow()
    return 0 if engine.stopping.is_set() else serve(engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
