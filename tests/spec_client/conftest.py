"""The fixture that users name, and modules written to a folder of their own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from serveconf.spec_fixture import serve_spec  # noqa: F401 - as pytest_plugins of a root conftest would bring it


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """``project("deployments: …", web="…")``: the spec and its modules; returns the spec file."""

    def write(spec: str, **modules: str) -> Path:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        file = tmp_path / "serve.yaml"
        file.write_text(textwrap.dedent(spec))
        return file

    return write
