"""The report as one HTML page that needs nothing else: no network, no script; its policy allows neither.

The template shows the values of `page.py`; jinja2 escapes every one of them, the style sheet of ours alone excepted.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2

from sparkops.core.report import Report
from sparkops.reports.run.page import page

HERE = Path(__file__).parent


def render(report: Report) -> str:
    """The page. Its style is named by digest in its policy, so that no other style holds either."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        page=page(report), style=style, style_digest=f"sha256-{digest}"
    )
