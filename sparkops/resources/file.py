"""A file on a node: content, owner, group and mode, or its absence.

Content is identified by its SHA-256. Secret content is compared on the node and never shown, diffed or hashed.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkops.core.digests import sha256
from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import FileAct, FileAsk
from sparkops.core.plan import Step
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import State
from sparkops.core.wording import size
from sparkops.resources import validators
from sparkops.resources.resource import Resource

SHOWN = 64 << 10
"""Bytes of declared text up to which a diff is shown."""
ONE_LINE = 120
"""Characters from which on a line of JSON is laid out for the diff."""


@dataclass(frozen=True, kw_only=True)
class File(Resource):
    """A file. `name` is its absolute path.

    Only what is declared is compared; a file that is replaced keeps the rest.

    content: its text. A missing file without `content` is made empty.
    owner, group: names or numbers; of a new file root.
    mode: octal, as text; of a new file 0644, of a secret content 0600.
    validate: an argument list that is run before the new file takes its place; `{path}` stands for the new file.
    shared: whether other clusters may declare the same file on this node, with the same content.
    state: present or absent.
    """

    kind: ClassVar[str] = "file"
    volatile: ClassVar[frozenset[str]] = frozenset({"text", "size"})
    contained: ClassVar[bool] = True
    prune: ClassVar[Literal["remove"]] = "remove"
    at_path: ClassVar[bool] = True
    file_type: ClassVar[str] = "file"
    reads: ClassVar[Mapping[str, str]] = {"text": "text"}

    content: str | Secret | Content | None = None
    owner: str | int | None = None
    group: str | int | None = None
    mode: str | None = None
    validate: tuple[str, ...] = ()
    shared: bool = False
    state: str = "present"

    def __post_init__(self) -> None:
        put = object.__setattr__
        validators.place(self.name, "the name of a file", self.where)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        if isinstance(self.content, (str, Secret)):
            put(self, "content", Content(self.content))
        put(self, "owner", validators.account(self.owner, "owner", self.where))
        put(self, "group", validators.account(self.group, "group", self.where))
        put(self, "mode", validators.mode(self.mode, self.where))
        if (
            self.mode is not None
            and int(self.mode, 8) & 0o007
            and isinstance(self.content, Content)
            and self.content.secret
        ):
            raise InventoryError.of("secret-file-world-readable", where=self.where, name=self.name, mode=self.mode)
        put(self, "validate", validators.words(self.validate, "validate", self.where))

    @classmethod
    def retires(cls, parameters: Collection[str]) -> bool:
        return True

    @property
    def replaceable(self) -> bool:
        """Replacing is writing it again."""
        return self.content is not None and self.state == "present"

    @property
    def common(self) -> bool:
        return self.shared

    def claim(self) -> dict[str, object]:
        kept = super().claim()
        if not isinstance(self.content, Content) or self.state == "absent":
            return kept
        if self.content.secret:
            return {**kept, "secret": self.content.encode()}
        return {**kept, "content": [sha256(self.content.encode())]}

    def ask(self) -> FileAsk:
        asked: FileAsk = {"path": self.name}
        if isinstance(self.owner, str):
            asked["owner"] = self.owner
        if isinstance(self.group, str):
            asked["group"] = self.group
        if isinstance(self.content, Content) and self.state == "present":
            data = self.content.encode()
            if self.content.secret:
                asked["secret"] = data
            else:
                asked["sha256"], asked["size"] = hashlib.sha256(data).hexdigest(), len(data)
        return asked

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wanted: dict[str, object] = {"type": "file"}
        if isinstance(self.content, Content):
            secret = self.content.secret
            wanted["content"] = "declared" if secret else sha256(self.content.encode())
            if secret:
                wanted["mode"] = "0600"
        for key in ("owner", "group", "mode"):
            if (value := getattr(self, key)) is not None:
                wanted[key] = value
        return wanted

    def act(self, step: Step) -> FileAct:
        given: FileAct = {"validate": list(self.validate), "again": step.action == "replace"}
        if isinstance(self.content, Content) and not self.content.secret:
            given["content"] = self.content.encode()
        return given

    def text_diff(self, found: State) -> str:
        """What would change in the text; a sentence in brackets where that cannot be shown."""
        if self.state == "absent" or not isinstance(self.content, Content):
            return ""
        if found is not None and found.get("content") == (self.desired() or {}).get("content"):
            return ""
        if isinstance(self.content.text, Secret):
            return "(content changed (secret))"
        if found is not None and found.get("type") == "file" and "size" not in found:
            return "(the present content is not shown: not everyone may read it, so it may be a secret)"
        if found is not None and found.get("type", "file") != "file":
            return f"(a {found.get('type')} stands there)"
        if found is not None and "text" not in found:
            there = found.get("size")
            return f"(the present content is binary or large: {size(there) if isinstance(there, int) else '?'})"
        if len(self.content.text) > SHOWN:
            return f"(the declared content is large: {len(self.content.encode())} bytes)"
        before, after = found["text"] if found else None, self.content.text
        if (laid := _laid_out(after)) != after:
            return _unified(f"{self.name} (laid out)", None if before is None else _laid_out(before), laid)
        return _unified(self.name, before, after)


def _unified(name: str, old: str | None, new: str) -> str:
    before = "/dev/null" if old is None else name
    lines = difflib.unified_diff(_lines(old or ""), _lines(new), before, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _laid_out(text: str) -> str:
    """JSON that stands in one long line, as a person can compare it; every other text as it is."""
    if "\n" in text.rstrip("\n") or len(text) < ONE_LINE or not text.startswith("{"):
        return text
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    return text


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
