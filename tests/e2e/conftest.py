"""One cluster for all tests of this folder, started by the product itself and, at the end, stopped by it."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from place import Done, Place, until

NUMBERS = itertools.count(1)
KEEPER = """
name: keeper
http_options: {port: %d}
deployments:
  - {name: keeper, import_path: "keeper:app", route_prefix: /keeper}
"""
PLAIN = """
    import os
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    def answer() -> dict:
        return {"said": "%s", "pid": os.getpid()}
    """


@dataclass
class Stack:
    """One stack of the shared cluster with a folder of its own. Its prefixes begin with its name."""

    place: Place
    name: str
    folder: Path

    @property
    def file(self) -> Path:
        """The spec."""
        return self.folder / "serve.yaml"

    @property
    def url(self) -> str:
        """Under which its prefixes are."""
        return f"{self.place.url}/{self.name}"

    def code(self, module: str, text: str) -> None:
        """Write a module."""
        (self.folder / f"{module}.py").write_text(textwrap.dedent(text))

    def says(self, module: str, word: str) -> None:
        """Write a module whose app answers with a word and its pid."""
        self.code(module, PLAIN % word)

    def spec(self, *deployments: str, more: str = "") -> None:
        """Write the spec; each deployment is the inside of a YAML flow mapping, $ stands for the stack's name."""
        lines = [f"name: {self.name}", f"http_options: {{port: {self.place.http_port}{more}}}", "deployments:"]
        lines += [f"  - {{{deployment.replace('$', self.name)}}}" for deployment in deployments]
        self.file.write_text("\n".join(lines) + "\n")

    def apply(self, *options: str) -> Any:
        """Apply it, which must go well; the result."""
        return self.place.ok("apply", self.file, "-o", "json", *options).json

    def try_apply(self, *options: str) -> Done:
        """Apply it, however that ends."""
        return self.place.run("apply", self.file, *options)

    def pids(self, deployment: str) -> set[int]:
        """The processes of a deployment."""
        return self.place.pids(self.name, deployment)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """A running cluster with one stack that keeps its proxy up; stopped at the end, when nothing of it may be left."""
    place = Place()
    folder = place.root / "keeper"
    folder.mkdir()
    (folder / "keeper.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    (folder / "serve.yaml").write_text(KEEPER % place.http_port)
    try:
        place.ok("apply", folder / "serve.yaml")
        yield place
        assert place.ok("shutdown", "-o", "json").json == {"stopped": True}
        until(lambda: not place.processes(), "everything has ended after shutdown")
    finally:
        place.run("shutdown")
        place.close()


@pytest.fixture
def keeper(place: Place) -> Path:
    """The spec of the stack that is always there."""
    return place.root / "keeper" / "serve.yaml"


@pytest.fixture
def stack(place: Place, tmp_path: Path) -> Iterator[Stack]:
    """A stack with a name that no other test has, taken away at the end."""
    stack = Stack(place, f"s{next(NUMBERS)}", tmp_path)
    yield stack
    place.run("delete", "--stack", stack.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Ray."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)
