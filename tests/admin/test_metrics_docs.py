"""The dashboard, the alert rules and the page about metrics name what is exported, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serveconf.admin.metrics import Moment, families, render
from serveconf.figures import DeploymentFigures, Histogram, ProcessFigures, ProxyFigures, ReplicaFigures, new_histogram
from serveconf.plan.state import Observed
from serveconf.proxy.tally import Reason
from serveconf.reconcile.kept_figures import KeptFigures

DOCS = Path(__file__).parents[2] / "docs"
WORDS_OF_PROMQL = frozenset(
    [
        "sum",
        "by",
        "rate",
        "increase",
        "histogram_quantile",
        "absent",
        "on",
        "or",
        "label_values",
        "ignoring",
        "without",
        "offset",
        "and",
        "unless",
        "min",
        "time",
    ]
)


def exported() -> dict[str, set[str]]:
    """Every sample's name and the labels that it has, of a cluster where everything has happened."""
    kept = KeptFigures()
    figures = DeploymentFigures(waits=new_histogram())
    figures.duration("GET", 200).observe(0.001)
    process = ProcessFigures(began=1.0)
    proxy = ProxyFigures(
        deployments={"s/d": figures}, refused={"no_route": 1}, certificate_ends_at=2e9, process=process
    )
    kept.saw_proxy("n-0", proxy)
    kept.saw_replica("s.d.1", "s/d", ReplicaFigures(calls={"s/e": Histogram([1] + [0] * 17)}, process=process))
    kept.applied("s", "applied", 1.0)
    kept.started("s/d", 1.0)
    moment = Moment(
        observed=Observed(),
        generation=1,
        desired={("s", "d"): 1},
        standbys={"Ready": 1},
        canaries={("s", "d", "v1"): 90, ("s", "d", "v2"): 10},
    )
    text = render(families(kept, moment)).decode()
    found: dict[str, set[str]] = {
        "serveconf_replicas": {"stack", "deployment", "state"},  # none is observed here
        "serveconf_replica_ongoing_requests": {"stack", "deployment"},
    }
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that asks Prometheus: (who, expression)."""
    for group in yaml.safe_load((DOCS / "metrics" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads((DOCS / "metrics" / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.mark.parametrize(("who", "expression"), list(expressions()))
def test_what_is_asked_for_is_exported_with_those_labels(who: str, expression: str) -> None:
    found = exported()
    assert expression.count("(") == expression.count(")")
    for name, selector in re.findall(r"\b((?:http_server|serveconf|process)_\w+)(?:\{([^}]*)\})?", expression):
        assert name in found, (who, name)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            assert label in found[name], (who, name, label)
    asked = set(re.findall(r"\b(?:http_server|serveconf|process)_\w+", expression))
    labels = set.union(*(found[name] for name in asked))
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", group)) <= labels, (who, group)
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\$\w+', " ", expression)
    assert set(re.findall(r"\b[a-z]\w+", bare)) <= WORDS_OF_PROMQL | labels | asked, who


def test_an_alert_says_what_is_wrong_by_labels_that_it_has() -> None:
    for group in yaml.safe_load((DOCS / "metrics" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
            labels = {label for one in grouped for label in re.split(r",\s*", one)}
            assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels, rule["alert"]
            assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_page_names_every_metric_and_its_labels() -> None:
    page = (DOCS / "metrics.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    documented = {
        name: set(re.findall(r"\w+", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    told: dict[str, set[str]] = {}
    for name, labels in exported().items():
        if not name.endswith("_created"):
            told.setdefault(re.sub(r"_(?:bucket|count|sum)$", "", name), set()).update(labels - {"le"})
    assert documented == told


def test_the_page_names_every_reason() -> None:
    page = (DOCS / "metrics.md").read_text()
    reasons = {value for key, value in vars(Reason).items() if key.isupper()}
    listed = page.partition("### Reasons")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == reasons
