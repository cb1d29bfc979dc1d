"""Sources as one self-contained Python program: what a node runs was never installed there.

`SOURCES` holds what this process was itself started from (the loader fills it), so that jobs and programs can be
started from it again; in a process that was started from installed files, they are read from there.
"""

import binascii
import json
import os
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
import sparkops.programs.bundle
sparkops.programs.bundle.SOURCES.update(S)
"""


def program(module: str, function: str, *args: str) -> bytes:
    """A self-contained Python program: the loader, the sources, and a call of `module.function`.

    A program of `sparkops.programs` gets no source of the worker.
    """
    sources = SOURCES or _from_files()
    if module.startswith("sparkops.programs."):
        sources = {name: text for name, text in sources.items() if not name.startswith("sparkops.worker")}
    return build(sources, module, function, *args)


def build(sources: dict[str, str], module: str, function: str, *args: str) -> bytes:
    """The program for these sources; `sources` maps module names to texts, packages included."""
    packed = binascii.b2a_base64(zlib.compress(json.dumps(sources).encode(), 6), newline=False)
    call = f"sys.modules[{module!r}].{function}({', '.join(map(repr, args))})"
    return f"P = {packed!r}\n{_LOADER}\nimport {module}\n{call}\n".encode()


def _from_files() -> dict[str, str]:
    """All modules that a worker may need, as they lie in the package: what is imported late has to be there, too."""
    top = __file__.rpartition("/programs/")[0]
    sources = {}
    for room in ("", "/core", "/safetensors", "/programs", "/worker"):
        for folder, _, names in os.walk(top + room) if room else [(top, [], ["__init__.py"])]:
            for name in sorted(each for each in names if each.endswith(".py")):
                module = "sparkops" + folder[len(top) :].replace("/", ".") + "." + name.removesuffix(".py")
                with open(f"{folder}/{name}", encoding="utf-8") as file:
                    sources[module.removesuffix(".__init__")] = file.read()
    return sources
