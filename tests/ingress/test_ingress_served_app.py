from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
from fastapi import FastAPI, Request

from serveconf.errors import AuthorError, CodeFailed
from serveconf.ingress.app import ServedApp, build
from serveconf.ingress.class_routes import ingress
from serveconf.ingress.deployment import deployment
from serveconf.ingress.health import probe_path


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def live(served: ServedApp) -> None:
    await served.startup()
    await served.shutdown()


def app_with_lifespan(log: list[str]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app):
        log.append("up")
        yield {"pool": 7}
        log.append("down")

    return FastAPI(lifespan=lifespan)


def test_the_life_of_a_class_is_init_reconfigure_startup_shutdown_del():
    log: list[str] = []

    @ingress(app_with_lifespan(log))
    class Model:
        def __init__(self, a, *, b):
            log.append(f"init {a} {b}")

        def reconfigure(self, config):
            log.append(f"config {config}")

        def __del__(self):
            log.append("del")

    async def main():
        served = build(Model, init_args=[1], init_kwargs={"b": 2}, user_config={"t": 1})
        await live(served)

    run(main())
    gc.collect()
    assert log == ["init 1 2", "config {'t': 1}", "up", "down", "del"]


def test_del_runs_at_shutdown_even_where_something_still_holds_the_instance():
    ended = []
    kept = []

    class Model:
        def __init__(self):
            kept.append(self)

        def __call__(self): ...

        def __del__(self):
            ended.append(1)
            raise RuntimeError("not even this stops the replica")

    run(live(build(Model)))
    assert ended == [1]
    type(kept[0]).__del__ = lambda self: None


def test_lifespan_state_is_kept_for_the_requests():
    served = build(app_with_lifespan([]))
    run(served.startup())
    assert served.state == {"pool": 7}


def test_the_instance_sees_the_running_loop_where_build_runs_on_it():
    class Model:
        def __init__(self):
            self.loop = asyncio.get_running_loop()

        def __call__(self): ...

    async def main():
        assert build(Model)._instance.loop is asyncio.get_running_loop()

    run(main())


async def raises_on_lifespan(scope, receive, send):
    assert scope["type"] == "http"


async def returns_on_lifespan(scope, receive, send):
    return


