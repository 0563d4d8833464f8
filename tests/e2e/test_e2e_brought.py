"""What people bring with them, served as it is: awaited constructors, variables, the control API's port."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path

import pytest
from conftest import Stack
from place import Place, ask, end, until

from serveconf.proxy.ports import port_is_free

ASYNC_INIT = """
    import asyncio
    import os
    from serveconf import serve

    WORD = os.environ["WORD"]

    class Model:
        async def __init__(self, extra=""):
            await asyncio.sleep(0.01)
            self.state = WORD + extra

        async def __call__(self, request):
            return self.state

    @serve.deployment
    class Inner:
        async def __init__(self):
            await asyncio.sleep(0.01)
            self.word = "inner"

        def say(self):
            return self.word

    @serve.deployment
    class Outer:
        async def __init__(self, inner):
            await asyncio.sleep(0.01)
            self.inner = inner

        async def __call__(self, request):
            return await self.inner.say.remote()

    bound = Outer.bind(Inner.bind())

    class Fails:
        async def __init__(self):
            raise LookupError("no weights")

        def __call__(self):
            return ""
    """


def test_an_async_constructor_is_awaited(stack: Stack) -> None:
    stack.code("models", ASYNC_INIT)
    env = "ray_actor_options: {runtime_env: {env_vars: {WORD: ready}}}"
    stack.spec(
        f"name: plain, import_path: 'models:Model', route_prefix: /$/plain, {env}",
        f"name: more, import_path: 'models:Model', route_prefix: /$/more, init_kwargs: {{extra: '!'}}, {env}",
        f"name: bound, import_path: 'models:bound', route_prefix: /$/bound, {env}",
    )
    stack.apply()
    assert [ask(f"{stack.url}/{name}")[1] for name in ("plain", "more", "bound")] == ["ready", "ready!", "inner"]
    replicas = [one for deployment in stack.place.stack(stack.name)["deployments"] for one in deployment["replicas"]]
    assert {one["node"] for one in replicas} == {socket.gethostname()}
    assert all(datetime.datetime.fromisoformat(one["started"]) for one in replicas)
    stack.spec(f"name: plain, import_path: 'models:Fails', route_prefix: /$/plain, {env}")
    failed = stack.try_apply("-o", "json")
    assert failed.code == 3
    assert "Fails(): LookupError: no weights" in failed.json["problems"][0]["message"]
    assert ask(f"{stack.url}/plain")[1] == "ready"


ASKS_AT_START = """
    import asyncio
    from fastapi import FastAPI
    from serveconf import serve

    WORD = "%s"

    @serve.deployment
    class Vocabulary:
        async def __init__(self):
            await asyncio.sleep(1)

        def words(self):
            return [WORD]

    @serve.deployment
    class Model:
        async def __init__(self, vocabulary):
            self.words = await vocabulary.words.remote()

        def say(self):
            return self.words

    web = FastAPI()

    @serve.deployment
    @serve.ingress(web)
    class Front:
        async def __init__(self, model):
            self.words = await model.say.remote()

        @web.get("/")
        def words(self) -> list[str]:
            return self.words

    app = Front.bind(Model.bind(Vocabulary.bind()))
    """


def test_a_constructor_calls_what_is_bound_to_it_also_while_all_of_it_starts(stack: Stack) -> None:
    for word in ("first", "second"):
        stack.code("asks", ASKS_AT_START % word)
        stack.spec("name: asks, import_path: 'asks:app', route_prefix: /$/asks")
        stack.apply()
        assert ask(f"{stack.url}/asks") == (200, f'["{word}"]')


def test_a_spec_with_the_control_apis_port_is_served_and_the_control_api_moves(tmp_path: Path) -> None:
    if not port_is_free("127.0.0.1", 8001):
        pytest.skip("another program has port 8001")
    place = Place()
    (tmp_path / "web.py").write_text("from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(lambda: 'hi')\n")
    file = tmp_path / "serve.yaml"
    file.write_text("http_options: {port: 8001}\ndeployments: [{name: web, import_path: 'web:app', route_prefix: /}]\n")
    del place.env["SERVECONF_ADDRESS"]
    try:
        done = place.ok("apply", file)
        assert "port 8001 is the spec's own (http_options.port): the control API starts at port" in done.err
        assert ask("http://127.0.0.1:8001/") == (200, '"hi"')
        assert place.ok("status", "-o", "json").json["stacks"][0]["state"] == "Healthy"
        control = place.status()["controller"]["address"].rpartition(":")[2]
        file.write_text(file.read_text().replace("8001", control))
        refused = place.run("apply", file)
        assert (
            refused.code == 1 and f":1:22: error: http_options.port: port {control} is the control API's" in refused.err
        )
    finally:
        place.run("shutdown")
        place.close()


def test_what_is_dumped_plans_no_change_and_what_others_apply_is_drift(stack: Stack, place: Place) -> None:
    stack.says("web", "first")
    stack.spec("name: web, import_path: 'web:app', route_prefix: /$, init_args: [], num_replicas: 2")
    stack.apply()
    dumped = stack.folder / "dumped.yaml"
    dumped.write_text(place.ok("dump", "--stack", stack.name).out)
    place.ok("plan", "--exit-code", dumped)
    place.ok("plan", "--drift", "--exit-code", stack.file)
    dumped.write_text(dumped.read_text().replace("num_replicas: 2", "num_replicas: 1"))
    place.ok("apply", dumped)
    found = place.run("plan", "--drift", "--exit-code", stack.file)
    assert found.code == 2
    assert f"came from {dumped}" in found.out
    place.ok("plan", "--drift", "--exit-code", dumped)


def test_an_app_is_served_without_a_file_and_kept_as_one(tmp_path: Path) -> None:
    place = Place()
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "web.py").write_text("from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(lambda: 'hi')\n")
    running = place.start("run", "web:app", "--save", "serve.yaml", "--port", str(place.http_port), cwd=folder)
    try:
        until(lambda: ask(place.url) == (200, '"hi"'), "the app answers")
        (folder / "web.py").write_text((folder / "web.py").read_text().replace("hi", "ho"))
        until(lambda: ask(place.url) == (200, '"ho"'), "the edit answers")
        running.terminate()
        assert end(running).code == 0
        until(lambda: not place.processes(), "nothing is left")
        assert "import_path: web:app" in (folder / "serve.yaml").read_text()
    finally:
        place.run("shutdown")
        place.close()


def test_log_lines_are_written_as_the_spec_says(stack: Stack, place: Place) -> None:
    stack.code(
        "web", "import logging\nlogging.getLogger('mine').info('imported')\n\ndef app():\n    logging.debug('asked')\n"
    )
    stack.spec(
        "name: json, import_path: 'web:app', route_prefix: /$/json, logging: {level: debug, format: json}",
        "name: text, import_path: 'web:app', route_prefix: /$/text, logging: {}",
        "name: plain, import_path: 'web:app', route_prefix: /$/plain",
    )
    stack.apply()
    for name in ("json", "text", "plain"):
        ask(f"{stack.url}/{name}")

    def lines(name: str) -> list[str]:
        return [one["line"] for one in place.ok("logs", name, "--stack", stack.name, "-o", "json").json]

    found = [json.loads(line) for line in lines("json") if '"mine"' in line or "asked" in line]
    assert [(one["message"], one["level"], one["deployment"]) for one in found] == [
        ("imported", "info", "json"),
        ("asked", "debug", "json"),
    ]
    assert any(line.endswith("INFO mine imported") for line in lines("text"))
    assert not any("asked" in line for line in lines("text"))
    assert not any("imported" in line for line in lines("plain"))
