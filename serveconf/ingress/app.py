"""What a replica runs: any served object behind one ASGI app, with its start, its health, its reconfiguration and its end.

The replica calls ``build`` and then ``startup`` on the loop that will serve, so that what a constructor makes for
asyncio belongs to that loop. Order: ``__init__``, ``reconfigure``, lifespan startup; the end runs backwards. An
``async def __init__`` is begun by ``startup``, which awaits it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.code.by_value import Bound
from serveconf.errors import AuthorError, ServeconfError
from serveconf.ingress.callables import as_app
from serveconf.ingress.class_routes import is_ingress, routed_app
from serveconf.ingress.deployment import Application, Deployment
from serveconf.ingress.failures import code_failed
from serveconf.ingress.files import passes_files
from serveconf.ingress.graph import node_of
from serveconf.ingress.kinds import Kind, Shape, required_parameters, shape_of
from serveconf.ingress.lifespan import Lifespan

log = logging.getLogger("serveconf.replica")


class ServedApp:
    """One served object. ``app`` answers http and websocket scopes; its lifespan is run from here."""

    def __init__(
        self,
        *,
        app: ASGIApp,
        kind: Kind,
        name: str,
        instance: object | None,
        is_asgi: bool,
        user_config: Any,
        init: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.app = _Slot(app, routes=is_asgi)
        self.kind = kind
        self.state: dict[str, Any] = {}  # what lifespan start-up yielded, for the scope of every request
        self._name = name
        self._instance = instance
        self._user_config = user_config
        self._init = init  # of a class whose constructor is to be awaited
        self._lifespan = Lifespan(app, self.state) if is_asgi else None

    async def startup(self) -> None:
        """Raises ``CodeFailed`` or ``AuthorError``; then nothing of it is to be served."""
        init, self._init = self._init, None
        if init is not None:
            await _initialize(init, self._name)
        if self._user_config is not None:
            await self.reconfigure(self._user_config)
        if self._lifespan is not None:
            await self._lifespan.startup()

    async def shutdown(self) -> None:
        """Lifespan shutdown, then the instance's end. Never raises."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.shutdown()
        self._release()

    async def reconfigure(self, user_config: Any) -> None:
        """Hand ``user_config`` to the object's own ``reconfigure``; it decides what None means when a config is taken away."""
        handler = getattr(self._instance, "reconfigure", None)
        if handler is not None:
            try:
                await _call(handler, user_config)
            except Exception as exc:  # user code: it may raise anything
                raise code_failed(f"{self._name}.reconfigure", exc) from exc
        elif user_config is not None:
            raise AuthorError(
                f"user_config is given, but {self._name} has no reconfigure(user_config)",
                hint="define reconfigure(self, user_config) on the class, or take user_config away",
            )

    @property
    def servable(self) -> object | None:
        """The instance of a class, or the function: what calls by handle reach. None when it has ended."""
        return self._instance

    @property
    def passes_files(self) -> bool:
        """Whether a ``FileResponse`` may leave as ``http.response.pathsend``."""
        return passes_files(self.app.app)

    @property
    def has_check_health(self) -> bool:
        """Whether the object has an opinion on its own health."""
        return hasattr(self._instance, "check_health")

    async def check_health(self) -> None:
        """Return where the object is well; raise what its ``check_health`` raises where it is not."""
        if self.has_check_health:
            await _call(getattr(self._instance, "check_health"))  # noqa: B009 - the instance is an object of any type

    def _release(self) -> None:
        """End the instance: its ``__del__`` runs now, not whenever a last reference happens to go."""
        instance, self._instance = self._instance, None
        self.app.app = _ended
        finalize = getattr(type(instance), "__del__", None)
        if instance is None or finalize is None:
            return
        alive = _weakly(instance)
        del instance
        gc.collect()  # routes, closures and the instance hold each other
        kept = alive()
        if kept is not None:
            try:
                finalize(kept)
            except Exception:  # user code at its very end: the replica still has to end in order
                log.exception("__del__ of %s raised", self._name)


def _weakly(instance: object) -> Callable[[], object | None]:
    try:
        return weakref.ref(instance)
    except TypeError:  # __slots__ without __weakref__: it is held, and ended by hand
        return lambda: instance


def build(
    target: object,
    *,
    factory: bool = False,
    init_args: Sequence[Any] = (),
    init_kwargs: Mapping[str, Any] | None = None,
    user_config: Any = None,
    bound: str = "",
    handle: Callable[[str], Any] | None = None,
    routed: bool = True,
) -> ServedApp:
    """Construct what ``target`` names. Blocks as long as its constructor does.

    Of an application the deployment ``bound`` is constructed, the ingress where it is empty; ``handle`` gives, by name,
    what its constructor gets for the deployments that it calls. What is bound to another, or not ``routed``, is called by
    handle alone, and may be a class of methods.

    The options of a Deployment are not looked at here: they were merged under the YAML's before.
    Raises ``AuthorError`` for what cannot be served and ``CodeFailed`` for what raised.
    """
    init_kwargs = init_kwargs or {}
    if isinstance(target, Bound):
        init_args, init_kwargs, target = target.args, target.kwargs, target.target
    kind: Kind | None = "deployment" if isinstance(target, Deployment) else None
    if isinstance(target, Deployment):
        target = target.func_or_class
    if factory:
        target = call_factory(target, init_args, init_kwargs)
        init_args, init_kwargs = (), {}
        if isinstance(target, Deployment):
            spec = target.spec()
            target, init_args, init_kwargs, kind = target.func_or_class, spec.init_args, spec.init_kwargs, "deployment"
    if isinstance(target, Application):
        if init_args or init_kwargs:
            raise AuthorError("init_args and init_kwargs are given, and the application is bound to its own already")
        node = node_of(target, bound)
        init_args, init_kwargs = node.arguments(handle or _no_handles)
        target, kind = node.deployment.func_or_class, "deployment"
    by_handle = (bool(bound) or not routed) and has_only_methods(target)
    shape: Shape = "class" if by_handle else shape_of(target)
    instance: object = target
    init: Callable[[], Awaitable[None]] | None = None
    if shape == "class" and inspect.iscoroutinefunction(getattr(target, "__init__")):  # noqa: B009 - any type
        instance, init = _begin(target, init_args, init_kwargs)
    elif shape == "class":
        instance = _construct(target, init_args, init_kwargs)
    elif init_args or init_kwargs:
        refuse_arguments(target)
    app, is_asgi = (as_app(_not_here), False) if by_handle else _asgi_app(target, instance, shape)
    return ServedApp(
        app=app,
        kind=kind or kind_of(shape),
        name=name_of(target),
        instance=instance,
        is_asgi=is_asgi,
        user_config=user_config,
        init=init,
    )


