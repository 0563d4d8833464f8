"""Whatever is sent to the control API, by its own OpenAPI or beside it, is answered, and never as a fault of ours (500)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_admin_api import TOKEN, URL, Api

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=8,
)
TEXT = st.text(max_size=20) | st.sampled_from(
    ["shop", "1", "-1", "0", "../x", "a" * 64, "9" * 30, "true", "\x00", "a/b"]
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["shop", "default"]) | JSON,
        "deployments": st.lists(
            st.fixed_dictionaries({"name": TEXT, "import_path": st.just("web:app")}, optional={"init_args": JSON}),
            max_size=2,
        )
        | JSON,
        "http_options": JSON,
    },
)
ENDS = {"/api/v1/shutdown"}  # it ends the process
KINDS = {
    "string": TEXT,
    "integer": st.integers() | st.integers(-2, 20),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.just(0),
    "boolean": st.booleans(),
    "null": st.none(),
}


def values_of(schema: dict[str, Any], models: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the schema says, now and then anything."""
    if "$ref" in schema:
        return values_of(models[schema["$ref"].rpartition("/")[2]], models)
    if "anyOf" in schema:
        return st.one_of([values_of(one, models) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | TEXT
    match schema.get("type"):
        case "object" if "properties" in schema:
            of = {
                name: SPEC if name == "spec" else values_of(one, models) for name, one in schema["properties"].items()
            }
            needed = set(schema.get("required", ()))
            return (
                st.fixed_dictionaries(
                    {name: value for name, value in of.items() if name in needed},
                    optional={name: value for name, value in of.items() if name not in needed},
                )
                | JSON
            )
        case "array":
            return st.lists(values_of(schema.get("items", {}), models), max_size=3)
        case str(kind) if kind in KINDS:
            return KINDS[kind] | JSON
        case _:
            return JSON


def body_of(operation: dict[str, Any], models: dict[str, Any]) -> st.SearchStrategy[Any] | None:
    said = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return values_of(said["schema"], models) if said is not None else None


def request_of(
    draw: Any, path: str, method: str, operation: dict[str, Any], bodies: st.SearchStrategy[Any] | None
) -> dict[str, Any]:
    query, headers = [], dict(TOKEN)
    for parameter in operation.get("parameters", ()):
        value = draw(TEXT | st.none())
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(value or "shop", safe=""))
        elif parameter["name"] == "follow" or value is None:
            continue  # what is followed has no end
        elif parameter["in"] == "query":
            query.append((parameter["name"], value))
        elif value.isascii() and value.isprintable():
            headers[parameter["name"]] = value
    body = draw(TEXT)
    if bodies is not None:
        body = json.dumps(draw(bodies)) if draw(st.integers(0, 9)) else body
        headers["content-type"] = "application/json"
    return {
        "method": method, "url": path, "params": query, "headers": headers, "content": body.encode(errors="replace"),
    }  # fmt: skip


class Target:
    """One control API on one loop, and what its document says."""

    def __init__(self, folder: Path) -> None:
        self.api = Api(folder)
        document = self.api.app.openapi()
        models = document["components"]["schemas"]
        self.operations = [
            (path, method, operation, body_of(operation, models))
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if path not in ENDS
        ]

    async def send(self, request: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.api.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client, asyncio.timeout(120):
            return await client.request(**request)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nothing_that_is_sent_is_answered_as_a_fault_of_ours(
    data: st.DataObject, target: Target, loop: asyncio.Runner
) -> None:
    request = request_of(data.draw, *data.draw(st.sampled_from(target.operations)))
    answer = loop.run(target.send(request))
    assert answer.status_code < 500, (request, answer.text)
