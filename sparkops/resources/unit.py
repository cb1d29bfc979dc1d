"""The kind `unit`: a systemd unit, from its text to what its running process was started from.

Whether a process has to be restarted is not a matter of what this run wrote: the unit's text carries
`Environment=SPARKOPS_INPUTS=DIGEST`, and the observer reads that back out of the *running* process. A unit without a
main process (`Type=oneshot` with `RemainAfterExit=yes`) says it through the lines of `inputs_lines`. Any other change
of the text needs a daemon-reload and interrupts nothing.

It must not know how systemd is asked: that is the worker's half.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sparkops.core.digests import sha256
from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import UnitAct, UnitAsk
from sparkops.core.plan import Occupied, Step, Violation
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Observed, Pending, State, Unknown
from sparkops.core.system_places import is_unit
from sparkops.core.wording import Message
from sparkops.resources.resource import Peers, Resource

SUFFIXES = "service|socket|timer|target|mount|automount|path|slice|swap"
NAME = re.compile(rf"[A-Za-z0-9:_.\\@-]{{1,240}}\.(?:{SUFFIXES})\Z")
VARIABLE = "SPARKOPS_INPUTS"
RUNS = frozenset(
    {
        "inputs",
        "main_process",
        "container_inputs",
        "container_image",
        "container_checkpoint",
        "container_environment",
        "container_settings",
        "secret_inputs",
    }
)
"""The keys about the running process."""
UNITS = "/etc/systemd/system/"
STAMPS = "/run/sparkops/units"


def inputs_lines(digest: str, *, main_process: bool = True) -> tuple[str, ...]:
    """The lines of a `[Service]` section by which a running unit tells what it was started from.

    `digest` stands for the inputs (hexadecimal, or any word without spaces). With `main_process=False`, for units that
    are active without a process, the start also leaves the digest in `/run/sparkops/units/NAME`.
    """
    lines = [f"Environment={VARIABLE}={digest}"]
    if not main_process:
        write = f'mkdir -p {STAMPS} && printf %%s "$${VARIABLE}" > {STAMPS}/%n'
        lines.append(f"ExecStartPost=/bin/sh -c '{write}'")
    return tuple(lines)


@dataclass(frozen=True, kw_only=True)
class Unit(Resource):
    """A systemd unit, by its name with the suffix (`greeter.service`).

    content: the unit file's text, written to /etc/systemd/system/NAME; without it the unit is someone else's.
    enabled, running, masked: as systemctl means them. A unit that is starting counts as running, one that waits for an
        automatic restart does not. Declaring `enabled: true` or `running: true` declares that it is not masked.
    inputs: the digest that the running process must have been started from; needs the line
        `Environment=SPARKOPS_INPUTS=DIGEST` in the text.
    properties: names and values as `systemctl show` prints them.
    wait: whether a start waits until systemd calls it started. False for units that take long to get ready and that a
        `probe` waits for.
    main_process: the argument list that the main process must have.
    container: the container that the unit runs for its service, known by the label `sparkops.service`; its label
        `sparkops.spec` must be `inputs`, its variables those of the spec, its secrets and its image, it must not be
        paused, and Docker must not restart it by itself.
    image: an image reference; the running container's image must be what the reference now resolves to.
    model: the folder of a checkpoint; the container must have been started from what lies there now.
    secret: the bytes of the service's secret environment file; the container's label `sparkops.secret` must be their
        HMAC by the node's key.
    drop_ins: paths of drop-ins that are declared elsewhere; all others are reported.
    state_dir: sparkops' folder on the node, which has the node's key.
    port: the port that it listens on; a unit that is no longer declared and uses it has to be removed first. A foreign
        process that listens there is the violation `port-taken`.
    host: the node's address that the port belongs to; 0.0.0.0 for all.
    drain_seconds: for how long what interrupts its engine waits until that works on no request; 0 for no wait.
    displaces: units that systemd stops when this one starts (`Conflicts=`); the port may be theirs until then.
    """

    kind: ClassVar[str] = "unit"
    prune: ClassVar[Literal["remove"]] = "remove"
    file_type: ClassVar[str] = "file"
    reads: ClassVar[Mapping[str, str]] = {
        "text": "text",
        "said": "text",
        "vendor": "text",
        "drop_ins": "list of text",
        "port_taken": "mapping",
        "group": "mapping",
    }
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            "state",
            "result",
            "restarts",
            "text",
            "said",
            "port_taken",
            "last_start",
            "last_token",
            "last_hang",
            "loaded",
            "group",
            "waiting",
        }
    )
    guarded: ClassVar[bool] = True
    implied: ClassVar[frozenset[str]] = RUNS | {"reload_needed", "failed", "restart_policy", "paused"}
    interrupts: ClassVar[frozenset[str]] = RUNS | {"running", "failed"}

    content: Content | str | None = None
    enabled: bool | None = None
    running: bool | None = None
    masked: bool | None = None
    inputs: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    wait: bool = True
    container: str | None = None
    image: str | None = None
    model: str | None = None
    secret: Content | str | None = None
    drop_ins: tuple[str, ...] = ()
    state_dir: str = "/var/lib/sparkops"
    port: int | None = None
    host: str = "0.0.0.0"
    drain_seconds: float = 0.0
    displaces: tuple[str, ...] = ()
    main_process: tuple[str, ...] = ()
    state: Literal["present", "absent"] = "present"

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            hint = f"write it with its suffix ({SUFFIXES.replace('|', ', ')})"
            raise InventoryError.of("unit-name-invalid", where=self.where, name=self.name, hint=hint)
        if isinstance(self.content, Secret) or (isinstance(self.content, Content) and self.content.secret):
            raise InventoryError.of("unit-holds-secret", where=self.where, name=self.name)
        if self.content is not None and self.state == "present" and is_unit(self.name):
            raise InventoryError.of("unit-name-of-system", where=self.where, unit=self.name)
        if self.masked and (self.running or self.enabled):
            raise InventoryError.of("unit-masked-and-active", where=self.where, name=self.name)

    @property
    def _digest(self) -> str | None:
        return None if self.content is None else sha256(_bytes(self.content))

    @classmethod
    def occupied(cls, name: str, claim: Mapping[str, object]) -> Occupied:
        port = claim.get("port")
        return Occupied(path=UNITS + name, unit=name, port=port if isinstance(port, int) else None)

    @classmethod
    def brought(cls, name: str, claim: Mapping[str, object]) -> bool:
        """A unit of our text is ours, also where an earlier one stood in its place."""
        return True

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        """Only where its text is ours; never ssh.service."""
        return "content" in parameters or "template" in parameters

    def uses(self) -> Mapping[str, Collection[str]]:
        return {"images": [self.image] if self.image else [], "folders": [self.model] if self.model else []}

    def in_place(self, found: Observed) -> bool:
        return isinstance(found, Mapping) and bool(found.get("running"))

    @property
    def replaceable(self) -> bool:
        """Replacing is a restart."""
        return self.running is True

    def claim(self) -> dict[str, object]:
        kept = super().claim()
        if self.state == "present" and self.content is not None:
            kept["content"] = [self._digest]
        return {**kept, "port": self.port} if self.state == "present" and self.port else kept

    def ask(self) -> UnitAsk:
        return {
            "name": self.name,
            "present": self.state == "present",
            "content": self._digest,
            "inputs": self.inputs is not None,
            "properties": sorted(self.properties),
            "container": self.container,
            "image": self.image,
            "model": self.model,
            "secret": _bytes(self.secret) if self.secret is not None else None,
            "state_dir": self.state_dir,
            "service": self.service,
            "port": self.port if self.running else None,
            "host": self.host,
            "displaces": list(self.displaces),
            "main_process": bool(self.main_process),
        }

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wanted: dict[str, object] = {}
        if self.content is not None:
            wanted["content"] = self._digest
        masked = False if self.masked is None and (self.running or self.enabled) else self.masked
        wanted |= {"masked": masked, "enabled": self.enabled, "reload_needed": False, "running": self.running}
        if self.running:
            wanted |= {"failed": False, "inputs": self.inputs}
            wanted["main_process"] = list(self.main_process) or None
            wanted["container_inputs"] = self.inputs if self.container else None
            wanted["container_environment"] = "declared" if self.container else None
            wanted["container_settings"] = "declared" if self.container else None
            wanted["restart_policy"] = "no" if self.container else None
            wanted["paused"] = False if self.container else None
            wanted["container_image"] = "current" if self.container and self.image else None
            wanted["container_checkpoint"] = "current" if self.container and self.model else None
            wanted["secret_inputs"] = "declared" if self.container and self.secret is not None else None
        wanted |= {f"property.{name}": str(value) for name, value in self.properties.items()}
        return {key: value for key, value in wanted.items() if value is not None}

    def same(self, key: str, wanted: object, found: object) -> bool:
        """What runs is compared only where something runs; that nothing does is said by `running`."""
        if key in RUNS | {"restart_policy", "paused"} and found is None:
            return True
        return bool(wanted == found)

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        """An image or a checkpoint that this very plan brings: only after its step is known what has to run.

        A checkpoint of which the container says that it was started from the same is no change, wherever it comes.
        """
        if not (self.running and self.container):
            return {}
        brought = {
            f"image {self.image} @{self.node}": "container_image",
            f"checkpoint {self.model} @{self.node}": "container_checkpoint",
            f"built_checkpoint {self.model} @{self.node}": "container_checkpoint",
        }
        loaded = found.get("loaded") if isinstance(found, Mapping) else None
        coming = {id: (steps[id].after or {}).get("manifest") for id in brought if id in steps}
        return {brought[id]: None if loaded and manifest == loaded else Pending(id) for id, manifest in coming.items()}

    def disrupts(self, before: State, after: State, changes: tuple[str, ...]) -> bool:
        """Only what runs can be interrupted."""
        return bool(before and before.get("running")) and super().disrupts(before, after, changes)

    def outage_seconds(self, found: Observed) -> float | None:
        start = found.get("last_start") if isinstance(found, Mapping) else None
        seconds = start.get("token_seconds") if isinstance(start, Mapping) else None
        return float(seconds) if isinstance(seconds, (int, float)) else None

    def act(self, step: Step) -> UnitAct:
        material: UnitAct = {"wait": self.wait, "again": step.action == "replace"}
        if self.content is not None:
            material["content"] = _bytes(self.content)
        return material

    def text_diff(self, found: State) -> str:
        if self.content is None or self.state == "absent":
            return ""
        if found is not None and found.get("content") == self._digest:
            return ""
        before = str((found or {}).get("text") or "")
        after = _bytes(self.content).decode()
        path = f"/etc/systemd/system/{self.name}"
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), path if before else "/dev/null", path, lineterm=""
        )
        return "".join(f"{line}\n" for line in lines)

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """A unit of this name that a package brought, a port on which something foreign listens, and, as a warning,
        drop-ins that nobody declared."""
        if not isinstance(found, Mapping) or self.state == "absent":
            return ()
        messages = []
        if (vendor := found.get("vendor")) and self.content is not None:
            messages.append(Message.of("unit-of-system", unit=self.name, path=vendor))
        owner = found.get("port_taken")
        if isinstance(owner, Mapping) and not owner.get("service"):
            messages.append(self._port_taken(owner))
        foreign = [
            path for path in found.get("drop_ins") or () if path not in self.drop_ins and self.content is not None
        ]
        drop_ins = [Message.of("unit-drop-in-foreign", node=self.node, path=path, unit=self.name) for path in foreign]
        return (*map(self.violation, messages), *(self.violation(each, "warning") for each in drop_ins))

    def _port_taken(self, owner: Mapping[str, object]) -> Message:
        """What another service of sparkops holds is no violation: its own steps settle that."""
        names = {key: str(owner.get(key) or "") for key in ("pid", "process", "container", "unit")}
        place = f"container {names['container']}" if names["container"] else names["unit"]
        told = f"process {names['pid']} ({names['process']})" if names["process"] else ""
        who = " of ".join(each for each in (told, place) if each)
        adoptable = (names["container"] and not names["unit"]) or place.endswith(".service")
        id = "port-taken" if adoptable else "port-taken-by-process"
        return Message.of(id, port=self.port, who=who, service=self.service or self.name, node=self.node)

    def notices(self, found: Observed) -> tuple[Message, ...]:
        if found is None or isinstance(found, Unknown):
            return ()
        if self.content is None:
            waiting = found.get("waiting")
            about = {"node": self.node, "unit": self.name, "properties": waiting}
            return (Message.of("unit-properties-wait", **about),) if waiting else ()
        times = found.get("restarts")
        about = {"node": self.node, "unit": self.name, "times": times}
        restarted = (Message.of("unit-restarted", **about),) if self.running and times else ()
        return (*restarted, *self._of_group((found.get("group") or {}) if found.get("running") else {}))

    def _of_group(self, group: Mapping[str, object]) -> Iterator[Message]:
        """Why the ranks of the service do not run, and what the last engine left behind; of its launcher alone."""
        about = {"node": self.node, "service": self.service or self.name}
        if group.get("why") and group.get("phase") in ("preparing", "waiting", "ending"):
            yield Message.of("group-not-running", **about, reason=str(group["why"]))
        if group.get("memory"):
            yield Message.of("group-memory-missing", **about, reason=str(group["memory"]))

    def explain(self, found: Observed) -> Message | None:
        if found is None or isinstance(found, Unknown):
            return None
        if found.get("exists") is False:
            return Message.of("unit-missing", unit=self.name)
        if self.running and (found.get("failed") or not found.get("running")):
            state, result = found.get("state"), found.get("result") or "unknown"
            restarts = found.get("restarts", 0)
            return Message.of("unit-not-running", unit=self.name, state=state, result=result, restarts=restarts)
        if self.enabled and not found.get("enabled"):
            return Message.of("unit-not-enabled", unit=self.name)
        return None

    def last_words(self, found: Observed) -> str:
        return str(found.get("said") or "") if isinstance(found, Mapping) else ""


def _bytes(text: Content | str) -> bytes:
    return text.encode()
