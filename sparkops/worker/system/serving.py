"""Where the engine of a service answers on this node, by which key, and how long it still works for others."""

import http.client
import time
from collections.abc import Mapping

from sparkops.core import atomic
from sparkops.core.kind_messages import EnginePlace
from sparkops.programs import docker
from sparkops.programs.launch.api import BUSY, Api, Question
from sparkops.programs.launch.listening import numeric
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import ports

METRICS_SECONDS = 5.0
POLL = 0.5


class Service:
    """Where the declared container or unit answers. A probe that declares neither believes whoever listens."""

    def __init__(self, ask: EnginePlace) -> None:
        self.host, self.port, self.ask = numeric(ask["host"]), ask["port"], ask

    def fault(self) -> str:
        """Why an answer would not be its own. Raises Unknown."""
        if not self.ask.get("container") and not self.ask.get("unit"):
            return ""
        unit_name = "" if self.ask.get("container") else str(self.ask["unit"])
        held = ports.held(self.port, self.host, self._container, unit_name)
        if held.foreign is not None:
            return f"{ports.words(held.foreign)} listens on port {self.port}, and not {self._name()}"
        return "" if held.own else f"nothing listens on {self.host}:{self.port}"

    def run(self) -> str:
        """Which run of its container this is: another one after a restart. "" without one. Raises Unknown."""
        found = self._container()
        if found is None:
            return ""
        state = found.get("State")
        return f"{found.get('Id')} {state.get('StartedAt') if isinstance(state, Mapping) else None}"

    def _container(self) -> Mapping[str, object] | None:
        """The launcher's is known by its label: a name can be changed while it runs."""
        if not (container := self.ask.get("container")):
            return None
        if (service := self.ask.get("service")) and self.ask.get("spec"):
            return docker.service_container(service)
        return docker.inspect_container(container)

    def _name(self) -> str:
        return (
            f"the service {self.ask['service']}"
            if self.ask.get("service")
            else str(self.ask.get("unit") or self.ask["container"])
        )


def api(ask: EnginePlace, question: Question) -> Api:
    """The interface of the service that `ask` tells of (`host`, `port`, `container`, `unit`, `service`, `spec`)."""
    return Api(Service(ask), api_key(ask.get("spec")), question)


def api_key(path: str | None) -> str:
    """The key that the engine was started with, out of the launcher's spec; "" where it has none."""
    spec = atomic.mapping(path) if path else {}
    secrets = atomic.mapping(spec["secrets"]) if spec.get("secrets") else {}
    return str({**spec.get("environment", {}), **secrets}.get("VLLM_API_KEY", ""))


def drain(call: Call, ask: EnginePlace, seconds: float) -> None:
    """Wait until the engine works on no request, for at most `seconds`; what is left is told by a notice.

    `ask` as of `api`; /metrics needs no key. An engine that does not answer has nobody to wait for; for one that does
    not tell its requests nobody waits, and that is told.
    """
    engine = Api(Service(ask), "", Question("", ""))
    started = time.monotonic()
    while True:
        open_now = _open(engine)
        left = seconds - (time.monotonic() - started)
        if not open_now or left <= 0:
            break
        call.progress(f"waiting for {open_now:g} running requests", done=round(seconds - left), total=seconds, unit="s")
        if call.stopping.wait(min(POLL, left)) or call.session_over.is_set():
            raise Refused.of("unit-wait-cancelled", type="cancelled", unit=ask["unit"], verb="stop")
    if open_now is None:
        call.progress(notice={"id": "drain-unknown", "args": {"service": ask["service"]}})
    elif open_now:
        args = {"service": ask["service"], "running": round(open_now), "seconds": seconds}
        call.progress(notice={"id": "drain-ended", "args": args})


def _open(engine: Api) -> float | None:
    """Requests that run or wait in the engine; 0 where it does not answer, None where it does not tell."""
    try:
        if engine.foreign():
            return 0.0
        found = engine.metrics(METRICS_SECONDS)
    except Unknown:
        return None
    except (OSError, http.client.HTTPException):
        return 0.0
    return None if found is None or BUSY[0] not in found else sum(found.get(each, 0.0) for each in BUSY)
