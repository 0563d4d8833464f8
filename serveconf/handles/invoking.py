"""Calling a served object by method name, wherever the call came from: sync code in threads, generators step by step."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Mapping
from enum import Enum, auto
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from starlette.concurrency import run_in_threadpool

from serveconf.errors import AuthorError
from serveconf.ingress.callables import iterate_in_threads

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)


async def invoke(servable: Any, method_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the method gives. Raises what it raises; TypeError for a generator, which only a stream can carry."""
    result = await _call(_method(servable, method_name), args, kwargs)
    if isinstance(result, Generator | AsyncGenerator):
        await _close(result)
        raise TypeError(f"{method_name} is a generator: call it with handle.options(stream=True)")
    return result


async def invoke_stream(
    servable: Any, method_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> AsyncGenerator[Any, None]:
    """What the generator yields. TypeError for a method that is none."""
    result = await _call(_method(servable, method_name), args, kwargs)
    if isinstance(result, Generator):
        result = iterate_in_threads(result)
    if not isinstance(result, AsyncIterable):
        raise TypeError(f"{method_name} was called with stream=True, and is no generator")
    try:
        async for item in result:
            yield item
    finally:
        await _close(result)


async def _close(result: Any) -> None:
    if isinstance(result, AsyncGenerator):
        await result.aclose()
    elif isinstance(result, Generator):
        result.close()


def _method(servable: Any, name: str) -> Callable[..., Any]:
    """Only of the object itself: what any object has is nothing that a deployment offers."""
    found = servable if name == "__call__" and isinstance(servable, _FUNCTIONS) else getattr(servable, name, None)
    if found is None or not callable(found) or (name.startswith("__") and name != "__call__"):
        raise AuthorError(f"{_name(servable)} has no method {name}")
    method: Callable[..., Any] = found
    return method


def _name(servable: Any) -> str:
    return getattr(servable, "__qualname__", None) or type(servable).__qualname__


async def _call(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    function = getattr(method, "__func__", method)
    match _known(function) if isinstance(function, FunctionType) else _kind(function):
        case _Kind.ASYNC:
            return await method(*args, **kwargs)
        case _Kind.GENERATOR:
            return method(*args, **kwargs)
        case _Kind.SYNC:
            result = await run_in_threadpool(method, *args, **kwargs)
            return await result if inspect.isawaitable(result) else result


class _Kind(Enum):
    ASYNC = auto()
    GENERATOR = auto()
    SYNC = auto()


def _kind(method: Callable[..., Any]) -> _Kind:
    function = method if inspect.isroutine(method) else getattr(method, "__call__", method)  # noqa: B004 - the method itself
    if inspect.iscoroutinefunction(function):
        return _Kind.ASYNC
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return _Kind.GENERATOR
    return _Kind.SYNC


_known = lru_cache(maxsize=1024)(_kind)  # of functions, for each call
