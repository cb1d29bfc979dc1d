"""sparkops: declarative, agentless provisioning of DGX Spark nodes and the LLM services on them.

As a library it begins with `load`; see docs/library.md. Each name is imported when it is first used.
"""

__version__ = "0.1.0"

_NAMES = {
    "Cluster": "sparkops.library",
    "load": "sparkops.library",
    "Report": "sparkops.core.report",
    "SparkopsError": "sparkops.core.errors",
    "findings": "sparkops.reports.run.findings",
    "rendered": "sparkops.reports.formats",
}
"""Name → module; their types are in `__init__.pyi`."""
__all__ = ["Cluster", "Report", "SparkopsError", "__version__", "findings", "load", "rendered"]


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module 'sparkops' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_NAMES[name]), name)
