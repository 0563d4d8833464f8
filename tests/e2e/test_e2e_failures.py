"""Code that does not come up: exit code 3, the user's own traceback, and what ran before still runs."""

from __future__ import annotations

import pytest
from conftest import Stack
from place import ask

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
SLOW = WEB + ", rollout: {ready_timeout_s: 2}"

BROKEN = {
    "import": "import os\nraise LookupError('no such thing')\n",
    "syntax": "def broken(:\n",
    "missing module": "import not_there_at_all\napp = None\n",
    "missing attribute": "other = 1\n",
    "lifespan": """
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        @asynccontextmanager
        async def lifespan(app):
            raise LookupError("no such thing")
            yield

        app = FastAPI(lifespan=lifespan)
        """,
    "constructor": """
        class app:
            def __init__(self):
                raise LookupError("no such thing")

            def __call__(self, request):
                return 1
        """,
}
SAYS = {
    "import": "LookupError: no such thing",
    "syntax": "SyntaxError",
    "missing module": "No module named 'not_there_at_all'",
    "missing attribute": "app",
    "lifespan": "LookupError: no such thing",
    "constructor": "LookupError: no such thing",
}
HANGING = """
    import asyncio
    from contextlib import asynccontextmanager
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app):
        await asyncio.Event().wait()
        yield

    app = FastAPI(lifespan=lifespan)
    """


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_code_exits_3_with_the_users_traceback_and_changes_nothing(stack: Stack, kind: str) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    before = stack.pids("web")
    stack.code("web", BROKEN[kind])
    done = stack.try_apply()
    assert done.code == 3, done.err
    assert "web" in done.err and SAYS[kind] in done.err
    frames = [line for line in done.err.splitlines() if 'File "' in line]
    assert all("serveconf/" not in line.split('"')[1].rsplit("/", 1)[0][-12:] for line in frames)
    assert not [line for line in frames if "importlib" in line or "/ray/" in line or "/asyncio/" in line]
    if kind in ("import", "lifespan", "constructor"):
        assert any("web.py" in line for line in frames)
    assert '"said":"before"' in ask(stack.url)[1]
    assert stack.pids("web") == before
    assert stack.place.stack(stack.name)["state"] in ("Healthy", "RolledBack", "Invalid")


def test_app_that_never_gets_ready_exits_3_and_says_what_was_waited_for(stack: Stack) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    before = stack.pids("web")
    stack.spec(SLOW)
    stack.code("web", HANGING)
    done = stack.try_apply("-o", "json")
    assert done.code == 3, done.err
    result = done.json
    assert (result["outcome"], result["changed"]) == ("rolled_back", False)
    assert [p["deployment"] for p in result["problems"]] == ["web"]
    assert "not ready after 2 s" in result["problems"][0]["message"]
    assert stack.pids("web") == before
    assert '"said":"before"' in ask(stack.url)[1]


def test_a_version_whose_first_health_check_fails_never_serves(stack: Stack) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    before = stack.pids("web")
    stack.spec(SLOW.replace("2}", "10}") + ", health_check_path: /nope")
    stack.says("web", "after")
    done = stack.try_apply("-o", "json")
    assert done.code == 3, done.err
    assert "its health check fails: " in done.json["problems"][0]["message"]
    assert "404" in done.json["problems"][0]["message"]
    assert stack.pids("web") == before
    assert '"said":"before"' in ask(stack.url)[1]


def test_first_apply_that_fails_leaves_no_stack(stack: Stack) -> None:
    stack.code("web", BROKEN["lifespan"])
    stack.spec(WEB)
    assert stack.try_apply().code == 3
    assert stack.name not in {found["name"] for found in stack.place.status()["stacks"]}
    assert ask(stack.url)[0] == 404


def test_one_broken_deployment_holds_the_whole_edit_back(stack: Stack) -> None:
    stack.says("web", "before")
    stack.spec(WEB)
    stack.apply()
    stack.says("web", "after")
    stack.code("bad", BROKEN["lifespan"])
    stack.spec(WEB, "name: bad, import_path: 'bad:app', route_prefix: /$/bad")
    assert stack.try_apply().code == 3
    assert '"said":"before"' in ask(stack.url)[1]


def test_user_config_that_is_refused_leaves_the_old_one(stack: Stack) -> None:
    stack.code(
        "web",
        """
        class App:
            def reconfigure(self, user_config):
                if user_config == "bad":
                    raise ValueError("I do not like it")
                self.word = user_config

            def __call__(self, request):
                return self.word
        """,
    )
    spec = "name: web, import_path: 'web:App', route_prefix: /$, user_config: %s"
    stack.spec(spec % "good")
    stack.apply()
    before = stack.pids("web")
    stack.spec(spec % "bad")
    done = stack.try_apply()
    assert done.code == 3
    assert "I do not like it" in done.err and "web.py" in done.err
    assert ask(stack.url) == (200, "good")
    assert stack.pids("web") == before
