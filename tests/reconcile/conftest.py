"""Async tests run on asyncio, each in a world of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import World


@pytest.fixture
def anyio_backend() -> str:
    """The controller is written for asyncio."""
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world of one node."""
    return World(tmp_path)
