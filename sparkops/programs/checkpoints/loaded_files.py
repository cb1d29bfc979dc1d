"""Files that an engine takes up from a model's folder because of their names, whatever the manifest says.

Sources: transformers' dynamic_module_utils.py (code of `trust_remote_code` beside config.json), generation/utils.py
(`custom_generate/`), utils/hub.py (`additional_chat_templates/`) and PEFT's adapter_config.json; vLLM's
model_loader/default_loader.py (every *.safetensors, *.bin and *.pt of the folder) and transformers_utils/config.py
(params.json chooses Mistral's format).
"""

import os
import re
import shlex
import stat
from collections.abc import Collection

from sparkops.core.descriptors import closing
from sparkops.core.messages import Unknown

NAMES = re.compile(
    r".+\.(?:py|json|jinja|safetensors|bin|pt|pth|gguf|model|tiktoken)|(?:merges|vocab|added_tokens)\.txt",
    re.IGNORECASE,
)
FOLDERS = ("custom_generate", "additional_chat_templates")
"""Folders that are looked into."""
MOST = 100
"""Paths that are named at most."""


def foreign(folder: int, path: str, known: Collection[str]) -> list[str]:
    """The paths of such files in an open folder that are not `known`, sorted; `path` is what people call the folder.

    Raises Unknown `checkpoint-folder-unreadable` where this process may not list it.
    """
    found = _loadable(folder, "")
    if found is None:
        raise Unknown.of(
            "checkpoint-folder-unreadable", user=f"user {os.getuid()}", folder=path, quoted=shlex.quote(path)
        )
    for name in FOLDERS:
        found += _inside(folder, name)
    return sorted(set(found) - set(known))[:MOST]


def notice(folder: str, files: list[str]) -> tuple[str, dict[str, object]]:
    """What to say of them."""
    return "checkpoint-foreign-files", {"folder": folder, "files": files}


def _inside(folder: int, name: str) -> list[str]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return []
    with closing(handle):
        return _loadable(handle, name) or []


def _loadable(folder: int, above: str) -> list[str] | None:
    """Files and links of such names in an open folder; None where it may not be listed."""
    try:
        names = [name for name in os.listdir(folder) if NAMES.fullmatch(name)]
    except PermissionError:
        return None
    return [os.path.join(above, name) for name in names if not _is_folder(name, folder)]


def _is_folder(name: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        return False
