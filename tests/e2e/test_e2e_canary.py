"""A canary under load: its shares, what becomes of a bad version, and that no request is lost on any way that it may take."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import CONNECTIONS, Load
from place import Place, end, until

APP = """
import itertools
from fastapi import FastAPI, Response
app = FastAPI()
asked = itertools.count()

@app.get("/")
def home(response: Response):
    if {one_fails_of} and next(asked) % {one_fails_of} == 0:
        response.status_code = 500
    return {{"version": {version}}}
"""
SPEC = """
name: tried
http_options: {{port: {port}}}
deployments:
  - name: shop
    import_path: shop:app
    route_prefix: /
    num_replicas: 2
    rollout:
      canary: {{steps: [20, 50], step_s: 4, min_requests: 20}}
"""


@pytest.fixture
def spec(place: Place, tmp_path: Path) -> Iterator[Path]:
    """The stack, applied with its first version; taken away at the end."""
    file = tmp_path / "serve.yaml"
    file.write_text(SPEC.format(port=place.http_port))
    edit(file, version=1)
    place.ok("apply", file)
    yield file
    place.ok("delete", "--stack", "tried")


def edit(spec: Path, *, version: int, one_fails_of: int = 0) -> None:
    (spec.parent / "shop.py").write_text(APP.format(version=version, one_fails_of=one_fails_of))


class Seen:
    """Which versions answered when; 5xx are told apart by whom."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, int, int]] = []  # time, version, status
        self._lock = threading.Lock()

    def note(self, status: int, body: bytes) -> bool:
        """For ``Load``: whether the proxy or an app answered, whatever it was."""
        try:
            version = json.loads(body)["version"]
        except ValueError:
            return False
        with self._lock:
            self.answers.append((time.monotonic(), version, status))
        return True

    def has_share(self, version: int, percent: int, since: float, until: float) -> bool:
        """Whether it has given so much of the answers in that time, less those that were under way when it began or ended."""
        those = [v for at, v, _ in self.answers if since <= at < until]
        return abs(those.count(version) - len(those) * percent / 100) <= len(those) * 0.03 + 2 * CONNECTIONS


def canary(place: Place) -> dict[str, object] | None:
    found: dict[str, object] | None = place.stack("tried")["deployments"][0]["canary"]
    return found


def is_at(place: Place, step: int) -> bool:
    found = canary(place)
    return found is not None and found["step"] == step and found["until"] is not None


def reach(place: Place, step: int) -> None:
    """Return when the step has begun."""
    until(lambda: is_at(place, step), f"step {step}")


def watched(place: Place, step: int) -> tuple[float, float]:
    """Return when the step has ended: from when until when it was seen to last."""
    reach(place, step)
    since = last = time.monotonic()
    while True:
        asked = time.monotonic()
        if not is_at(place, step):
            return since, last
        last = asked
        time.sleep(0.1)


def test_a_good_version_goes_through_its_steps_and_no_request_fails(place: Place, spec: Path) -> None:
    seen = Seen()
    edit(spec, version=2)
    with Load(place.http_port, ["/"], seen.note) as load:
        apply = place.start("apply", spec, "-o", "json")
        steps = [(percent, *watched(place, step)) for step, percent in ((1, 20), (2, 50))]
        done = end(apply)
    assert load.failures == []
    assert all(status == 200 for _, _, status in seen.answers)
    assert (done.code, done.json["outcome"], done.json["receipt"]["failed"]) == (0, "applied", 0)
    (told,) = done.json["receipt"]["canary"]
    assert told["new"]["requests"] >= 40
    for percent, since, last in steps:
        assert seen.has_share(2, percent, since, last)
    assert seen.answers[-1][1] == 2
    assert canary(place) is None


def test_a_version_with_errors_is_back_at_nothing_within_seconds(place: Place, spec: Path) -> None:
    seen = Seen()
    edit(spec, version=3, one_fails_of=5)
    with Load(place.http_port, ["/"], seen.note) as load:
        done = end(place.start("apply", spec, "-o", "json"))
        after = time.monotonic()
    assert load.failures == []
    assert (done.code, done.json["outcome"]) == (3, "rolled_back")
    (problem,) = done.json["problems"]
    assert (problem["code"], problem["deployment"]) == ("canary", "shop")
    (told,) = done.json["receipt"]["canary"]
    assert told["new"]["requests"] < told["old"]["requests"] / 2  # of five it got one: it never left its first step
    assert sum(version == 3 and at > after for at, version, _ in seen.answers) <= CONNECTIONS  # what was under way
    assert {version for _, version, status in seen.answers if status >= 500} == {3}
    kinds = [event["kind"] for event in place.ok("events", "-o", "json").json]
    assert "canary" in kinds


def test_promote_and_abort_end_it_at_once_and_lose_no_request(place: Place, spec: Path) -> None:
    spec.write_text(spec.read_text().replace("step_s: 4", "step_s: 600"))  # by itself it never ends
    with Load(place.http_port, ["/"]) as load:
        edit(spec, version=4)
        apply = place.start("apply", spec, "-o", "json")
        reach(place, 1)
        assert place.run("abort", "shop", "--stack", "tried").code == 0
        assert end(apply).code == 3

        edit(spec, version=5)
        apply = place.start("apply", spec, "-o", "json")
        reach(place, 1)
        assert place.run("promote", "shop", "--stack", "tried").code == 0
        assert end(apply).code == 0
        assert place.run("promote", "shop", "--stack", "tried").code == 6
    assert load.failures == []


def test_the_controller_that_comes_back_goes_on_with_the_step(place: Place, spec: Path) -> None:
    seen = Seen()
    edit(spec, version=6)
    with Load(place.http_port, ["/"], seen.note) as load:
        apply = place.start("apply", spec, "-o", "json")
        reach(place, 1)
        os.kill(place.status()["controller"]["pid"], signal.SIGKILL)
        done = end(apply)
    assert load.failures == []
    assert (done.code, done.json["outcome"]) == (0, "applied"), done
    assert seen.answers[-1][1] == 6
