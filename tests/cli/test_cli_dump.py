"""``dump`` and ``plan --drift``: the live stack as a file that means the same, and what others have done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serveconf import launch
from serveconf.cli.drift import others_since
from serveconf.cli.dump import spec_yaml
from serveconf.cli.parser import app
from serveconf.reconcile.result import masked
from serveconf.spec.load import load_file
from serveconf.spec.models import as_wire

ENV = {"TOKEN": "a $ecret", "PORT": "9000"}
SPECS = {
    "plain": "name: shop\ndeployments: [{name: web, import_path: 'web:app', num_replicas: 2}]\n",
    "texts that YAML readers disagree about": (
        "name: 'on'\ndeployments:\n  - name: 'NO'\n    import_path: m:app\n    init_args: ['017', '1:30', 1.5, '1.5', null, 'null']\n"
        "    init_kwargs: {text: \"two\\nlines: # no comment\", empty: '', list: [], dollar: 'a$$b', e: 'ü \\\\'}\n"
    ),
    "variables": (
        "http_options: {port: '${PORT}'}\ndeployments:\n  - name: web\n    import_path: m:app\n"
        "    init_kwargs: {token: 'x${TOKEN}y$$', other: '${TOKEN:-none}'}\n"
    ),
    "what only looks like a variable": (
        "deployments:\n  - name: web\n    import_path: m:app\n"
        "    init_kwargs: {home: '$${HOME}', both: '$${A} ${TOKEN} $$', price: 'a$$b $$', deep: [{x: '$$${PORT}'}]}\n"
    ),
    "many keys": (
        "name: shop\nhttp_options:\n  middlewares: [{import_path: 'm:M', kwargs: {a: [1, {b: true}]}}]\n"
        "deployments:\n  - name: web\n    import_path: m:app\n    match: {hosts: ['*.a.example'], headers: {x-a: null}}\n"
        "    rollout: {max_surge: '25%', max_unavailable: 1}\n    ray_actor_options: {resources: {tpu: 0.5}}\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS)
def test_a_dumped_spec_is_read_as_what_was_applied(text: str, tmp_path: Path) -> None:
    file, again = tmp_path / "serve.yaml", tmp_path / "again.yaml"
    file.write_text(text, encoding="utf-8")
    loaded = load_file(file, env=ENV)
    wire = as_wire(loaded.spec)
    again.write_text(spec_yaml(masked(wire, dict(loaded.masks))), encoding="utf-8")
    assert "ecret" not in again.read_text()
    assert as_wire(load_file(again, env=ENV).spec) == wire


def revision(number: int, source: str, outcome: str = "applied") -> dict[str, Any]:
    return {
        "revision": number, "source": source, "outcome": outcome, "author": "a@b", "time": "now", "summary": "1 changed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("history", "current", "numbers"),
    [
        ([revision(2, "/a/serve.yaml"), revision(1, "/b.yaml")], 2, []),
        ([revision(3, ""), revision(2, "/b.yaml"), revision(1, "/a/serve.yaml")], 3, [3, 2]),
        ([revision(3, "/b.yaml", "rolled_back"), revision(2, "/a/serve.yaml")], 2, []),
        ([revision(2, "/b.yaml")], 2, [2]),
        ([revision(4, "/b.yaml", "applying"), revision(3, "script.py"), revision(2, "/a/../a/serve.yaml")], 3, [3]),
    ],
)
def test_what_others_have_applied_since_is_drift(
    history: list[dict[str, Any]], current: int, numbers: list[int]
) -> None:
    notes = others_since(history, "/a/serve.yaml", current)
    assert [int(note.split()[1]) for note in notes] == numbers


class Client:
    """A control API with one stack."""

    def __init__(self, folder: Path, drift: dict[str, Any] | None = None, history: list[Any] | None = None) -> None:
        self.folder = folder
        self.found = {"stack": "shop", "base_revision": 3, "changed": False, "actions": [], **(drift or {})}
        self.revisions = history or []

    def status(self) -> Any:
        return {"stacks": [{"name": "shop", "revision": 3, "deployments": []}]}

    def revision(self, stack: str, number: int) -> Any:
        assert (stack, number) == ("shop", 3)
        web = {"name": "web", "import_path": "web:app"}
        spec = {"name": "shop", "app_dir": "code", "deployments": [web]}
        package = {"code": "c", "files": {}, "app_dir": str(self.folder / "code"), "masked": False}
        return {"spec": spec, "source": str(self.folder / "serve.yaml"), "packages": {"web": package}}

    def drift(self, stack: str) -> Any:
        return self.found

    def history(self, stack: str) -> Any:
        return self.revisions


def call(client: Client, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr(launch, "find", lambda address, token: client)
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "serve.yaml").write_text("name: shop\ndeployments: [{name: web, import_path: 'web:app'}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dump_prints_or_writes_what_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(folder)
    text = "name: shop\napp_dir: code\ndeployments:\n- name: web\n  import_path: web:app\n"
    assert call(client, monkeypatch, "dump").stdout == text
    assert json.loads(call(client, monkeypatch, "dump", "-o", "json").stdout)["app_dir"] == "code"
    assert call(client, monkeypatch, "dump", "--out", ".").exit_code == 0
    assert (folder / "shop.yaml").read_text() == text
    refused = call(client, monkeypatch, "dump", "--out", ".")
    assert (refused.exit_code, "is there already" in refused.stderr) == (1, True)
    assert call(client, monkeypatch, "dump", "--out", ".", "--force").exit_code == 0


def test_dumped_elsewhere_it_names_the_code_from_the_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(Client(folder), monkeypatch, "dump", "--out", "elsewhere").exit_code == 0
    assert load_file(folder / "elsewhere" / "shop.yaml", env={}).app_dir == folder / "code"


MISSING = {
    "action": "scale", "deployment": "web", "cost": "scale", "reason": "replicas missing: 1 of 2 live",
    "before": {"replicas": 1}, "after": {"replicas": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("drift", "history", "said"),
    [
        ({"changed": True, "actions": [MISSING]}, [("own", 3)], "replicas missing"),
        ({"warnings": ["revision 3 was rolled back to, and is pinned"]}, [("own", 3)], "is pinned"),
        ({}, [("script.py", 3), ("own", 2)], "revision 3 came from script.py"),
    ],
)
def test_drift_is_shown_with_its_exit_code(
    drift: dict[str, Any], history: list[tuple[str, int]], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(folder / "serve.yaml")
    client = Client(folder, drift, [revision(number, own if name == "own" else name) for name, number in history])
    shown = call(client, monkeypatch, "plan", "--drift", "serve.yaml")
    assert shown.exit_code == 0
    assert said in shown.stdout
    assert shown.stdout.endswith("Drift of stack 'shop' from revision 3.\n")
    assert call(client, monkeypatch, "plan", "--drift", "--exit-code", "serve.yaml").exit_code == 2
    told = json.loads(call(client, monkeypatch, "plan", "--drift", "serve.yaml", "-o", "json").stdout)
    assert told["changed"]


def test_no_drift_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(folder, history=[revision(3, str(folder / "serve.yaml"))])
    shown = call(client, monkeypatch, "plan", "--drift", "--exit-code", "serve.yaml")
    assert (shown.exit_code, shown.stdout) == (0, "No drift. Stack 'shop' is as revision 3 left it.\n")
    assert call(client, monkeypatch, "plan", "--drift", "--out", "x", "serve.yaml").exit_code == 2
