"""The recipes of docs/gitops.md: each is what the example says, and holds as far as a machine without the service can tell."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serveconf.cli.parser import app
from serveconf.spec.load import load_file

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "gitops"
PAGE = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
FILES = sorted(path for path in RECIPES.rglob("*") if path.is_file())
BIN = Path(sys.executable).parent


def text(name: str) -> str:
    return (RECIPES / name).read_text(encoding="utf-8")


def manifests() -> list[dict[str, Any]]:
    return [one for path in sorted((RECIPES / "kubernetes").iterdir()) for one in yaml.safe_load_all(path.read_text())]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_page_shows_each_recipe_as_it_is(file: Path) -> None:
    assert f"\n{file.read_text(encoding='utf-8')}```\n" in PAGE


def commands() -> list[str]:
    """Every ``serveconf …`` of the recipes and of the page."""
    whole = "\n".join(text(str(path.relative_to(RECIPES))) for path in FILES)
    found = re.findall(r"(?:run: |- |bin/)(serveconf [a-z].*)", whole)
    watch = next(c for m in manifests() if m["kind"] == "RayCluster" for c in head_of(m)["containers"] if "args" in c)
    found.append(shlex.join([*watch["command"], *watch["args"]]))
    return [*found, *re.findall(r"`(serveconf sync .*?)`", PAGE)]


def head_of(cluster: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_of_a_recipe_is_one(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0])[1:]
    assert CliRunner().invoke(app, [words[0], "--help"]).exit_code == 0
    said = CliRunner().invoke(app, [words[0], "--help"]).stdout
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(^|[\s,]){re.escape(option)}\b", said), f"{words[0]} has no {option}"


@pytest.mark.parametrize(
    ("name", "schema"),
    [("github-actions.yml", "vendor.github-workflows"), ("gitlab-ci.yml", "vendor.gitlab-ci")],
)
def test_pipelines_are_what_their_service_takes(name: str, schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(RECIPES / name)]
        + (["--data-transform", "gitlab-ci"] if "gitlab" in name else []),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_pipeline_checks_it_also_finds(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "serve.yaml").write_text(
        "deployments:\n  - {name: web, import_path: 'web:app', replicas: 2}\n"
    )
    for output, check in (
        ("github", lambda out: "::error file=deploy/serve.yaml,line=2" in out),
        ("sarif", lambda out: json.loads(out)["runs"][0]["results"][0]["level"] == "error"),
    ):
        command = ["bash", "-c", f"{BIN / 'serveconf'} validate deploy/*.yaml -o {output}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert check(done.stdout), done.stdout


def test_the_pre_commit_hook_takes_the_specs_and_nothing_else(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load(text("pre-commit-config.yaml"))["repos"][0]["hooks"]
    names = ["deploy/serve.yaml", "deploy/eu/shop.yml", "deploy/readme.md", "other/serve.yaml"]
    taken = [name for name in names if re.search(hook["files"], name)]
    assert taken == ["deploy/serve.yaml", "deploy/eu/shop.yml"]
    good = tmp_path / "serve.yaml"
    good.write_text("deployments:\n  - {name: web, import_path: 'web:app'}\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("deployments: 3\n")
    entry = [str(BIN / "serveconf"), *shlex.split(hook["entry"])[1:]]
    assert subprocess.run([*entry, str(good)], check=False, capture_output=True).returncode == 0
    assert subprocess.run([*entry, str(good), str(bad)], check=False, capture_output=True).returncode == 1


def test_the_container_runs_as_nobody_special_and_hears_its_signals() -> None:
    lines = re.sub(r"#.*\n", "", text("Containerfile")).strip().splitlines()
    said: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest)
    assert said["USER"] == ["serve"]
    for word in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(said[word][0]), list)  # no shell in between, which would keep SIGTERM to itself
    program = json.loads(said["ENTRYPOINT"][0]) + json.loads(said["CMD"][0])
    assert program[:2] == ["serveconf", "run"] and "--no-watch" in program
    check = said["HEALTHCHECK"][0].partition("CMD ")[2]
    compile(json.loads(check)[2], "HEALTHCHECK", "exec")


def test_manifests_are_what_kubernetes_takes() -> None:
    import kubernetes_validate

    version = kubernetes_validate.latest_version()
    found = manifests()
    for manifest in found:
        if manifest["kind"] != "RayCluster":
            kubernetes_validate.validate(manifest, version, strict=True)
            continue
        groups = [manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]]
        for group in groups:  # the schema of a RayCluster is KubeRay's; its pods are Kubernetes' own
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **group["template"]["metadata"]}}
            kubernetes_validate.validate({**pod, "spec": group["template"]["spec"]}, version, strict=True)
    assert {manifest["kind"] for manifest in found} == {"ConfigMap", "RayCluster", "Service", "NetworkPolicy"}


def test_manifests_fit_together(tmp_path: Path) -> None:
    kinds = {manifest["kind"]: manifest for manifest in manifests()}
    pod = head_of(kinds["RayCluster"])
    labels = kinds["RayCluster"]["spec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"].items() <= labels.items()
    assert kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == volumes.keys()
    assert volumes["stacks"]["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]
    watch = next(container for container in pod["containers"] if container["name"] == "watch")
    ready = watch["args"][watch["args"].index("--ready-file") + 1]
    assert watch["readinessProbe"]["exec"]["command"] == ["test", "-f", ready]
    port = next(port for port in pod["containers"][0]["ports"] if port["name"] == "http")["containerPort"]
    for name, spec in kinds["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(spec.replace("/srv/shop", str(tmp_path)))
        loaded = load_file(tmp_path / name, env={})
        assert loaded.spec.http_options.port == port
        assert loaded.spec.http_options.host == "0.0.0.0"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    program = tmp_path / "serveconf"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "serveconf-sync.service"
    unit.write_text(text("serveconf-sync.service").replace("/opt/serveconf/bin/serveconf", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if unit.name in line and "serve" in line]
    assert not own, done.stderr
