"""The worker's own sources, kept in memory so that a job's process can be started from them again.

`SOURCES` is filled by the loader that the controller sends (see `program`); on a plain import, as in tests, it is read
from the files.
"""

import binascii
import os
import zlib

SOURCES: dict[str, str] = {}

_LOADER = """
import binascii, gc, sys, zlib
gc.set_threshold(50000)
W = zlib.decompress(binascii.a2b_base64(P)).decode().split(chr(0))
S = dict(zip(W[::2], W[1::2]))
class Sources:
    def find_spec(self, name, path=None, target=None):
        if name in S:
            return type(sys.__spec__)(name, self, is_package=any(each.startswith(name + ".") for each in S))
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(S[module.__name__], module.__name__.replace(".", "/") + ".py", "exec", 0x1000000), module.__dict__)
sys.meta_path.insert(0, Sources())
import sparkops.worker.bundle
sparkops.worker.bundle.SOURCES.update(S)
"""
# Neither json nor importlib here: what runs on every node at every look counts each millisecond.


def program(module: str, function: str) -> bytes:
    """A self-contained Python program: the loader, all sources, and a call of `module.function`."""
    return build(SOURCES or _from_files(), module, function)


def build(sources: dict[str, str], module: str, function: str) -> bytes:
    """The program for these sources; `sources` maps module names to texts, packages included."""
    words = "\0".join(word for pair in sources.items() for word in pair)
    packed = binascii.b2a_base64(zlib.compress(words.encode(), 6), newline=False)
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
