"""Events and history say who changed what, and by which token; never the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from world import World

from serveconf.admin.app import make_app
from serveconf.credentials import AUTHOR_HEADER, fingerprint, is_proof, read_only, webhook_secret
from serveconf.errors import OperatorError

pytestmark = pytest.mark.anyio

TOKEN = "the-token-that-may-write"
WRITE = f"write:{fingerprint(TOKEN)}"
READ = f"read:{fingerprint(read_only(TOKEN))}"
ADA = {"authorization": f"Bearer {TOKEN}", AUTHOR_HEADER: "ad%C3%A4@host"}
BY_ADA = f" by adä@host ({WRITE})"
WEB = {"name": "web", "import_path": "a:app", "num_replicas": 2}
CANARY = {**WEB, "rollout": {"canary": {"steps": [50], "step_s": 600}}}


class Api:
    """The control API over a world."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        app = make_app(
            self.world.plane,
            token=TOKEN,
            address="http://127.0.0.1:8001",
            host="127.0.0.1",
            on_shutdown=self.nothing,
            events=self.world.events,
            keep_token=self.keep,
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001", headers=ADA)

        self.kept: list[str] = []
        self.keeps = True

    async def nothing(self) -> None:
        """Nobody asks for it here."""

    async def keep(self, token: str) -> None:
        if not self.keeps:
            raise OperatorError("the store is away")
        self.kept.append(token)

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """One that is taken; an operation is run to its end."""
        answer = await self.http.post(f"/api/v1{path}", json=body, **options)
        assert answer.is_success, answer.text
        found = answer.json() if answer.content else {}
        if "operation" in found:
            await self.world.run(self.world.plane.operation(found["operation"]))
        return found

    async def apply(self, *deployments: dict[str, Any], **more: Any) -> None:
        spec = {"name": "shop", "deployments": list(deployments)}
        body = {"spec": spec, "code": "a" * 64, "files": {"a.py": "1"}, **more}
        await self.post("/stacks/shop/apply", body)

    async def begin(self, *deployments: dict[str, Any], **more: Any) -> None:
        """A canary, up to its first step."""
        spec = {"name": "shop", "deployments": list(deployments)}
        body = {"spec": spec, "code": "b" * 64, "files": {"a.py": "2"}, **more}
        assert (await self.http.post("/api/v1/stacks/shop/apply", json=body)).status_code == 202
        for _ in range(10):
            await self.world.look()
        assert self.world.ledger.heads["shop"].canary is not None

    def last(self, kind: str) -> tuple[str, dict[str, Any]]:
        event = next(e for e in reversed(self.world.events.recent()) if e.kind == kind)
        return event.message, event.data


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    api = Api(tmp_path)
    yield api
    told = msgspec.json.encode([event.as_json() for event in api.world.events.recent()]).decode()
    kept = "".join(str(value) for value in api.world.store.values.values())
    for secret in (TOKEN, read_only(TOKEN), webhook_secret(TOKEN, "shop")):
        assert secret not in told and secret not in kept
    await api.http.aclose()


async def test_an_apply_names_its_author_and_token_in_events_and_history(api: Api) -> None:
    await api.apply(WEB)
    begun = next(e for e in api.world.events.recent() if e.kind == "apply")
    assert begun.message.startswith(f"revision 1 is being applied{BY_ADA}: ")
    assert begun.data.items() >= {"author": "adä@host", "token": WRITE}.items()
    (revision,) = (await api.http.get("/api/v1/stacks/shop/revisions")).json()
    assert (revision["author"], revision["token"], revision["automatic"]) == ("adä@host", WRITE, False)


async def test_what_follows_files_is_told_from_who_applies_by_hand(api: Api) -> None:
    await api.apply(WEB, author="ci@runner", source="git+https://git.example/shop#main:serve.yaml", automatic=True)
    begun = next(e for e in api.world.events.recent() if e.kind == "apply")
    said = f"by ci@runner ({WRITE}), following git+https://git.example/shop#main:serve.yaml: "
    assert said in begun.message
    assert (await api.http.get("/api/v1/stacks/shop/revisions")).json()[0]["automatic"] is True


async def test_a_refused_apply_names_them_too(api: Api) -> None:
    await api.apply(WEB)
    other = {"name": "blog", "deployments": [WEB]}  # the same prefix
    await api.post("/stacks/blog/apply", {"spec": other, "code": "a" * 64, "files": {"a.py": "1"}})
    message, data = api.last("apply")
    assert message.startswith(f"an apply{BY_ADA} changed nothing: ") and data["token"] == WRITE


async def test_a_number_that_is_set_by_hand_and_its_end_are_told(api: Api) -> None:
    await api.apply(WEB)
    await api.post("/stacks/shop/deployments/web/scale", {"replicas": 3})
    message, data = api.last("scale")
    assert message == f"web is set from 2 to 3 replicas{BY_ADA}, until the next apply"
    assert data == {"before": 2, "after": 3, "cause": "hand", "author": "adä@host", "token": WRITE}
    await api.apply(WEB)
    assert api.last("scale")[0] == f"numbers of replicas that were set by hand hold no more: applied{BY_ADA}"


async def test_a_rollback_its_pin_and_the_end_of_it_are_told(api: Api) -> None:
    await api.apply(WEB)
    await api.apply({**WEB, "num_replicas": 1})
    await api.post("/stacks/shop/rollback", {"revision": 1})
    assert api.last("pin")[0] == f"pinned{BY_ADA}: what watches its files leaves it alone"
    back = [e.message for e in api.world.events.recent() if "back to" in e.message]
    assert back[0].startswith(f"revision 3 is being applied{BY_ADA}: back to 1: ")
    await api.post("/stacks/shop/resume")
    message, data = api.last("pin")
    assert (message, data["token"]) == (f"the pin is ended{BY_ADA}", WRITE)


