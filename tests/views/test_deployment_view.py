"""One deployment in full."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.cli.deployment_view import look_at_deployment, render_deployment, restarts
from serveconf.errors import NotFound


def event(kind: str, message: str, deployment: str | None = "web", count: int = 1) -> dict[str, Any]:
    return {
        "time": "2020-01-31T08:00:00+00:00", "kind": kind, "stack": "shop", "deployment": deployment, "message": message,
        "data": {}, "count": count,
    }  # fmt: skip


EVENTS = [
    event("apply", "revision 3", None),
    event("heal", "replica a has ended: killed", count=2),
    event("replace", "replica b has taken the place of a lost one", count=2),
    event("heal", "replica b has ended: out of memory"),
    event("replace", "replica c has taken the place of a lost one"),
    event("heal", "replica z has ended", "other"),
]


class Client:
    """A control API with one stack."""

    def status(self) -> Any:
        replica = {
            "id": "shop.web.1",
            "state": "Ready",
            "pid": 7,
            "node_id": "a1b2c3d4e5",
            "version": "v1",
            "ongoing": 0,
        }
        web = {
            "name": "web", "state": "Healthy", "route_prefix": "/web", "version": "v1", "message": "", "replicas": [replica],
        }  # fmt: skip
        return {"stacks": [{"name": "shop", "revision": 3, "deployments": [web]}]}

    def revision(self, stack: str, number: int) -> Any:
        return {"spec": {"deployments": [{"name": "web", "import_path": "web:app", "num_replicas": 1}]}}

    def recent_events(self, *, stack: str, since: str) -> Any:
        return EVENTS


def test_a_deployment_is_shown_with_its_spec_replicas_restarts_and_events() -> None:
    found = look_at_deployment(Client(), "shop", "web")  # type: ignore[arg-type]
    lines = render_deployment(found).splitlines()
    assert lines[:12] == [
        "Deployment web of stack shop: Healthy",
        "  revision      3",
        "  route         /web",
        "  serves        web:app",
        "  version       v1",
        "  num_replicas  1",
        "  restarts      3 in the last hour; last: replica b has ended: out of memory",
        "",
        "  REPLICA     STATE  AGE  PID  NODE      ONGOING  VERSION",
        "  shop.web.1  Ready       7    a1b2c3d4  0        v1",
        "",
        "  In the last hour",
    ]
    assert len(lines) == 12 + 5  # what others did is not shown


def test_what_the_app_was_seen_to_write_is_named_by_path() -> None:
    class Writes(Client):
        def status(self) -> Any:
            found = super().status()
            found["stacks"][0]["data"] = ["uploads/\x1b[2J.png", *(f"{n:02}.csv" for n in range(24))]
            return found

    found = look_at_deployment(Writes(), "shop", "web")  # type: ignore[arg-type]
    assert len(found["data"]) == 25
    lines = render_deployment(found).splitlines()
    first = lines.index("  Data of stack shop, written below app_dir: no code, in no package")
    assert "\x1b" not in lines[first + 1] and lines[first + 2] == "  00.csv"
    assert lines[first + 21 : first + 23] == ["  … and 5 more: -o json lists them all", ""]


@pytest.mark.parametrize(
    ("events", "count", "reason"),
    [
        (EVENTS, 3, "replica b has ended: out of memory"),
        ([event("heal", "replica a fails its health checks")], 0, "replica a fails its health checks"),
        ([event("scale", "2 → 3"), event("apply", "revision 3", None)], 0, None),
    ],
)
def test_restarts_are_counted_with_why_the_last_one_was_lost(events: list[Any], count: int, reason: str | None) -> None:
    assert restarts(events, "web") == {"count": count, "last_reason": reason}


def test_one_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(NotFound) as missing:
        look_at_deployment(Client(), "shop", "wbe")  # type: ignore[arg-type]
    assert missing.value.hint == "its deployments: web"


def test_a_number_that_follows_the_load_is_shown_with_its_reason() -> None:
    found = look_at_deployment(Client(), "shop", "web")  # type: ignore[arg-type]
    scaling = {"desired": 3, "min": 0, "max": 8, "ongoing": 9, "queued": 4, "reason": "requests wait: 4 of 9"}
    lines = render_deployment({**found, "autoscaling": scaling}).splitlines()
    assert "  scaling       3 of 0 to 8 replicas: requests wait: 4 of 9" in lines


def test_what_the_spec_says_is_said_as_its_yaml() -> None:
    found = {**look_at_deployment(Client(), "shop", "web")}  # type: ignore[arg-type]
    found["spec"] = {"rollout": {"canary": {"steps": [5, 50.0], "sticky": None}}, "factory": True, "match": "on: it"}
    lines = [line.split(maxsplit=1) for line in render_deployment(found).splitlines()]
    assert ["rollout", "{canary: {steps: [5, 50.0], sticky: null}}"] in lines
    assert ["factory", "true"] in lines and ["match", "on: it"] in lines
