"""``@serve.multiplexed``: several models take turns in one replica's memory; the one that was used longest ago goes first.

What comes and goes is told to the replica, so that requests for a model are sent to a replica that has it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from serveconf.runtime.context import ModelsHeld, the_replica
from serveconf.runtime.methods import method_owner

log = logging.getLogger("serveconf.replica")

Loader = Callable[..., Awaitable[Any]]
L = TypeVar("L", bound=Loader)
_is_used = False


def is_used() -> bool:
    """Whether any code in this process takes turns with models."""
    return _is_used


@overload
def multiplexed(func: L, /) -> L: ...


@overload
def multiplexed(*, max_num_models_per_replica: int = 3) -> Callable[[L], L]: ...


def multiplexed(func: L | None = None, /, *, max_num_models_per_replica: int = 3) -> L | Callable[[L], L]:
    """Keep what ``async def load(model_id)``, a function or a method, has loaded, and load each model once at a time.

    At most ``max_num_models_per_replica`` are kept; -1: any number. One that has to go loses its last reference here, so
    that its ``__del__`` runs as soon as no request uses it; an ``async def __del__`` is awaited.
    Raises TypeError for what is no such function.
    """
    if not isinstance(max_num_models_per_replica, int) or isinstance(max_num_models_per_replica, bool):
        raise TypeError("max_num_models_per_replica must be an integer")
    if max_num_models_per_replica != -1 and max_num_models_per_replica <= 0:
        raise ValueError("max_num_models_per_replica must be positive, or -1 for no limit")

    def decorate(load: L) -> L:
        target: Any = load
        if not callable(target) or not inspect.iscoroutinefunction(target):
            raise TypeError("@serve.multiplexed decorates an async function or method that loads a model by its id")
        if not 1 <= len(inspect.signature(load).parameters) <= 2:
            raise TypeError("a function with @serve.multiplexed takes the model id and nothing else")
        return _with_models(load, max_num_models_per_replica)

    return decorate if func is None else decorate(func)


def _with_models(load: L, limit: int) -> L:
    of_function = Models(load, limit)
    attribute = f"__serveconf_models_{load.__name__}__"

    @functools.wraps(load)
    async def get(*args: Any, **kwargs: Any) -> Any:
        owner = method_owner(load, args)
        if owner is None:
            models = of_function
        else:
            args = args[1:]
            models = vars(owner).get(attribute)
            if models is None:  # a weak reference: the instance holds its models, and these must not hold it
                models = vars(owner)[attribute] = Models(_bound_weakly(load, owner), limit)
        given = [*args, *kwargs.values()]
        if len(given) != 1:
            raise TypeError(f"{load.__name__} takes one model id, {len(given)} were given")
        return await models.get(given[0])

    return get  # type: ignore[return-value]


def _bound_weakly(load: Loader, owner: Any) -> Loader:
    alive = weakref.ref(owner)

    async def bound(model_id: str) -> Any:
        return await load(alive(), model_id)

    return bound


class Models:
    """The models of one loader, the least recently used first."""

    def __init__(self, load: Loader, limit: int) -> None:
        global _is_used
        _is_used = True
        self._load = load
        self._limit = limit
        self._told: dict[str, ModelsHeld] = {}  # who has heard that it came
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self._being_made = 0  # these have their room already
        self._changed = asyncio.Condition()

    async def get(self, model_id: object) -> Any:
        """The model, loaded where it is not there. What its loader raises goes to all who wait for it; nothing is kept."""
        if not isinstance(model_id, str):
            raise TypeError(f"a model id is a string, not {model_id!r}")
        if not model_id:
            raise ValueError("the model id is empty: give the request the header serve_multiplexed_model_id")
        if model_id in self._loaded:
            self._loaded.move_to_end(model_id)
            return self._loaded[model_id]
        task = self._loading.get(model_id)
        if task is None:
            self._tell_came(model_id)
            task = self._loading[model_id] = asyncio.create_task(self._make(model_id))
            task.add_done_callback(functools.partial(self._ended, model_id))
        return await asyncio.shield(task)  # who leaves does not take the model from the others that wait for it

    async def _make(self, model_id: str) -> Any:
        async with self._changed:
            while 0 < self._limit <= len(self._loaded) + self._being_made:
                if self._loaded:
                    self._tell_went(next(iter(self._loaded)))
                    await _let_go(self._loaded)
                else:
                    await self._changed.wait()
            self._being_made += 1
        try:
            model = self._loaded[model_id] = await self._load(model_id)
            return model
        finally:
            self._being_made -= 1
            async with self._changed:
                self._changed.notify_all()

    def _ended(self, model_id: str, task: asyncio.Task[Any]) -> None:
        del self._loading[model_id]
        if model_id not in self._loaded:
            self._tell_went(model_id)
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody does any more it is nobody's

    def __reduce__(self) -> tuple[Any, ...]:
        """Code that travels by value takes its loader along, and no models."""
        return Models, (self._load, self._limit)

    def __del__(self) -> None:
        """With the instance whose models they are; a replica's own lives as long as the replica."""
        for model_id in list(self._told):
            self._tell_went(model_id)

    def _tell_came(self, model_id: str) -> None:
        replica = the_replica()
        if replica is not None and replica.models is not None:
            self._told[model_id] = replica.models
            replica.models.came(model_id)

    def _tell_went(self, model_id: str) -> None:
        held = self._told.pop(model_id, None)
        if held is not None:
            held.went(model_id)


async def _let_go(models: OrderedDict[str, Any]) -> None:
    """Forget the least recently used model. What of it is in a cycle ends now, not at some later collection."""
    _, model = models.popitem(last=False)
    finalize = getattr(type(model), "__del__", None)
    if inspect.iscoroutinefunction(finalize):
        try:
            await finalize(model)
        except Exception:  # user code at a model's end: the next model is loaded all the same
            log.exception("__del__ of a model raised")
        return
    try:
        alive = weakref.ref(model)
    except TypeError:
        return
    del model
    if alive() is not None:
        await asyncio.to_thread(gc.collect)
