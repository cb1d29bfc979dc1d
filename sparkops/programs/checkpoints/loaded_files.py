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
    found: set[str] = set()
    for name in (".", *FOLDERS):
        try:
            with closing(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)) as handle:
                found |= {os.path.normpath(os.path.join(name, each)) for each in _loadable(handle)}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            here = os.path.normpath(os.path.join(path, name))
            user, quoted = f"user {os.getuid()}", shlex.quote(here)
            raise Unknown.of("checkpoint-folder-unreadable", user=user, folder=here, quoted=quoted) from None
    return sorted(found - set(known))[:MOST]


def notice(folder: str, files: list[str]) -> tuple[str, dict[str, object]]:
    """What to say of them."""
    return "checkpoint-foreign-files", {"folder": folder, "files": files}


def _loadable(folder: int) -> list[str]:
    """Files and links of such names in an open folder."""
    return [name for name in os.listdir(folder) if NAMES.fullmatch(name) and not _is_folder(name, folder)]


def _is_folder(name: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        return False
