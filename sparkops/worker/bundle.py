"""The worker's own sources, kept in memory so that a job's process can be started from them again.

`SOURCES` is filled by the loader that the controller sends (see `program`); on a plain import, as in tests, it is read
from the files.
"""

import base64
import json
import sys
import zlib

SOURCES: dict[str, str] = {}

_LOADER = """
import base64, importlib.abc, importlib.util, json, sys, zlib
S = json.loads(zlib.decompress(base64.b64decode(P)))
class Sources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in S:
            return importlib.util.spec_from_loader(name, self, is_package=name + "." in "\\n".join(S) + "\\n")
    def exec_module(self, module):
        exec(compile(S[module.__name__], module.__name__.replace(".", "/") + ".py", "exec"), module.__dict__)
sys.meta_path.insert(0, Sources())
import sparkops.worker.bundle
sparkops.worker.bundle.SOURCES.update(S)
"""


def program(module: str, function: str) -> bytes:
    """A self-contained Python program: the loader, all sources, and a call of `module.function`."""
    return build(SOURCES or _from_files(), module, function)


def build(sources: dict[str, str], module: str, function: str) -> bytes:
    """The program for these sources; `sources` maps module names to texts, packages included."""
    packed = base64.b64encode(zlib.compress(json.dumps(sources).encode(), 6))
    return f"P = {packed!r}\n{_LOADER}\nimport {module}\nsys.modules[{module!r}].{function}()\n".encode()


def _from_files() -> dict[str, str]:
    sources = {}
    for name, module in list(sys.modules.items()):
        if name == "sparkops" or name.startswith(("sparkops.worker", "sparkops.core")):
            path = getattr(module, "__file__", None)
            if path:
                with open(path, encoding="utf-8") as file:
                    sources[name] = file.read()
    return sources
