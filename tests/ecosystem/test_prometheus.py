"""The dashboard and the alerts, asked of a real Prometheus that scrapes the lab's engine and sparkops' own metrics."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from sparkops.cli.app import cli
from sparkops.models.engine import engine, versions
from sparkops.reports.formats import rendered
from tests.ecosystem.engines import free_port, lab_engine, program
from tests.unit.reports.made import report

ROOT = Path(__file__).parents[2] / "integrations"
DASHBOARD = json.loads((ROOT / "grafana" / "sparkops.json").read_text())
RULES = ROOT / "prometheus" / "sparkops-alerts.yml"
CONFIG = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
ALERTS = {
    rule["alert"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool") or ""
NEEDS = pytest.mark.skipif(not PROMTOOL, reason="Prometheus is not installed")


def filled(query: str) -> str:
    """A dashboard's query as Grafana sends it with everything selected."""
    return query.replace("$__rate_interval", "10s").replace("$cluster", ".*").replace("$service", ".*")


def asked() -> set[str]:
    """The engine's metrics that the dashboard and the alerts name."""
    queries = [*ALERTS.values(), *(query for _, query in QUERIES)]
    return {name for query in queries for name in re.findall(r"vllm:\w+", query)}


def test_every_engine_version_has_the_metrics_that_are_asked_for() -> None:
    assert len(asked()) > 12
    for version in versions():
        known = engine(version).metrics
        for name in asked():
            plain = re.sub(r"_(bucket|sum|count)$", "", name)
            assert {plain, plain.removesuffix("_total")} & {*known}, f"vLLM {version} has no {name}"


def test_the_panels_of_the_dashboard_do_not_overlap_and_each_names_its_source() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & cells and at["x"] + at["w"] <= 24, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS for target in panel["targets"])


@NEEDS
def test_promtool_takes_the_rules_and_each_alert_fires_for_what_it_is_about(tmp_path: Path) -> None:
    checked = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    cases = (Path(__file__).with_name("alerts.yml")).read_text()
    (tmp_path / "alerts.yml").write_text(cases.replace("RULES", str(RULES)))
    assert {each["alertname"] for each in yaml.safe_load(cases)["tests"][0]["alert_rule_test"]} == {*ALERTS}
    tested = subprocess.run(
        [PROMTOOL, "test", "rules", tmp_path / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@contextmanager
def textfile(text: str) -> Iterator[int]:
    """Metrics over HTTP, as node_exporter's textfile collector shows a file's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()


class Prometheus:
    """A running one."""

    def __init__(self, base: str, engine: str) -> None:
        self.base, self.engine = base, engine

    def ask(self, query: str) -> list[float]:
        """The values of an instant query, without those that are no number."""
        address = f"{self.base}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        values = [float(each["value"][1]) for each in told["data"]["result"]]
        return [value for value in values if value == value]

    def work(self) -> None:
        """A completion."""
        body = json.dumps({"model": "m", "prompt": "The capital of France", "max_tokens": 20}).encode()
        urllib.request.urlopen(f"{self.engine}/v1/completions", body, timeout=20).close()

    def eventually(self, query: str, seconds: float = 60) -> list[float]:
        """The values of a query as soon as there are some, while the engine works."""
        deadline = time.monotonic() + seconds
        while not (values := self.ask(query)):
            assert time.monotonic() < deadline, f"nothing for {query}"
            self.work()
            time.sleep(0.2)
        return values


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    port, own = free_port(), free_port()
    (folder / "inventory.yml").write_text(
        "version: 1\ncluster: rack\nnodes: {a: {connection: local}}\nservices:\n"
        f"  qwen: {{nodes: [a], port: {port}, image: {{pull: 'vllm/vllm-openai:v0.33.0'}}, command: [], model: m}}\n"
    )
    words = [
        "endpoints",
        "-i",
        str(folder / "inventory.yml"),
        "--format",
        "file_sd",
        "-o",
        str(folder / "targets.json"),
    ]
    assert CliRunner().invoke(cli, words).exit_code == 0
    with textfile(rendered(report(), "prometheus")) as metrics, lab_engine(folder, "m", port):
        engines, node = CONFIG["scrape_configs"]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {**engines, "file_sd_configs": [{"files": [str(folder / "targets.json")]}]},
                {**node, "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]},
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        base = f"http://127.0.0.1:{own}"
        with program([*words, f"--web.listen-address=127.0.0.1:{own}"], f"{base}/-/ready", folder / "log"):
            yield Prometheus(base, f"http://127.0.0.1:{port}")


@NEEDS
@pytest.mark.parametrize(
    ("title", "query"), QUERIES, ids=[f"{title}-{number}" for number, (title, _) in enumerate(QUERIES)]
)
def test_a_panel_shows_something_of_a_working_engine_and_of_a_drift(
    prometheus: Prometheus, title: str, query: str
) -> None:
    assert prometheus.eventually(filled(query))


@NEEDS
@pytest.mark.parametrize("name", ALERTS)
def test_all_that_an_alert_compares_is_there(prometheus: Prometheus, name: str) -> None:
    series = re.findall(r"(?:vllm:|sparkops_|\bup\b)\w*(?:\{[^}]*\})?", ALERTS[name])
    assert series
    for each in series:
        assert prometheus.eventually(each)
    prometheus.ask(ALERTS[name])


@NEEDS
def test_no_rule_fails_on_what_is_there(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{prometheus.base}/api/v1/rules", timeout=20) as answer:
            return [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]

    prometheus.eventually("sparkops_findings")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(each["health"] == "ok" for each in rules()):
        time.sleep(0.2)
    assert [(each["name"], each.get("lastError")) for each in rules() if each["health"] != "ok"] == []


@NEEDS
def test_a_drift_that_found_something_alerts_and_a_working_engine_does_not(prometheus: Prometheus) -> None:
    assert prometheus.eventually('ALERTS{alertname="SparkopsFinding",alertstate="firing"}')
    assert prometheus.eventually('ALERTS{alertname="SparkopsNodeUnreachable",node="c",alertstate="firing"}')
    assert prometheus.ask('ALERTS{alertname=~"SparkopsEngine.*|SparkopsQueue|SparkopsCacheFull"}') == []