async def takes_lifespan_for_a_request(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize("app", [raises_on_lifespan, returns_on_lifespan, takes_lifespan_for_a_request])
def test_an_app_without_lifespan_is_served_all_the_same(app):
    run(live(build(app)))


def test_a_failed_startup_carries_the_users_traceback():
    @contextlib.asynccontextmanager
    async def lifespan(app):
        raise ValueError("no database")
        yield

    with pytest.raises(CodeFailed, match=r"^lifespan startup: ValueError: no database$") as caught:
        run(build(FastAPI(lifespan=lifespan)).startup())
    assert 'raise ValueError("no database")' in caught.value.traceback
    assert "serveconf/ingress" not in caught.value.traceback.replace("tests/ingress", "")


def test_a_startup_failed_without_an_exception_carries_its_message():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no licence"})

    with pytest.raises(CodeFailed, match="lifespan startup: no licence"):
        run(build(app).startup())


def test_an_exit_in_lifespan_is_a_failure_and_not_the_end_of_the_loop():
    async def app(scope, receive, send):
        raise SystemExit(3)

    with pytest.raises(CodeFailed, match=r"lifespan startup: the code called sys\.exit\(3\)"):
        run(build(app).startup())


def test_a_shutdown_that_fails_does_not_raise(caplog):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        raise ValueError("late")

    run(live(build(FastAPI(lifespan=lifespan))))
    assert "lifespan shutdown failed" in caplog.text


def test_a_startup_that_was_given_up_on_does_not_hold_up_the_shutdown():
    cancelled = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def main():
        served = build(app)
        starting = asyncio.create_task(served.startup())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await served.shutdown()
        await asyncio.sleep(0)
        assert cancelled == [1]

    run(main())


def test_a_constructor_that_raises_is_the_users_failure():
    class Model:
        def __init__(self):
            raise KeyError("weights")

        def __call__(self): ...

    with pytest.raises(CodeFailed, match=r"Model\(\): KeyError: 'weights'") as caught:
        build(Model)
    assert caught.value.traceback.count("  File") == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reconfigure_is_called_live_and_its_failure_is_told(asynchronous):
    class Model:
        def __call__(self): ...

        def reconfigure(self, config):
            if config == "bad":
                raise ValueError("bad config")
            self.config = config

    class Async(Model):
        async def reconfigure(self, config):
            super().reconfigure(config)

    async def main():
        served = build(Async if asynchronous else Model)
        await served.startup()
        await served.reconfigure({"t": 2})
        assert served._instance.config == {"t": 2}
        with pytest.raises(CodeFailed, match=r"reconfigure: ValueError: bad config"):
            await served.reconfigure("bad")
        assert served._instance.config == {"t": 2}

    run(main())


def test_user_config_for_what_cannot_take_it_is_an_error():
    with pytest.raises(AuthorError, match=r"has no reconfigure\(user_config\)"):
        run(build(FastAPI(), user_config={"a": 1}).startup())
    run(build(FastAPI()).reconfigure(None))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_check_health_raises_what_the_object_raises(asynchronous):
    class Model:
        well = True

        def __call__(self): ...

        def check_health(self):
            if not self.well:
                raise RuntimeError("lost the GPU")

    class Async(Model):
        async def check_health(self):
            super().check_health()

    async def main():
        served = build(Async if asynchronous else Model)
        assert served.has_check_health
        await served.check_health()
        Model.well = False
        with pytest.raises(RuntimeError, match="lost the GPU"):
            await served.check_health()

    run(main())
    assert not build(FastAPI()).has_check_health


def test_a_factory_may_return_anything_that_can_be_served(client):
    class Model:
        def __init__(self, name="plain"):
            self.name = name

        def __call__(self):
            return self.name

    def make(what):
        return {
            "function": lambda: "f",
            "class": Model,
            "deployment": deployment(init_args=["given"])(Model),
            "app": FastAPI(),
        }[what]

    for what, kind, text in [
        ("function", "function", "f"),
        ("class", "class", "plain"),
        ("deployment", "deployment", "given"),
    ]:
        served = build(make, factory=True, init_args=[what])
        assert (served.kind, client(served.app).get("/").text) == (kind, text)
    assert build(make, factory=True, init_kwargs={"what": "app"}).kind == "asgi"


def test_an_async_factory_is_refused_with_a_way_out():
    async def make(): ...

    with pytest.raises(AuthorError, match="is async"):
        build(make, factory=True)


def test_a_health_path_is_asked_below_the_prefix_with_the_lifespan_state():
    app = app_with_lifespan([])

    @app.get("/health")
    def health(request: Request, deep: bool = False):
        assert (request.url.path, request.state.pool, deep) == ("/p/health", 7, True)

    @app.get("/ill", status_code=503)
    def ill(): ...

    async def main():
        served = build(app)
        await served.startup()
        assert await probe_path(served.app, "/health?deep=1", "/p", served.state) == ""
        assert await probe_path(served.app, "/ill", None) == "GET /ill answered 503"
        assert await probe_path(served.app, "/none", "/") == "GET /none answered 404"
        assert await probe_path(returns_on_lifespan, "/x", "/") == "GET /x gave no answer"

    run(main())


class Loaded:
    async def __init__(self, *, rate=1.0, fail=False):
        self.log = ["begun"]
        await asyncio.sleep(0)
        if fail:
            raise ValueError("no weights")
        self.log.append(f"rate {rate}")


class Warmed(Loaded):
    def reconfigure(self, config):
        self.log.append(f"config {config}")

    async def __call__(self):
        return self.log


class Heir(Warmed):
    async def __init__(self):
        await super().__init__(rate=2.0)
        self.log.append("heir")


def test_an_async_constructor_is_awaited_before_anything_else():
    api = FastAPI()

    @ingress(api)
    class Api(Loaded):
        @api.get("/log")
        def told(self):
            return self.log

    async def main():
        logs = []
        for target, options in (
            (Warmed, {"init_kwargs": {"rate": 0.5}, "user_config": {"t": 1}}),
            (deployment(Heir), {}),
            (deployment(Api).bind(rate=3.0), {}),
            (lambda kind: Heir, {"factory": True, "init_args": ["x"]}),
        ):
            served = build(target, **options)
            await served.startup()
            logs.append(getattr(served.servable, "log", "the class itself"))
            await served.shutdown()
        return logs

    assert run(main()) == [
        ["begun", "rate 0.5", "config {'t': 1}"],
        ["begun", "rate 2.0", "heir"],
        ["begun", "rate 3.0"],
        ["begun", "rate 2.0", "heir"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"fail": True}, "Warmed(): ValueError: no weights"), ({"rat": 1}, "unexpected keyword argument 'rat'")],
)
def test_an_async_constructor_that_fails_is_the_codes_fault(arguments, message):
    with pytest.raises(CodeFailed) as failed:
        run(build(Warmed, init_kwargs=arguments).startup())
    assert message in str(failed.value)
