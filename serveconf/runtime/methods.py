"""Whether a decorated function is called as a method, told when it is called: a decorator in a class body cannot know."""

from __future__ import annotations

from typing import Any


def method_owner(func: Any, args: tuple[Any, ...]) -> Any | None:
    """The instance whose method ``func`` is, which is then the first of ``args``; None for a plain function."""
    if not args:
        return None
    found = getattr(type(args[0]), getattr(func, "__name__", ""), None)
    while found is not None:
        if found is func:
            return args[0]
        found = getattr(found, "__wrapped__", None)
    return None
