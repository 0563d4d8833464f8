"""Commands about one stack: the only one is meant; where there are several they say which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serveconf import launch, submit
from serveconf.cli.parser import app


class Client:
    """A control API that tells of these stacks, and what it was asked."""

    def __init__(self, **stacks: list[str]) -> None:
        self.stacks = stacks
        self.asked: list[tuple[str, str]] = []

    def status(self) -> Any:
        stacks = [{"name": n, "deployments": [{"name": d} for d in has]} for n, has in self.stacks.items()]
        return {"stacks": stacks}

    def history(self, stack: str) -> list[Any]:
        self.asked.append(("history", stack))
        return []

    def resume(self, stack: str) -> None:
        self.asked.append(("resume", stack))

    def logs(self, stack: str, deployment: str, **options: Any) -> Iterator[Any]:
        self.asked.append(("logs", stack))
        return iter(())

    def begin(self, stack: str, verb: str, body: Any) -> str:
        self.asked.append((verb, stack))
        return "operation"


RESULT = {"outcome": "applied", "changed": True, "receipt": {"failed": 0}}
COMMANDS = {
    "history": ("history",),
    "rollback": ("rollback",),
    "resume": ("resume",),
    "logs": ("logs", "web"),
    "delete": ("delete", "web"),
}


def call(client: Client, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr(launch, "find", lambda address, token: client)
    monkeypatch.setattr(submit, "follow", lambda *given: RESULT)
    return CliRunner().invoke(app, [*arguments, "-o", "json"])


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("name", ["shop", "default", "prod-2"])
def test_the_only_stack_is_meant(verb: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(**{name: ["web"]})
    assert call(client, monkeypatch, *COMMANDS[verb]).exit_code == 0
    assert client.asked == [(verb, name)]


@pytest.mark.parametrize("verb", COMMANDS)
def test_of_several_the_named_one_is_meant_and_without_a_name_they_are_listed(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(shop=["web"], blog=["web"])
    refused = call(client, monkeypatch, *COMMANDS[verb])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"] == {
        "code": "stack",
        "message": "there are 2 stacks: shop, blog",
        "hint": "say which one is meant with --stack NAME",
    }
    assert client.asked == []
    assert call(client, monkeypatch, *COMMANDS[verb], "--stack", "blog").exit_code == 0
    assert client.asked == [(verb, "blog")]


@pytest.mark.parametrize("verb", ["logs", "delete"])
def test_of_several_the_only_one_with_the_deployment_is_meant(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(shop=["web"], blog=["posts"], more=[])
    assert call(client, monkeypatch, *COMMANDS[verb]).exit_code == 0
    assert client.asked == [(verb, "shop")]


def test_where_there_is_none_the_control_api_says_so_of_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    call(client, monkeypatch, "history")
    assert client.asked == [("history", "default")]