@pytest.mark.parametrize(("verb", "said"), [("promote", f"promoted{BY_ADA}: web"), ("abort", f"aborted{BY_ADA}")])
async def test_who_ends_a_canary_is_told(api: Api, verb: str, said: str) -> None:
    await api.apply(WEB)
    await api.begin(CANARY)
    await api.post(f"/stacks/shop/{verb}", {"deployment": None})
    assert (said, WRITE) in [(e.message, e.data.get("token")) for e in api.world.events.recent()]


async def test_who_stops_an_apply_is_told(api: Api) -> None:
    await api.apply(WEB)
    await api.begin(CANARY)
    target = api.world.ledger.revision("shop", 2)
    assert target is not None
    assert (await api.http.delete(f"/api/v1/operations/{target.operation}")).status_code == 200
    assert f"revision 2 is to be stopped{BY_ADA}" in [e.message for e in api.world.events.recent()]


async def test_who_takes_a_stack_away_is_told(api: Api) -> None:
    await api.apply(WEB)
    await api.post("/stacks/shop/delete", {"author": "bob@host"})
    gone = next(e for e in api.world.events.recent() if "takes the stack away" in e.message)
    assert gone.message.startswith(f"revision 2 takes the stack away by bob@host ({WRITE}): ")


async def test_who_takes_a_backup_and_who_restores_it_are_told(api: Api) -> None:
    await api.apply(WEB)
    await api.world.store.put(f"code/{'a' * 64}", b"code")
    taken = await api.http.post("/api/v1/backup")
    assert taken.status_code == 200
    assert api.last("controller") == (f"a backup was taken{BY_ADA}", {"author": "adä@host", "token": WRITE})
    saved = msgspec.msgpack.decode(taken.content)["stacks"][0]
    await api.post("/stacks/shop/delete", {})
    answer = await api.http.post(
        "/api/v1/stacks/shop/restore", content=msgspec.msgpack.encode(saved), params={"replace": True}
    )
    assert answer.status_code == 202, answer.text
    message = f"is restored from a backup{BY_ADA}: what was revision 1 there"
    assert message in [e.message for e in api.world.events.recent()]
    await api.world.run(api.world.plane.operation(answer.json()["operation"]))


async def test_a_browser_and_a_webhook_are_named_by_fingerprints_of_their_own(api: Api) -> None:
    await api.apply(WEB)
    address = (await api.http.post("/api/v1/sign-in")).json()["address"]
    page = await api.http.get(address, headers={"authorization": ""})
    key = page.text.partition('name="serveconf-key" content="')[2].partition('"')[0]
    signed_in = api.last("token")[1]["token"]
    assert signed_in.startswith("browser:")
    by_page = {"authorization": "", "x-serveconf-key": key, AUTHOR_HEADER: ""}
    await api.post("/stacks/shop/deployments/web/scale", {"replicas": 4}, headers=by_page)
    assert api.last("scale")[0] == f"web is set from 2 to 4 replicas by {signed_in}, until the next apply"

    called = await api.http.post("/api/v1/sync/shop", headers={"x-gitlab-token": webhook_secret(TOKEN, "shop")})
    assert called.status_code == 202
    name = f"webhook:{fingerprint(webhook_secret(TOKEN, 'shop'))}"
    assert api.last("token") == (f"webhook shop was called ({name})", {"token": name, "webhook": "shop"})


async def test_a_new_token_ends_the_old_one_and_all_that_followed_from_it(api: Api) -> None:
    async def status(**headers: str) -> int:
        return (await api.http.get("/api/v1/status", headers={"authorization": "", **headers})).status_code

    page = await api.http.get((await api.http.post("/api/v1/sign-in")).json()["address"])
    key = page.text.partition('name="serveconf-key" content="')[2].partition('"')[0]
    by_page = {"x-serveconf-key": key}
    late = (await api.http.post("/api/v1/sign-in")).json()["address"]
    assert await status(**by_page) == 200
    refused = await api.http.post("/api/v1/token", headers={"authorization": "", **by_page})
    assert refused.status_code == 403 and "the token is told to nobody" in refused.text

    api.keeps = False
    assert (await api.http.post("/api/v1/token")).status_code == 422
    assert await status(**ADA) == 200  # nothing has changed

    api.keeps = True
    token = (await api.post("/token"))["token"]
    assert api.kept == [token] and len(token) >= 40
    name = f"write:{fingerprint(token)}"
    said = {"author": "adä@host", "token": WRITE, "new": name}
    assert api.last("token") == (f"the token was replaced{BY_ADA}: from now on it is {name}", said)

    for old in (TOKEN, read_only(TOKEN)):
        assert await status(authorization=f"Bearer {old}") == 401
    for new in (token, read_only(token)):
        assert await status(authorization=f"Bearer {new}") == 200
    assert await status(**by_page) == 401
    assert (await api.http.get(late)).status_code == 403
    for secret, expected in ((webhook_secret(TOKEN, "shop"), 401), (webhook_secret(token, "shop"), 202)):
        assert (await api.http.post("/api/v1/sync/shop", headers={"x-gitlab-token": secret})).status_code == expected
    health = await api.http.get("/api/v1/health", params={"challenge": "c"})
    assert is_proof(health.json()["proofs"][0], token, "c")


async def test_what_a_watcher_tells_names_the_token_that_it_has(api: Api) -> None:
    told = {"kind": "heal", "message": "put back", "data": {"file": "serve.yaml", "token": "write:forged"}}
    await api.post("/stacks/shop/events", told)
    assert api.last("heal")[1] == {"author": "adä@host", "file": "serve.yaml", "token": WRITE}
