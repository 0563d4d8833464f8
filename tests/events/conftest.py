"""Async tests run on asyncio."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The controller is written for asyncio."""
    return "asyncio"
