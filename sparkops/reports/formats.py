"""The formats of a report by their names: each a pure function from the Report to text.

A format's module is imported when it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparkops.core.report import Report

RENDERERS = {
    "markdown": "markdown",
    "junit": "junit",
    "sarif": "sarif",
    "github": "annotations",
    "prometheus": "prometheus",
    "html": "html",
}
"""The modules of `reports/run/` by the names of formats; text and JSON are beside it."""
FORMATS = ("text", "json", *RENDERERS)


def rendered(report: Report, form: str) -> str:
    """The report in one of FORMATS, ending with a line break where it is not empty."""
    if form == "text":
        from sparkops.reports import text

        return "\n".join(text.lines(report)) + "\n"
    if form == "json":
        from sparkops.reports.json import as_json

        return json.dumps(as_json(report), indent=1) + "\n"
    render: Callable[[Report], str] = import_module(f"sparkops.reports.run.{RENDERERS[form]}").render
    return render(report)
