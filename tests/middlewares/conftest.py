"""The clock of the guards, for their tests."""

from __future__ import annotations

import pytest
from stopped_clock import Clock

from serveconf.middlewares import breaker, rate, tokens


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (rate, breaker, tokens):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock
