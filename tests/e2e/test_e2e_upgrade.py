"""An upgrade for real: a copy of the package in Ray's environment is exchanged for one of another version, under load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installed import Installed
from load import Load
from place import Place, until

SPEC = """
name: shop
http_options: {{port: {port}}}
deployments:
  - {{name: web, import_path: "web:app", num_replicas: 2}}
  - {{name: one, import_path: "web:app", process: both}}
  - {{name: two, import_path: "web:app", process: both}}
"""


class Upgraded(Place):
    """A place whose commands, and whose Ray, import serveconf from a folder of its own."""

    def __init__(self) -> None:
        super().__init__()
        package = Installed(self.root / "site")
        self.install = package.install
        self.env |= package.env

    def versions(self) -> set[str]:
        """Of everything that runs."""
        status = self.status()
        found = {status["controller"]["serveconf"], *(p["serveconf"] for p in status["proxies"])}
        found |= {s["serveconf"] for s in status["standbys"] if s["kind"] == "proxy"}
        replicas = [r for s in status["stacks"] for d in s["deployments"] for r in d["replicas"]]
        return found | {replica["serveconf"] for replica in replicas}


@pytest.fixture
def place() -> Iterator[Upgraded]:
    """One stack, served by the first version."""
    place = Upgraded()
    try:
        place.install("0.1.0")
        folder = place.root / "shop"
        folder.mkdir()
        (folder / "web.py").write_text(
            "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef web(): return 1\n"
        )
        (folder / "serve.yaml").write_text(SPEC.format(port=place.http_port))
        place.ok("apply", folder / "serve.yaml")
        yield place
    finally:
        place.run("shutdown")
        until(lambda: not place.processes(), "everything has ended")
        place.close()


def test_upgrades_lose_no_request_and_one_that_does_not_come_up_changes_nothing(place: Upgraded) -> None:
    until(
        lambda: len(place.status()["standbys"]) == 2, "a replica's and a proxy's standby of the old version are there"
    )
    with Load(place.http_port, ["/web/", "/one/", "/two/"]) as load:
        place.install("0.2.0", broken="replica")
        done = place.run("upgrade", "-o", "json")
        assert (done.code, done.json["outcome"]) == (3, "rolled_back"), done.err
        assert "broken" in done.json["problems"][0]["message"]
        old = {
            r["serveconf"] for d in place.stack("shop")["deployments"] for r in d["replicas"] if r["state"] == "Ready"
        }
        assert old == {"0.1.0"}
        place.install("0.3.0", broken="proxy")
        done = place.run("upgrade", "-o", "json")
        assert (done.code, done.json["problems"][0]["code"]) == (3, "proxy_failed"), done.err
        place.install("0.4.0")
        assert "serveconf upgrade" in place.ok("routes").err  # the command is newer than the controller
        done = place.ok("upgrade", "-o", "json")
        assert done.json["outcome"] == "applied"
        assert [a["action"] for a in done.json["actions"]] == ["controller", "proxy", "proxy", "roll", "roll", "roll"]
        assert done.json["receipt"]["failed"] == 0
        until(lambda: place.versions() == {"0.4.0"}, "everything runs the new version")
        again = place.ok("upgrade", "-o", "json")
        assert again.json["outcome"] == "unchanged"
    assert load.failures == []
    assert place.ok("plan", place.root / "shop" / "serve.yaml", "-o", "json").json["changed"] is False
    until(place.is_whole, "all is well")
