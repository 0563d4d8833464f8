from __future__ import annotations

import functools

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Router

from serveconf.errors import AuthorError
from serveconf.ingress.app import build
from serveconf.ingress.kinds import shape_of


async def raw(scope, receive, send):
    if scope["type"] == "http":
        await PlainTextResponse("raw")(scope, receive, send)


async def other_names(s, r, w): ...


class Instance:
    async def __call__(self, scope, receive, send):
        await PlainTextResponse("instance")(scope, receive, send)


class Double:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await PlainTextResponse("double")(self.scope, receive, send)


def double_function(scope):
    return functools.partial(raw, scope)


class Endpoint(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("endpoint")


class Model:
    def __call__(self, request): ...


class OwnApp(FastAPI):
    def __init__(self, greeting: str):
        super().__init__()
        self.get("/")(lambda: greeting)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (raw, "asgi3"),
        (other_names, "asgi3"),
        (functools.partial(raw), "asgi3"),
        (Instance(), "asgi3"),
        (FastAPI(), "asgi3"),
        (Starlette(), "asgi3"),
        (Router(), "asgi3"),
        (GZipMiddleware(raw), "asgi3"),
        (Endpoint, "asgi3"),
        (Double, "asgi2"),
        (double_function, "asgi2"),
        (Instance, "class"),
        (Model, "class"),
        (OwnApp, "class"),
        (Model(), "callable"),
        (lambda: None, "callable"),
        (lambda request: None, "callable"),
        (lambda request, a=1, b=2: None, "callable"),
        (lambda *args: None, "callable"),
    ],
)
def test_a_target_is_told_from_its_type_and_signature(target, shape):
    assert shape_of(target) == shape


@pytest.mark.parametrize(
    ("target", "text"),
    [(raw, "raw"), (Instance(), "instance"), (Double, "double"), (double_function, "raw"), (Endpoint, "endpoint")],
)
def test_every_form_of_asgi_app_answers(client, target, text):
    served = build(target)
    assert (served.kind, client(served.app).get("/").text) == ("asgi", text)


def test_a_class_whose_instances_are_asgi_apps_is_constructed_and_served(client):
    served = build(OwnApp, init_args=["hello"])
    assert (served.kind, client(served.app).get("/").json()) == ("class", "hello")


class Wsgi:
    def __call__(self, environ, start_response): ...


class Flasklike:
    def wsgi_app(self, environ, start_response): ...

    def __call__(self, environ, start_response): ...


@pytest.mark.parametrize("target", [Wsgi(), Flasklike(), lambda environ, start_response: []])
def test_a_wsgi_app_is_refused_with_a_way_out(target):
    with pytest.raises(AuthorError, match="WSGI") as caught:
        build(target)
    assert "WSGIMiddleware" in (caught.value.hint or "")


@pytest.mark.parametrize("target", [7, "app", None, {"a": 1}])
def test_what_is_not_callable_is_refused(target):
    with pytest.raises(AuthorError, match="neither an ASGI app nor callable"):
        build(target)


def test_a_class_that_cannot_answer_is_refused_before_it_is_constructed():
    class Silent:
        def __init__(self):
            raise AssertionError("constructed")

    with pytest.raises(AuthorError, match="has no __call__"):
        build(Silent)


def test_a_factory_that_was_not_declared_as_one_is_told_so():
    def create_app() -> FastAPI: ...

    with pytest.raises(AuthorError, match="returns an app") as caught:
        build(create_app)
    assert "factory: true" in (caught.value.hint or "")


def test_arguments_for_something_that_is_not_constructed_are_refused():
    with pytest.raises(AuthorError, match="is not constructed"):
        build(raw, init_args=[1])
