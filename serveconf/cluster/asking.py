"""Wait for an actor's answer on whatever event loop the caller has."""

from __future__ import annotations

import asyncio
from typing import Any

ANSWER_S = 10.0


async def ask(reference: Any, timeout_s: float | None = ANSWER_S) -> Any:
    """The value behind an ObjectRef. Raises RayError where the actor is dead, TimeoutError where it is silent."""
    return await asyncio.wait_for(asyncio.wrap_future(reference.future()), timeout_s)
