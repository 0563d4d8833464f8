"""Code is looked at before anything is touched: whose imports take their time holds up no other."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from serveconf.cluster import preflight
from serveconf.cluster.preflight import EnginePreflight
from serveconf.reconcile.packages import Packages
from serveconf.reconcile.ports import Question
from serveconf.testing import FakeEngine, MemoryStore

pytestmark = pytest.mark.anyio

MANY = 40  # asyncio has 32 threads at most where nobody asks for more
WITHIN_S = 120.0


async def test_code_that_hangs_when_it_is_imported_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(MANY)

    def look(*args: Any) -> Any:
        together.wait(WITHIN_S)  # broken, and so an error, unless all of them are looked at at once
        return {"targets": [], "middlewares": []}

    monkeypatch.setattr(preflight, "_look", look)
    looker = EnginePreflight(FakeEngine(), "test", Packages(MemoryStore(), tmp_path))
    question = Question(code="", app_dir=None, targets=[], middlewares=[], runtime_env={}, timeout_s=1.0)
    found = await asyncio.gather(*(looker.inspect(question) for _ in range(MANY)))
    assert found == [([], [])] * MANY
