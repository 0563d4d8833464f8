"""A client for apps in this process, and modules written to a folder of their own."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for another HTTP library than the one this project depends on
    from starlette.testclient import TestClient


@pytest.fixture
def client() -> Callable[..., TestClient]:
    """``client(app, root_path="/p")``: paths are asked in full, as the proxy gives them."""

    def make(app: Any, root_path: str = "") -> TestClient:
        return TestClient(app, root_path=root_path, raise_server_exceptions=False, follow_redirects=False)

    return make


@pytest.fixture
def code_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for modules; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def write(code_dir: Path) -> Callable[[str, str], Path]:
    """``write("shop/catalog.py", source)``"""

    def write_file(name: str, source: str) -> Path:
        path = code_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    return write_file
