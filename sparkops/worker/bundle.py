"""The worker's own sources, kept in memory so that a job's process can be started from them again.

`SOURCES` is filled by the loader that the controller sends (see `program`); on a plain import, as in tests, it is read
from the files.
"""

import base64
import json
import os
import zlib

SOURCES: dict[str, str] = {}

_LOADER = """
import base64, json, sys, zlib
from importlib.machinery import ModuleSpec
S = json.loads(zlib.decompress(base64.b64decode(P)))
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
    packed = base64.b64encode(zlib.compress(json.dumps(sources).encode(), 6))
    return f"P = {packed!r}\n{_LOADER}\nimport {module}\nsys.modules[{module!r}].{function}()\n".encode()


def _from_files() -> dict[str, str]:
    """All modules that a worker may need, as they lie in the package: what is imported late has to be there, too."""
    top = __file__.rpartition("/worker/")[0]
    sources = {}
    for room in ("", "/core", "/safetensors", "/programs", "/worker"):
        for folder, _, names in os.walk(top + room) if room else [(top, [], ["__init__.py"])]:
            for name in sorted(each for each in names if each.endswith(".py")):
                module = "sparkops" + folder[len(top) :].replace("/", ".") + "." + name.removesuffix(".py")
                with open(f"{folder}/{name}", encoding="utf-8") as file:
                    sources[module.removesuffix(".__init__")] = file.read()
    return sources
