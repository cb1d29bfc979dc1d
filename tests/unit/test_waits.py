"""Everything outside has an end: no call of ours waits for another process, machine or name server without a limit.

The source is read, not run: each call that can wait has a limit in its arguments, stands inside of `within(…)`, or in
WITHOUT with the reason for which it ends all the same. A call that has gone has to go from there too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "sparkops"
NEEDS_KEYWORD = {"urlopen": "timeout", "check_output": "timeout", "check_call": "timeout", "getstatusoutput": "timeout"}
NEEDS_ARGUMENT = {"wait": 1, "communicate": 2, "wait_for": 2, "create_connection": 2}
"""Calls by name and how many arguments they have where one is a limit; or it is the keyword `timeout`."""
BARE = {"join", "get", "acquire", "result"}
"""Calls that wait for ever when they have no argument at all (a thread, a queue, a lock, a future)."""
NEVER_LIMITED = {
    *("getaddrinfo", "gethostbyname", "getfqdn", "getnameinfo", "gethostbyaddr"),
    *("getresponse", "recv", "recv_into", "recvfrom", "recvmsg", "recv_fds", "accept", "readinto1", "read1"),
    *("exec_command", "waitpid"),
}
RECEIVERS = {"answer", "response", "pipe", "stdin", "stdout", "output", "channel", "_channel"}
"""What `read()` waits on, by the names that such things have here."""
OURS = "the other end is a process of ours, which ends with this one or is ended by it"
SILENCE = "the socket has a limit of silence, and who reads counts what comes"
ASKED = "the caller asks it inside of `within`"
BEATS = "the session ends where the other side gives no sign of life"
THREADS = "what the threads do has limits of its own"
PERSON = "it waits for what a person types or pipes in"
LAUNCHER = "the main process of a unit, which lives as long as its container; systemd's watchdog and stop limit end it"

WITHOUT = {
    "cli/interrupts.py hear read": "a pipe of this process, which `interrupts` closes as it ends",
    "cli/interrupts.py interrupts join": "the pipe that the thread reads was closed just before",
    "cli/recipe.py import_ read": PERSON,
    "cli/serve_line.py _invocation read": PERSON,
    "nodes/local.py _readable read": OURS,
    "nodes/local.py read read": "poll said that there is something",
    "nodes/passwords.py turn acquire": PERSON,
    "nodes/session.py _read read": BEATS,
    "nodes/ssh/client.py _give_back result": "it is done",
    "nodes/ssh/client.py _take result": "who makes the link has a deadline, and every end of it is an outcome",
    "nodes/ssh/client.py _through result": "it is done",
    "nodes/ssh/client.py broken result": "it is done",
    "nodes/ssh/client.py read recv": "the channel has a limit, after which the wire's patience is asked",
    "nodes/ssh/identities.py __init__ connect": "the socket has a limit",
    "nodes/ssh/wire.py dial connect": "the socket has a limit",
    "nodes/ssh/wire.py recv recv": "paramiko sets a limit of a tenth of a second",
    "operate/measuring/tools.py call run": "a person sees what the tool prints while it measures, and Ctrl-C ends it",
    "operate/streams.py lines get": BEATS,
    "operate/streams.py split read": BEATS,
    "programs/build/process_pool.py close waitpid": OURS,
    "programs/build/process_pool.py run read": "select said that there is something",
    "programs/docker.py connect connect": "the socket has a limit",
    "programs/docker.py _pump read1": SILENCE,
    "programs/docker.py content read1": SILENCE,
    "programs/docker.py whole read": ASKED,
    "programs/fetch/http.py head getresponse": ASKED,
    "programs/fetch/http.py take read1": SILENCE,
    "programs/fetch/http.py take readinto1": SILENCE,
    "programs/fetch/partial_file.py close wait_for": THREADS,
    "programs/launch/api.py whole getresponse": ASKED,
    "programs/launch/api.py whole read": ASKED,
    "programs/launch/docker.py _copy read": LAUNCHER,
    "programs/launch/docker.py ask read": LAUNCHER,
    "programs/launch/docker.py connect connect": LAUNCHER,
    "programs/launch/docker.py open getresponse": LAUNCHER,
    "programs/launch/ranks.py _take recvfrom": "select said that there is something",
    "programs/measure/main.py _drained accept": "the listener has a limit",
    "programs/measure/main.py drain recv_into": "the socket has a limit of silence, and who sends is our own program",
    "programs/parallel.py at_once result": THREADS,
    "programs/transfer/client.py whole read1": SILENCE,
    "programs/transfer/served_files.py _ask read": OURS,
    "programs/transfer/served_files.py _ask recv_fds": OURS,
    "programs/transfer/served_image.py answer read": OURS,
    "programs/transfer/served_image.py answer recv_fds": OURS,
    "programs/transfer/server.py _handshake recv": "the socket has a limit, and the server one for all",
    "reconcile/schedule.py run wait": "a step runs then, and its end or loss is told",
    "resources/images/registry.py _json read": ASKED,
    "resources/images/registry.py _manifest_digest read": ASKED,
    "resources/images/registry.py _token read": ASKED,
    "watching/receivers.py _work wait_for": "the thread of a receiver waits for what changes, and `stop` ends it",
    "worker/images/load.py _arriving read": OURS,
    "worker/images/load.py _arriving result": OURS,
    "worker/main.py run read": "the worker leaves where the controller does not answer its beats",
    "worker/requests/bench.py cell result": "each completion has a deadline",
    "worker/requests/exec.py _pump read": "select said that there is something",
    "worker/requests/facts.py gather result": "who observes is given up after the limit of the look",
    "worker/requests/transfer.py _answer_all recv": OURS,
    "worker/system/jobs.py main read": OURS,
    "worker/system/speed.py _lines read1": SILENCE,
    "worker/system/speed.py streamed getresponse": "the socket has a limit",
    "worker/system/speed.py streamed read1": "the socket has a limit",
}
"""By module, function and call: why a wait that has no limit in sight ends all the same."""


def calls() -> Iterator[tuple[str, ast.Call, bool]]:
    """Place (`module function`), call, and whether it stands inside of `within(…)`."""
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).as_posix()
        yield from _below(ast.parse(path.read_text()), module, "", False)


def _below(node: ast.AST, module: str, function: str, limited: bool) -> Iterator[tuple[str, ast.Call, bool]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        function = node.name
    inside = limited
    if isinstance(node, ast.Call):
        yield f"{module} {function}", node, limited
        inside = limited or _name(node) == "within"
    for child in ast.iter_child_nodes(node):
        yield from _below(child, module, function, inside)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _receiver(call: ast.Call) -> str:
    value = call.func.value if isinstance(call.func, ast.Attribute) else None
    return value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")


def waits(call: ast.Call) -> bool:
    """Whether a call can wait and has no limit of its own."""
    name, keywords = _name(call), {each.arg for each in call.keywords}
    if "timeout" in keywords or None in keywords:
        return False
    if name in NEEDS_KEYWORD or (name in ("run", "call") and _receiver(call) == "subprocess"):
        return True
    if name in NEEDS_ARGUMENT:
        return len(call.args) < NEEDS_ARGUMENT[name] and isinstance(call.func, ast.Attribute)
    if name in BARE:
        return not call.args and not keywords and isinstance(call.func, ast.Attribute)
    if name in ("flock", "lockf"):
        return "LOCK_NB" not in ast.unparse(call) and "LOCK_UN" not in ast.unparse(call)
    if name in ("HTTPConnection", "HTTPSConnection"):
        return True
    if name in ("read", "readline") and _receiver(call) in RECEIVERS:
        return True
    if name == "read" and _receiver(call) in ("os", "frames"):
        return True
    if name == "connect":
        return _receiver(call) in ("peer", "link", "sock")
    return name in NEVER_LIMITED


def unlimited() -> set[str]:
    return {f"{place} {_name(call)}" for place, call, limited in calls() if waits(call) and not limited}


def test_no_call_waits_without_a_limit_or_a_reason() -> None:
    assert unlimited() - WITHOUT.keys() == set()


def test_what_has_gone_has_no_reason_any_more() -> None:
    assert WITHOUT.keys() - unlimited() == set()
    assert all(WITHOUT.values())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("urllib.request.urlopen(request)", True),
        ("urllib.request.urlopen(request, timeout=3)", False),
        ("subprocess.run(argv)", True),
        ("subprocess.run(argv, timeout=3)", False),
        ("child.wait()", True),
        ("child.wait(3)", False),
        ("child.communicate(data)", True),
        ("child.communicate(data, 3)", False),
        ("thread.join()", True),
        ("', '.join(words)", False),
        ("lines.get()", True),
        ("mapping.get('a')", False),
        ("lock.acquire()", True),
        ("lock.acquire(blocking=False)", False),
        ("socket.getaddrinfo(host, port)", True),
        ("fcntl.flock(handle, fcntl.LOCK_EX)", True),
        ("fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", False),
        ("fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", False),
        ("fcntl.lockf(handle, fcntl.LOCK_EX)", True),
        ("response.read()", True),
        ("file.read()", False),
        ("http.client.HTTPConnection(host)", True),
        ("socket.create_connection(place, 3)", False),
    ],
)
def test_calls_are_told_apart(line: str, expected: bool) -> None:
    (call,) = [each for each in ast.walk(ast.parse(line)) if isinstance(each, ast.Call)][:1]
    assert waits(call) is expected
