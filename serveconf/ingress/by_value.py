"""How parts of FastAPI that refuse to be pickled travel by value, as an app defined in a ``__main__`` script has to.

For the Python API, which pickles such classes with a pickler of its own (``serve.pickling``). Nothing is registered
globally: how anybody else copies or pickles these types is not changed.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import routing
from starlette.datastructures import State


def _reduce_state(state: Any) -> tuple[Any, ...]:
    """Starlette's State answers every attribute from a dict that it does not have yet while it is unpickled."""
    return State, (), {"_state": vars(state)["_state"]}, None, None, _set_attributes


def _set_attributes(state: Any, attributes: dict[str, Any]) -> None:
    vars(state).update(attributes)


def _reduce_included(route: Any) -> tuple[Any, ...]:
    """An included router holds a lock, and caches that are made again. Its parts may lead back to it, so they go as state."""
    parts = {"original_router": route.original_router, "include_context": route.include_context}
    return copyreg.__newobj__, (type(route),), parts, None, None, _set_parts  # type: ignore[attr-defined]


def _set_parts(route: Any, parts: dict[str, Any]) -> None:
    route.__init__(**parts)


REDUCERS: Mapping[type, Callable[[Any], tuple[Any, ...]]] = {State: _reduce_state} | (
    {routing._IncludedRouter: _reduce_included} if hasattr(routing, "_IncludedRouter") else {}
)
