"""The control API from outside: who may call it, what it documents, and how it says that something is wrong."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serveconf.admin.app import make_app
from serveconf.admin.guard import MAX_BODY_BYTES
from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.credentials import is_proof, read_only, webhook_secret
from serveconf.errors import AuthorError
from serveconf.reconcile.apply import Deps
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.loop import Reconciler
from serveconf.reconcile.packages import FRESH_S, Packages
from serveconf.reconcile.records import Ledger
from serveconf.reconcile.stacks import Stacks
from serveconf.testing import FakeCluster, FakePreflight, ManualClock, MemoryStore

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8001"
TOKEN = {"authorization": "Bearer secret"}
READ = {"authorization": f"Bearer {read_only('secret')}"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Api:
    """The API over fakes."""

    def __init__(self, folder: Path) -> None:
        self.cluster, stacks, clock = FakeCluster(), Stacks(Ledger(MemoryStore())), ManualClock()
        deps = Deps(
            reconciler=Reconciler(self.cluster, stacks, clock),
            cluster=self.cluster,
            stacks=stacks,
            clock=clock,
        )
        self.preflight = FakePreflight()
        plane = ControlPlane(deps, packages=Packages(MemoryStore(), folder), preflight=self.preflight)
        self.app = make_app(plane, token="secret", address=URL, host="127.0.0.1", on_shutdown=self.shutdown)

    async def shutdown(self) -> None:
        """Nobody asks for it here."""


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        yield client


def operations(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    document = api.app.openapi()
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


async def test_every_operation_is_documented_with_its_answer_and_its_errors(api: Api) -> None:
    assert len(operations(api)) >= 15
    for path, method, operation in operations(api):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert good, (method, path)
        for status, answer in operation["responses"].items():
            if status != "204":
                assert answer["content"], (method, path, status)
                for media, said in answer["content"].items():
                    assert media != "application/json" or said["schema"], (method, path, status)
        assert {"401", "403", "422"} <= operation["responses"].keys()


async def test_everything_but_health_and_the_empty_page_asks_for_the_token(api: Api, http: httpx.AsyncClient) -> None:
    for path, method, _ in operations(api):
        answer = await http.request(method, path.replace("{digest}", "a" * 64).replace("sync/{name}", "sync/shop"))
        open_to_all = {"/": 200, "/api/v1/health": 200, "/assets/{name}": 404, "/sign-in": 422}
        expected = open_to_all.get(path, 401)
        assert answer.status_code == expected, (method, path)
    assert (await http.get("/docs")).status_code == 401
    assert (await http.get("/api/v1/status", headers={"authorization": "Bearer wrong"})).status_code == 401


async def test_the_read_only_token_looks_and_changes_nothing(api: Api, http: httpx.AsyncClient) -> None:
    looks = {"/api/v1/stacks/{stack}/plan", "/api/v1/sign-in", "/api/v1/sign-out"}
    for path, method, _ in operations(api):
        answer = await http.request(method, path.replace("{digest}", "a" * 64), headers=READ)
        refused = (answer.status_code, "read_only" in answer.text) == (403, True)
        webhook = path == "/api/v1/sync/{name}"  # needs its own secret, and no token
        assert refused == (method != "get" and path not in looks and not webhook), (method, path, answer.text)


async def test_a_plan_with_the_read_only_token_imports_nothing(api: Api, http: httpx.AsyncClient) -> None:
    spec = {"name": "s", "deployments": [{"name": "web", "import_path": "os:system", "factory": True}]}
    body = {"spec": spec, "code": "a" * 64, "files": {"web.py": "1"}}
    answer = await http.post("/api/v1/stacks/s/plan", json=body, headers=READ)
    assert answer.status_code == 200
    assert [action["action"] for action in answer.json()["actions"]] == ["proxy", "create"]
    assert "without importing" in answer.json()["warnings"][-1]
    assert api.preflight.asked == []
    assert (await http.post("/api/v1/stacks/s/plan", json=body, headers=TOKEN)).status_code == 200
    assert api.preflight.asked == ["os:system"]


async def test_health_proves_that_it_knows_both_tokens_and_tells_neither(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/health", params={"challenge": "abc"})
    first, second = answer.json()["proofs"]
    assert is_proof(first, "secret", "abc") and is_proof(second, read_only("secret"), "abc")
    assert not is_proof(first, "secret", "another") and not is_proof(first, "other", "abc")
    assert "secret" not in answer.text
    assert (await http.get("/api/v1/health")).json()["proofs"] == []


async def test_pages_of_other_sites_and_other_names_are_refused(http: httpx.AsyncClient) -> None:
    cross = await http.get("/api/v1/status", headers={**TOKEN, "origin": "http://evil.example"})
    assert (cross.status_code, cross.json()["error"]["code"]) == (403, "cross_origin")
    rebound = await http.get("/api/v1/status", headers={**TOKEN, "host": "evil.example:8001"})
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "foreign_host")
    own = await http.get("/api/v1/status", headers={**TOKEN, "origin": URL})
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/v1/stacks/s/apply", b"{not json", 422, "bad_request"),
        ("POST", "/api/v1/stacks/s/apply", b'{"spec": {"name": "s"}, "zzz": 1}', 422, "bad_request"),
        ("POST", "/api/v1/stacks/s/apply", b'{"spec": {"name": "other"}}', 422, "author"),
        ("POST", "/api/v1/stacks/s/plan", b'{"spec": {"name": "s", "zzz": 1}}', 422, "invalid_spec"),
        ("GET", "/api/v1/stacks/s/revisions", b"", 404, "not_found"),
        ("GET", "/api/v1/stacks/s/revisions/x", b"", 422, "bad_request"),
        ("GET", "/api/v1/nothing", b"", 404, "not_found"),
        ("PUT", "/api/v1/status", b"", 405, "method_not_allowed"),
        ("GET", "/api/v1/operations/x/events", b"", 404, "not_found"),
        ("PUT", "/api/v1/code/..%2f..%2fx", b"", 404, "not_found"),
        ("PUT", "/api/v1/code/xyz", b"", 422, "bad_request"),
        ("GET", f"/api/v1/code/{'a' * 16}", b"", 422, "bad_request"),
        ("PUT", f"/api/v1/code/{'a' * 64}", b"no package", 422, "bad_package"),
        ("POST", "/api/v1/stacks/s/plan", b'{"spec": {"name": "s"}, "code": "../../etc"}', 422, "bad_request"),
    ],
)
async def test_what_is_wrong_is_said_in_one_form(
    http: httpx.AsyncClient, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    headers = {**TOKEN, "content-type": "application/json"}
    answer = await http.request(method, path, content=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"]
    assert "hint" in error


async def test_a_body_that_never_ends_is_refused(http: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1_000_000 + 2):
            yield b" " * 1_000_000

    answer = await http.post("/api/v1/stacks/s/apply", content=endless(), headers=TOKEN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_a_stale_base_is_a_precondition_that_failed(http: httpx.AsyncClient) -> None:
    body = {"spec": {"name": "s", "deployments": []}}
    answer = await http.post("/api/v1/stacks/s/apply", json=body, headers={**TOKEN, "if-match": '"7"'})
    assert (answer.status_code, answer.json()["error"]["code"]) == (412, "stale")


async def test_metrics_are_prometheus_text_behind_the_token(http: httpx.AsyncClient) -> None:
    assert (await http.get("/metrics")).status_code == 401
    answer = await http.get("/metrics", headers=TOKEN)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "serveconf_generation 0.0" in answer.text.splitlines()


async def test_the_page_names_no_stack_and_runs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    answer = await http.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "'unsafe" not in answer.headers["content-security-policy"]
    assert "://" not in answer.text
    assert "innerHTML" not in answer.text


def a_package(folder: Path, content: str) -> tuple[str, bytes]:
    """Digest and bytes of a package of one file."""
    folder.mkdir()
    (folder / "app.py").write_text(content)
    snapshot = take_snapshot(folder)
    return snapshot.digest, pack(folder, snapshot)


async def test_a_package_that_an_apply_may_be_about_to_name_is_kept(tmp_path: Path) -> None:
    store, clock = MemoryStore(), ManualClock()
    packages = Packages(store, tmp_path / "nodes", now=clock.now)
    (old, old_data), (new, new_data) = (a_package(tmp_path / word, word) for word in ("old", "new"))
    await packages.put(old, old_data)
    await packages.folder(old)
    clock.advance(FRESH_S)
    await packages.put(new, new_data)
    await packages.collect(set())
    assert await store.keys("code/") == [f"code/{new}"]
    assert list((tmp_path / "nodes").iterdir()) == []
    clock.advance(FRESH_S)
    await packages.collect({new})
    assert await store.keys("code/") == [f"code/{new}"]


async def test_a_package_under_the_digest_of_another_is_refused_and_not_kept(
    api: Api, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    (good, data), (other, _) = (a_package(tmp_path / word, word) for word in ("good", "other"))
    wrong = await http.put(f"/api/v1/code/{other}", content=data, headers=TOKEN)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_package")
    assert (await http.get(f"/api/v1/code/{other}", headers=TOKEN)).json() == {"present": False}
    assert (await http.put(f"/api/v1/code/{good}", content=data, headers=TOKEN)).json() == {"present": True}
    assert (await http.get(f"/api/v1/code/{good}", headers=TOKEN)).json() == {"present": True}


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc/passwd"])
async def test_no_name_but_a_digest_becomes_a_folder_or_a_key(tmp_path: Path, name: str) -> None:
    store = MemoryStore()
    packages = Packages(store, tmp_path / "code")
    with pytest.raises(AuthorError):
        packages.path(name)
    with pytest.raises(AuthorError):
        await packages.folder(name)
    with pytest.raises(AuthorError):
        await packages.put(name, b"")
    assert (store.values, list(tmp_path.iterdir())) == ({}, [])


async def test_the_beginning_of_a_digest_names_no_package(tmp_path: Path) -> None:
    store = MemoryStore()
    await store.put(f"code/{'a' * 64}0", b"")
    assert not await Packages(store, tmp_path).has("a" * 64)


async def test_a_webhook_is_called_with_its_own_secret_as_github_and_gitlab_do(http: httpx.AsyncClient) -> None:
    secret, body = webhook_secret("secret", "shop"), b'{"ref": "refs/heads/main"}'
    signed = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    where = "/api/v1/sync/shop"
    for headers in (
        {},
        {"x-gitlab-token": "wrong"},
        {"x-gitlab-token": webhook_secret("secret", "other")},
        {"x-hub-signature-256": "sha256=00"},
        {"x-hub-signature-256": signed[:-1]},
        {"x-hub-signature-256": "sha256=00", "x-gitlab-token": secret},
        {"x-gitlab-token": "\u00fc"},
        TOKEN,
        READ,
    ):
        encoded = {name: value.encode() for name, value in headers.items()}
        assert (await http.post(where, content=body, headers=encoded)).status_code == 401, headers
    assert (await http.post(where, content=body + b" ", headers={"x-hub-signature-256": signed})).status_code == 401
    assert (await http.get(where, headers=READ)).json() == {"calls": 0}
    assert (await http.post(where, content=body, headers={"x-hub-signature-256": signed})).status_code == 202
    assert (await http.post(where, content=body, headers={"x-gitlab-token": secret})).status_code == 202
    assert (await http.get(where, headers=READ)).json() == {"calls": 2}
    assert (await http.get("/api/v1/sync/other", headers=READ)).json() == {"calls": 0}
    assert (await http.get("/api/v1/status", headers={"authorization": f"Bearer {secret}"})).status_code == 401
    assert (await http.post("/api/v1/sync/a%2Fb", headers={"x-gitlab-token": "x"})).status_code in (401, 404, 422)


async def test_while_the_engine_is_silent_status_says_so_and_nothing_is_begun(
    api: Api, http: httpx.AsyncClient
) -> None:
    api.cluster.silent_s = 12.34
    status = (await http.get("/api/v1/status", headers=TOKEN)).json()
    assert status["controller"]["silent_s"] == 12.3
    answer = await http.post("/api/v1/stacks/default/rollback", headers=TOKEN, json={"author": "me"})
    error = answer.json()["error"]
    assert error["code"] == "store_silent"
    assert error["message"].startswith("Ray's GCS has not answered for 12 s: nothing can be applied")
    api.cluster.silent_s = None
    assert (await http.get("/api/v1/status", headers=TOKEN)).json()["controller"]["silent_s"] is None


async def test_who_only_asks_where_a_stack_stands_waits_for_no_replica(
    api: Api, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def refresh_load() -> None:
        asked.append("every replica")

    monkeypatch.setattr(api.cluster, "refresh_load", refresh_load)
    without = await http.get("/api/v1/status", params={"load": "false"}, headers=TOKEN)
    assert (without.status_code, asked) == (200, [])
    assert (await http.get("/api/v1/status", headers=TOKEN)).json() == without.json()
    assert asked == ["every replica"]
