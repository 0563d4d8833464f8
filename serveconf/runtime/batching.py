"""``@serve.batch``: calls that come one by one are handed to the function as lists, and each gets its own result back.

The decorator and its options are here; ``batches`` forms the batches and runs them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeVar, overload

from serveconf.runtime.batches import Batches, Options
from serveconf.runtime.methods import method_owner

F = TypeVar("F", bound=Callable[..., Any])


class Batched(Protocol):
    """What the decorator adds to a function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def set_max_batch_size(self, size: int) -> None:
        """The most items of a batch, from the next batch on."""

    def set_batch_wait_timeout_s(self, seconds: float) -> None:
        """How long a batch may wait for more, from the next batch on."""


@overload
def batch(func: Callable[..., Any], /) -> Batched: ...


@overload
def batch(
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Callable[[Callable[..., Any]], Batched]: ...


def batch(
    func: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Any:
    """Have an ``async def`` function or method called with lists: one list for each of its parameters, all of one length.

    It returns a list of as many results; one that is an exception is raised for its caller alone. An async generator
    yields such lists, and each caller iterates over its own results; StopIteration among them ends that caller's.

    ``max_batch_size``: most items of a batch, or most of what ``batch_size_fn(items)`` makes of them.
    ``batch_wait_timeout_s``: how long a batch may wait for more. It waits only while more is to be expected: not where
    the replica was idle and nothing else is there.
    ``max_concurrent_batches``: how many may run at a time.
    ``.set_max_batch_size(n)`` and ``.set_batch_wait_timeout_s(s)`` of the decorated function change these live.
    Raises TypeError and ValueError for what is no such function or option.
    """
    options = Options(
        max_batch_size=max_batch_size,
        batch_wait_timeout_s=batch_wait_timeout_s,
        max_concurrent_batches=max_concurrent_batches,
        batch_size_fn=batch_size_fn,
    )

    def decorate(target: Callable[..., Any]) -> Any:
        if not callable(target):
            raise TypeError("@serve.batch decorates functions and methods")
        if not (inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)):
            raise TypeError("functions with @serve.batch must be 'async def'")
        return _batched(target, options)

    return decorate if func is None else decorate(func)


def _batched(func: Callable[..., Any], options: Options) -> Any:
    signature = inspect.signature(func)
    names = list(signature.parameters)
    of_function = Batches(func, options)
    attribute = f"__serveconf_batches_{func.__name__}__"

    def put(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner = method_owner(func, args)
        if owner is None:
            batches, own = of_function, names
        else:
            batches, own, args = _batches_of(owner, attribute, func, options), names[1:], args[1:]
        if not kwargs and len(args) == len(own):
            return batches.put(dict(zip(own, args, strict=True)))
        bound = signature.bind(*([owner] if owner is not None else []), *args, **kwargs)
        bound.apply_defaults()
        return batches.put({name: bound.arguments[name] for name in own})

    if inspect.isasyncgenfunction(func):

        @functools.wraps(func)
        def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            return _each(put(args, kwargs))

        return _with_setters(stream, options)

    @functools.wraps(func)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await put(args, kwargs)

    return _with_setters(call, options)


def _with_setters(wrapper: Any, options: Options) -> Any:
    wrapper.set_max_batch_size = options.set_max_batch_size
    wrapper.set_batch_wait_timeout_s = options.set_batch_wait_timeout_s
    wrapper._get_max_batch_size = lambda: options.max_batch_size
    wrapper._get_batch_wait_timeout_s = lambda: options.batch_wait_timeout_s
    return wrapper


def _batches_of(owner: Any, attribute: str, func: Callable[..., Any], options: Options) -> Batches:
    found: Batches | None = vars(owner).get(attribute)
    if found is None:
        found = vars(owner)[attribute] = Batches(func, options, owner)
    return found


async def _each(first: Any) -> AsyncGenerator[Any, None]:
    """The results of one caller. Each comes with a future of the next; None for the last."""
    following = first
    try:
        while following is not None:
            result, following = await following
            if following is not None:
                yield result
    finally:
        if following is not None:
            following.cancel()
