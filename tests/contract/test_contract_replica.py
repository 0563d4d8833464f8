"""A replica as the plain object that it is: what it says of itself from its start to its end, and who is told why."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from labs import SETTINGS, deployment

from serveconf.cluster.engine import Surroundings
from serveconf.cluster.ground import Ground
from serveconf.cluster.replica import Replica, Shared
from serveconf.figures import ReplicaFigures
from serveconf.handles.following import Following
from serveconf.plan.state import Phase
from serveconf.proxy.pool import ReplicaPool
from serveconf.reconcile.ports import ReplicaOrder
from serveconf.testing import MemoryStore
from serveconf.wire import StreamRefused, WireClient

pytestmark = pytest.mark.anyio

HELLO = """
import asyncio
go = asyncio.Event()
sick = []

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/wait":
        await go.wait()
    status = 503 if scope["path"].endswith("/health") and sick else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
CONFIGURED = """
class Model:
    def reconfigure(self, config):
        if config["threshold"] > 1:
            raise ValueError(f"no such threshold, {config['key']}")
        self.threshold = config["threshold"]

    def __call__(self, request):
        return self.threshold
"""


class Place:
    """Where replicas are made: their code lies in a folder, and nothing of this process is changed for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.made: list[Replica] = []
        self.pool = ReplicaPool(node_id="n", secret=SETTINGS.secret)
        self.following = Following(self.pool, lambda: self.store.get("generation"))

    def replica(self, code: str, name: str, *, secrets: dict[str, str] | None = None, **said: Any) -> Replica:
        """Not started yet; ``code`` is its module, which no other test has."""
        (self.folder / f"{name}.py").write_text(code)
        attribute = said.pop("attribute", "app")
        version = said.pop("version", "")
        made = deployment(f"{name}:{attribute}", **said)
        if version:
            made = msgspec.structs.replace(made, version=version)
        order = ReplicaOrder(id=f"default.a.{name}", stack="default", deployment=made, ready_timeout_s=60)

        async def ground() -> Ground:
            return Ground(code=self.folder, following=self.following, writes=[])

        shared = Shared(ground=ground, pool=self.pool, secrets=secrets or {}, speaks=True)
        surroundings = Surroundings(store=self.store, node_id="n", node_ip="127.0.0.1")
        self.made.append(Replica(order, SETTINGS, surroundings, shared))
        return self.made[-1]


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("serveconf.cluster.replica.node_folder", lambda cluster_id: tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "code").mkdir()
    before = {*sys.modules}
    place = Place(tmp_path / "code")
    yield place
    for replica in place.made:
        await replica.drain(0)
    await place.following.close()
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Callable[[str], Any]]:
    """Requests to it."""
    client = await WireClient.connect(address, secret=SETTINGS.secret)

    async def ask(path: str) -> tuple[int, bytes]:
        got: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            got.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": ("10.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        status = await client(scope, receive, send)
        return status, b"".join(message.get("body", b"") for message in got)

    try:
        yield ask
    finally:
        client.abort()


async def test_it_is_ready_when_it_serves_and_leaves_nothing_when_it_has_drained(place: Place) -> None:
    replica = place.replica(HELLO, "serves_and_ends")
    assert (await replica.describe()).phase is Phase.STARTING
    await replica.run()
    state = await replica.wait_ready()
    assert (state.phase, state.message, state.pid, state.stack) == (Phase.READY, "", os.getpid(), "default")
    async with connected(f"unix:{state.uds}") as ask:
        assert await ask("/") == (200, b"hello")
    assert msgspec.msgpack.decode(await replica.figures(), type=ReplicaFigures).process is not None
    assert await replica.drain(5) is True
    assert (await replica.describe()).phase is Phase.DRAINING
    assert not os.path.exists(state.uds)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("import no_such_module_anywhere\n", "imports_nothing", "no_such_module_anywhere"),
        ("raise SystemExit(3)\n", "leaves_at_import", "exit"),
        ("other = 1\n", "has_no_app", "app"),
        ("app = 17\n", "is_no_app", "int"),
    ],
)
async def test_code_that_can_not_be_served_is_a_failure_with_one_line_and_where(
    place: Place, capfd: pytest.CaptureFixture[str], code: str, name: str, message: str
) -> None:
    replica = place.replica(code, name)
    await replica.run()
    state = await replica.wait_ready()
    assert state.phase is Phase.FAILED
    assert message in state.message.partition("\n")[0]
    assert await replica.check(None, 1) == ""  # there is nothing that could be asked


async def test_what_it_says_of_a_failure_never_holds_a_secret(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    code = "raise ValueError('the key geheim123 is wrong')\n"
    replica = place.replica(code, "tells_its_key", secrets={"geheim123": "${KEY}"})
    await replica.run()
    state = await replica.wait_ready()
    assert state.phase is Phase.FAILED and "${KEY} is wrong" in state.message
    assert "geheim123" not in state.message + capfd.readouterr().err


async def test_it_is_not_ready_before_its_first_check_has_passed(place: Place) -> None:
    replica = place.replica(HELLO + "sick.append(1)\n", "sick_at_first", health_check_path="/health")
    running = asyncio.create_task(replica.run())
    while not (await replica.describe()).message and not running.done():
        await asyncio.sleep(0.01)
    state = await replica.describe()
    sys.modules["sick_at_first"].sick.clear()
    await running
    assert (state.phase, state.message) == (Phase.STARTING, "its health check fails: GET /health answered 503")
    assert (await replica.wait_ready()).phase is Phase.READY
    sys.modules["sick_at_first"].sick.append(1)
    assert "503" in await replica.check("/health", 1)


async def test_a_user_config_that_is_refused_leaves_the_one_before(place: Place) -> None:
    before = {"threshold": 0.5, "key": "geheim123"}
    replica = place.replica(
        CONFIGURED, "is_configured", attribute="Model", user_config=before, secrets={"geheim123": "${KEY}"}
    )
    await replica.run()
    first = (await replica.wait_ready()).config_hash
    refused = await replica.reconfigure({"threshold": 2, "key": "geheim123"}, "new")
    assert refused is not None and refused[0].endswith("no such threshold, ${KEY}")
    assert "geheim123" not in refused[1]
    assert (await replica.describe()).config_hash == first
    assert await replica.reconfigure({"threshold": 0.7, "key": ""}, "new") is None
    assert (await replica.describe()).config_hash == "new"


async def test_a_drain_waits_for_what_runs_and_may_be_taken_back_until_then(place: Place) -> None:
    replica = place.replica(HELLO, "is_taken_back")
    await replica.run()
    assert await replica.take_back()  # it never left
    state = await replica.wait_ready()
    async with connected(f"unix:{state.uds}") as ask:
        slow = asyncio.create_task(ask("/wait"))
        while (await replica.describe()).ongoing != 1:
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(replica.drain(60))
        while (await replica.describe()).phase is not Phase.DRAINING:
            await asyncio.sleep(0)
        assert await replica.take_back()
        assert not await draining and (await replica.describe()).phase is Phase.READY
        assert await ask("/") == (200, b"hello")
        assert not await replica.drain(0)  # what still runs is cut
        assert not await replica.take_back()
        with pytest.raises(StreamRefused):
            await ask("/")
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


async def test_other_nodes_reach_it_at_one_address(place: Place) -> None:
    replica = place.replica(HELLO, "is_reached")
    await replica.run()
    address = await replica.listen_tcp()
    assert await replica.listen_tcp() == address == (await replica.describe()).tcp
    async with connected(f"tcp:{address}") as ask:
        assert await ask("/") == (200, b"hello")


async def test_under_a_new_name_it_is_what_it_was(place: Place) -> None:
    replica = place.replica(HELLO, "is_renamed")
    await replica.run()
    await replica.rename("new")
    state = await replica.describe()
    assert (state.deployment, state.phase) == ("new", Phase.READY)
    assert replica.room.context.deployment == "new"


async def test_one_that_is_to_run_a_newer_serveconf_than_its_node_has_says_what_to_install(place: Place) -> None:
    replica = place.replica(HELLO, "is_too_old", version="abc+99.0.0")
    await replica.run()
    state = await replica.wait_ready()
    assert state.phase is Phase.FAILED
    assert "this replica is to run 99.0.0: pip install 'serveconf==99.0.0' there" in state.message
