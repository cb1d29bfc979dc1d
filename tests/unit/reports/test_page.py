"""The HTML page in a real browser: what it does with hostile texts, at three widths, by keyboard, on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from hypothesis import given

from sparkops.core.plan import Between, Plan
from sparkops.core.report import KeptRun, Past, Report, Seen
from sparkops.reports.formats import rendered
from tests.browser import Browser, program
from tests.unit.reports.made import HOSTILE, applied, declared, report, step, texts

needs_browser = pytest.mark.skipif(program() is None, reason="Chromium is not installed; `make test` installs it")
WIDTHS = (360, 820, 1400)
HACK = '"><img src=x onerror="document.title=1"><script>alert(1)</script><svg onload=alert(2)></style></pre></table>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


def written(folder: Path, shown: Report) -> Path:
    path = folder / "report.html"
    path.write_text(rendered(shown, "html"), encoding="utf-8")
    return path


@given(texts)
def test_no_text_of_a_report_becomes_markup(text: str) -> None:
    plain = re.findall(r"<(\w+)", rendered(report(text="words"), "html"))
    page = rendered(report(text=text), "html")
    assert "<script" not in page
    assert set(re.findall(r"<(\w+)", page)) <= {*plain, "ins", "del"}
    assert "default-src 'none'" in page.split("</head>")[0]


def test_the_same_finding_on_several_nodes_is_told_once() -> None:
    nodes = tuple(f"n{number}" for number in range(9))
    things = declared(*nodes)
    plan = Plan(steps=tuple(step(each.id, each.node) for each in things), declared=tuple(things), nodes=nodes, total=9)
    page = rendered(Report(command="drift", cluster="attic", inventory="i", plan=plan), "html")
    assert page.count('<div class="body" id="f') == 1
    assert page.count('href="#f0"') == 9


def test_what_differs_between_the_nodes_of_a_service_is_told_side_by_side() -> None:
    things = tuple(declared("a", "b", service="q"))
    between = (Between(service="q", fact="NCCL", values={"a": "2.30.4", "b": None}),)
    plan = Plan(steps=(step(things[0].id, "a"),), declared=things, nodes=("a", "b"), total=2, between=between)
    page = rendered(Report(command="drift", cluster="attic", inventory="i", plan=plan), "html")
    assert '<tr><th scope="row">NCCL</th><td>2.30.4</td><td>none</td></tr>' in page
    assert "<td>drifted: content old</td><td>as declared</td>" in page


def test_what_a_repair_takes_is_the_sum_of_what_is_known() -> None:
    (thing,) = declared("a", service="q")
    plan = Plan(steps=(step(thing.id, "a", disruptive=True, service="q"),), declared=(thing,), nodes=("a",), total=1)
    shown = Report(command="drift", cluster="attic", inventory="i", plan=plan)
    assert "how long is not known yet" in rendered(shown, "html")
    assert "about 2 min 5 s" in rendered(replace(shown, past=Past(took={thing.id: 125.0})), "html")


def test_the_history_names_the_first_run_that_saw_it() -> None:
    seen = Seen(run="20260101-drift-1", time=1_763_000_000.0)
    before = KeptRun(run="r", cluster="c", command="drift", time=1_763_000_000.0, seconds=1, exit_status=2, counts={})
    past = Past(
        runs=(before,), since={"drift-differs file /etc/motd @a": seen}, origins={"file /etc/motd @a": "corrective"}
    )
    page = rendered(replace(report(), past=past), "html")
    assert "2025-11-13 02:13 UTC, run 20260101-drift-1" in page
    assert "the node moved" in page
    assert "2 runs from" in page


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", ["words", HOSTILE + HACK, "a" * 10_000])
def test_no_text_runs_a_script_or_breaks_the_layout(
    browser: Browser, tmp_path: Path, text: str, width: int, dark: bool
) -> None:
    browser.open(written(tmp_path, report(text=text)), width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found: Any = browser.evaluate(
        "[document.documentElement.scrollWidth, document.scripts.length, document.images.length]"
    )
    assert found == [width, 0, 0]
    assert browser.dialogs == 0
    assert "attic" in browser.evaluate("document.title") or text[:20] in browser.evaluate("document.title")


@needs_browser
def test_a_cell_leads_to_its_difference_and_opens_it_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(tmp_path, report()))
    browser.evaluate("document.querySelector('td.d a').focus()")
    browser.key("Enter", 13)
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    opened = "document.querySelector(':target').closest('details')"
    assert browser.evaluate(f"{opened}.open && {opened}.innerText.includes('content')")


@needs_browser
def test_only_what_differs_can_be_shown(browser: Browser, tmp_path: Path) -> None:
    same, other = declared("a"), declared("a", name="/other")
    plan = Plan(steps=(step(other[0].id, "a"),), declared=(*same, *other), nodes=("a",), total=2)
    browser.open(written(tmp_path, Report(command="drift", cluster="attic", inventory="i", plan=plan)))
    rows = "[...document.querySelectorAll('.grid tbody tr')].filter(each => each.offsetHeight).length"
    assert browser.evaluate(rows) == 2
    browser.evaluate("document.querySelector('#only').focus()")
    browser.key(" ", 32)
    browser.evaluate("document.querySelector('#only').checked = true")
    assert browser.evaluate(rows) == 1


@needs_browser
def test_on_paper_everything_is_unfolded(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(tmp_path, report()), media="print")
    assert browser.evaluate("[...document.querySelectorAll('.body')].every(each => each.checkVisibility())")


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "shown", [report(), applied(), Report(command="drift", cluster="x", inventory="i", plan=Plan())]
)
def test_axe_finds_no_fault(browser: Browser, tmp_path: Path, shown: Report, dark: bool) -> None:
    browser.open(written(tmp_path, shown), dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    browser.evaluate(Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8") + ";0")
    found = browser.evaluate("axe.run().then(each => each.violations.map(one => [one.id, one.nodes.map(n => n.html)]))")
    assert found == []
