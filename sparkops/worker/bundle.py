"""The worker's own sources, kept in memory so that a job's process can be started from them again.

`SOURCES` is filled by the loader that the controller sends (see `program`); on a plain import, as in tests, it is read
from the files.
"""

import binascii
import json
import sys
import zlib

SOURCES: dict[str, str] = {}

_LOADER = """
import binascii, json, sys, zlib
from importlib.machinery import ModuleSpec
S = json.loads(zlib.decompress(binascii.a2b_base64(P)))
class Sources:
    def find_spec(self, name, path=None, target=None):
        if name in S:
            return ModuleSpec(name, self, is_package=any(each.startswith(name + ".") for each in S))
    def create_module(self, spec):
        return None
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
    packed = binascii.b2a_base64(zlib.compress(json.dumps(sources).encode(), 6), newline=False)
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
