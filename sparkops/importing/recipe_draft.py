"""A recipe in the making: what the importers put in, and the file that comes of it. It must not know their formats."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import SecretRef
from sparkops.importing.secrecy import concealed, is_secret
from sparkops.models.engine import engine, version_of_image, versions
from sparkops.models.rank_environment import OF_HOST

OFFICIAL = "vllm/vllm-openai"
"""The engine's own image, whose entry point is `vllm serve`."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)(?::?(-|\?)([^}]*))?\}|\$([A-Za-z_]\w*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
KEPT_BY_US: Mapping[str, str] = {
    **dict.fromkeys(
        ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_HUB_ENABLE_HF_TRANSFER"),
        "sparkops fetches the checkpoint itself and mounts it",
    ),
    **dict.fromkeys(
        ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "FLASHINFER_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
        "sparkops keeps compiled kernels itself, a folder for each image and arguments (container.cache)",
    ),
    **dict.fromkeys(OF_HOST, "each rank gets the interfaces and devices that are found on its node"),
    "NCCL_IB_GID_INDEX": "NCCL chooses it for each device where it is not set",
    "VLLM_HOST_IP": "it is each node's own fabric address",
    "MASTER_ADDR": "the head is the first of the service's nodes",
    "MASTER_PORT": "the head is the first of the service's nodes",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user picks where a file holds more: service, variant; and the engine's version where he knows it."""

    service: str | None = None
    variant: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The recipe's text; what was not carried over and why; what was assumed or should be looked at."""

    text: str
    left: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class Draft:
    """`where` is the file, `form` what it was read as. `nodes` is said by formats that say it."""

    where: str
    form: str
    choice: Choice
    summary: str = ""
    image: str | None = None
    repository: str | None = None
    revision: str | None = None
    path: str | None = None
    serve: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, object] = field(default_factory=dict)
    service: dict[str, object] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    adopt: list[str] = field(default_factory=list)
    token: bool = False
    needs: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave(self, what: str, why: str) -> None:
        """Say that something is not in the recipe."""
        text = concealed(f"{what}: {why}")
        if text not in self.left:
            self.left.append(text)

    def need(self, what: str, why: str) -> None:
        """Say that something is not in the recipe, without which it may not run."""
        self.leave(what, why)
        self.needs.append(concealed(f"{what} ({why})"))

    def note(self, text: str) -> None:
        """Say what was assumed, or should be looked at."""
        if concealed(text) not in self.notes:
            self.notes.append(concealed(text))

    def fault(self, id: str, /, **args: object) -> InventoryError:
        shown: dict[str, Any] = {
            name: concealed(each) if isinstance(each, str) else each for name, each in args.items()
        }
        return InventoryError.of(id, where=self.where, **shown)

    def words(self, value: Any) -> list[str]:
        """A list, a text or nothing as the words of a command. Raises InventoryError for a text with an open quote."""
        if not isinstance(value, str):
            return [str(each) for each in value or ()]
        try:
            return shlex.split(value, comments=True)
        except ValueError as error:
            raise self.fault("import-quotes-open", value=shortened([value]), reason=str(error)) from None

    @property
    def named_engine(self) -> str | None:
        """The engine's version, as the user or the image's name says it."""
        if self.choice.engine:
            return self.choice.engine
        return version_of_image(self.image or "") or None

    @property
    def engine(self) -> str:
        """The version by whose words the arguments are read: the named one, else the newest known."""
        return self.named_engine or versions()[-1]

    @property
    def official(self) -> bool:
        """Whether it is the engine's own image."""
        return (self.image or "").partition("@")[0].partition(":")[0].removeprefix("docker.io/") == OFFICIAL

    def take_model(self, model: str) -> None:
        """The model by its repository, or by a path in the container."""
        if model.startswith(("/", "./", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            self.path = model
        else:
            self.repository = model

    def take_environment(self, name: str, value: object) -> None:
        """One variable of the container; a secret becomes a reference."""
        if name in TOKENS:
            self.token = True
            self.note(f"{name} is not given to the engine; HF_TOKEN of your environment serves to fetch a checkpoint")
        elif isinstance(value, (list, Mapping)):
            self.leave(f"variable {name}", "its value is no text")
        elif not _NAME.fullmatch(name):
            self.leave(f"variable {name}", "it is no name of a variable")
        elif name in KEPT_BY_US or name.startswith("RAY_"):
            self.leave(f"variable {name}", KEPT_BY_US.get(name, "ranks find each other without Ray"))
        else:
            self._take_value(
                name, "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            )

    def _take_value(self, name: str, text: str) -> None:
        whole = _REFERENCE.fullmatch(text)
        if whole and whole[2] != "-":
            self.environment[name] = SecretRef("env", whole[1] or whole[4])
            self.note(f"{name} is read from {whole[1] or whole[4]} of your environment when sparkops applies")
        elif whole and (is_secret(name, whole[3]) or is_secret(whole[1])):
            self.environment[name] = SecretRef("env", whole[1])
            self.note(f"{name} has a secret as its default; it is read from {whole[1]} of your environment instead")
        elif whole:
            self.environment[name] = whole[3]
            self.note(f"{name} takes the default of {text}")
        elif _REFERENCE.search(text):
            self.leave(f"variable {name}", f"{text} is put together from other variables")
        elif is_secret(name, text) and text:
            self.environment[name] = SecretRef("env", name)
            self.note(f"{name} stood there in plain text; it is read from {name} of your environment instead")
        else:
            self.environment[name] = text

    def finished(self) -> Imported:
        """The recipe's text and what is to be said of it. Raises InventoryError without a model."""
        if not (self.repository or self.path):
            raise self.fault("import-without-model")
        self._settle_image()
        nodes = self._settle_nodes()
        if self.repository and "served-model-name" not in self.serve:
            self.serve["served-model-name"] = self.repository  # else it would be the path where it is mounted
        summary = self.summary or f"{self.repository or self.path}, read from {self.form}"
        content: dict[str, object] = {"summary": concealed(summary)}
        if self.named_engine:
            content["engine"] = self.engine
        content |= {"nodes": nodes} if nodes > 1 else {}
        content["variables"] = self._variables()
        content |= {"needs": self.needs} if self.needs else {}
        content["unverified"] = ["the whole recipe: it was imported, and not run"]
        content["sources"] = [f"{self.form}: {self.where}"]
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        return Imported(text, tuple(self.left), tuple(self.notes))

    def _settle_image(self) -> None:
        if self.image is None:
            self.image = f"{OFFICIAL}:v{self.engine}"
            self.service.setdefault("command", [])
            self.note(f"no image is named; using {self.image}")
        elif self.named_engine is None:
            self.note(
                f"the image {self.image} does not tell its vLLM; arguments were read as {self.engine}'s, "
                "give the version with --engine"
            )
        elif not engine(self.engine).exact:
            read = engine(self.engine).version
            self.note(f"vLLM {self.engine} is not among the known ones; arguments were read as {read}'s")
        if "@" not in self.image:
            self.note(f"the image {self.image} is named by a tag, which may move; pin its digest")
        if "/" not in self.image:
            self.need(f"image {self.image}", "its name has no registry, so it was built on the node")

    def _settle_nodes(self) -> int:
        sizes = (self.serve.get(f"{each}-parallel-size", 1) for each in ("tensor", "pipeline", "data"))
        tensor, pipeline, data = (each if isinstance(each, int) else 1 for each in sizes)
        nodes = tensor * pipeline
        if data > 1:
            self.note("data-parallel-size is kept; sparkops spreads tensor and pipeline parallelism over nodes only")
        if nodes > 1:
            self.container.setdefault("devices", ["/dev/infiniband"])
            self.container.setdefault("cap_add", ["IPC_LOCK"])
            self.note(f"{nodes} ranks: a node each, since a Spark has one GPU; RDMA's device and capability were added")
        return nodes

    def _variables(self) -> dict[str, object]:
        checkpoint: dict[str, object] = {}
        if self.repository:
            checkpoint = {"repository": self.repository, "revision": self.revision or "main"}
            if not self.revision:
                self.note("the checkpoint has no revision; main moves, so pin a commit")
            checkpoint |= {"token": SecretRef("env", "HF_TOKEN")} if self.token else {}
            checkpoint |= {"adopt": self.adopt} if self.adopt else {}
        service = {**self.service, **({"model": self.path} if self.path else {})}
        for name in ("container", "environment", "serve", "limits"):
            service |= {name: getattr(self, name)} if getattr(self, name) else {}
        if self.path and not self.repository:
            self.note(f"the model is used as it lies at {self.path}; sparkops neither fetches nor verifies it")
        return {"image": {"pull": self.image}, **({"checkpoint": checkpoint} if checkpoint else {}), "service": service}


def shortened(parts: Sequence[str]) -> str:
    text = " ".join(parts)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Dumper(yaml.SafeDumper):
    """Lists indented as people write them; a secret as its reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(SecretRef, lambda dumper, ref: dumper.represent_scalar(f"!{ref.source}", str(ref.argument)))