def call_factory(target: object, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]) -> object:
    """What the factory returns."""
    if not callable(target):
        raise AuthorError(
            f"factory: true, but {name_of(target)} is not callable", hint="take factory away to serve it as it is"
        )
    made = _construct(target, builder_arguments(target, init_args, init_kwargs), init_kwargs)
    if inspect.iscoroutine(made):
        made.close()
        raise AuthorError(
            f"the factory {name_of(target)} is async",
            hint="make it a plain function and do what must be awaited in the app's lifespan",
        )
    return made


def builder_arguments(target: Any, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """The arguments of a builder: an empty mapping where it takes one and none is given, or the pydantic model that it says."""
    if len(init_args) > 1 or init_kwargs or isinstance(target, type) or not inspect.isfunction(target):
        return init_args
    if not init_args:
        if len(required_parameters(target) or ()) != 1:
            return init_args
        init_args = [{}]
    try:
        kind = next((get_type_hints(target).get(name) for name in inspect.signature(target).parameters), None)
    except Exception:  # noqa: BLE001 - annotations are any code; what they say is then not known
        return init_args
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(init_args[0], dict):
        try:
            return [kind.model_validate(init_args[0])]
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise AuthorError(f"the arguments of {name_of(target)}: {wrong}", hint="see init_args") from error
    return init_args


def has_only_methods(target: object) -> bool:
    """Whether it is a class that other deployments may call, and that no request could."""
    return (
        isinstance(target, type) and not is_ingress(target) and not any("__call__" in vars(c) for c in target.__mro__)
    )


def _not_here() -> Response:
    return Response("reached by handles alone\n", 404, media_type="text/plain")


def _no_handles(name: str) -> Any:
    raise AuthorError(f"the application calls {name}, and there are no handles here")


def refuse_arguments(target: object) -> None:
    """Arguments that nobody would ever see are a mistake."""
    raise AuthorError(
        f"init_args and init_kwargs are given, but {name_of(target)} is not constructed",
        hint="set factory: true if it returns the app",
    )


def kind_of(shape: Shape) -> Kind:
    """The contract's word for a shape."""
    match shape:
        case "asgi3" | "asgi2":
            return "asgi"
        case "class":
            return "class"
        case "callable":
            return "function"


def name_of(target: object) -> str:
    """How messages call it."""
    name = getattr(target, "__qualname__", None)
    return name if isinstance(name, str) else type(target).__qualname__


def _construct(target: Any, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]) -> object:
    try:
        return target(*init_args, **init_kwargs)
    except ServeconfError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # user code: it may raise anything, SystemExit too
        raise code_failed(f"{name_of(target)}()", exc) from exc


def _begin(
    cls: Any, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]
) -> tuple[object, Callable[[], Awaitable[None]]]:
    """The instance of a class with an ``async def __init__``, and what is to be awaited before it is used."""
    instance = _construct(functools.partial(cls.__new__, cls), init_args, init_kwargs)
    return instance, functools.partial(cls.__init__, instance, *init_args, **init_kwargs)


async def _initialize(init: Callable[[], Awaitable[None]], name: str) -> None:
    """Await an ``async def __init__``, as Ray Serve does."""
    try:
        await init()
    except (ServeconfError, asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # user code: it may raise anything, SystemExit too
        raise code_failed(f"{name}()", exc) from exc


def _asgi_app(target: object, instance: Any, shape: Shape) -> tuple[ASGIApp, bool]:
    """The app, and whether it may have a lifespan."""
    if shape == "class":
        if is_ingress(target):
            return routed_app(instance), True
        shape = shape_of(instance)
    match shape:
        case "asgi3":
            return instance, True
        case "asgi2":
            return _from_asgi2(instance), True
    return as_app(instance), False


def _from_asgi2(target: Callable[[Scope], Callable[[Receive, Send], Any]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await target(scope)(receive, send)

    return app


class _Slot:
    """The app, for whoever serves it: letting go of it here lets go of it everywhere.

    ``routes``: the bare prefix is the app's ``/``. Starlette sees an empty path there and would redirect to the prefix
    with a slash; a callable, which has no routes, is given the path as it came.
    """

    def __init__(self, app: ASGIApp, *, routes: bool) -> None:
        self.app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._routes and scope.get("root_path") and scope["path"] == scope["root_path"]:
            scope = {**scope, "path": scope["path"] + "/"}
        await self.app(scope, receive, send)


async def _ended(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the app was shut down")


async def _call(func: Callable[..., Any], *args: Any) -> Any:
    """Control calls have threads of their own: a pool full of requests does not delay them."""
    if inspect.iscoroutinefunction(func):
        return await func(*args)
    result = await asyncio.to_thread(func, *args)
    return await result if inspect.isawaitable(result) else result
