"""Builds Starlette-style middlewares: a class or factory that is called with the next ASGI app, then its arguments.

``routing.Middleware`` comes in, an ASGI app around another one goes out. Whatever is wrong with the user's middleware
shows here, while a generation is staged, as ``CodeFailed`` with the user's frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.code.by_value import by_value_file, read_by_value
from serveconf.errors import CodeFailed
from serveconf.proxy.importing import CodeFolders, import_attribute, user_traceback
from serveconf.routing import Middleware
from serveconf.wire import LENT, SENDS_FILES, need_task

MiddlewareFactory = Callable[..., ASGIApp]
Imported = tuple[MiddlewareFactory, Sequence[Any], dict[str, Any]]


class ImportMiddleware(Protocol):
    """Turns the description of a middleware into what to call, its arguments and keyword arguments."""

    def __call__(self, middleware: Middleware, /) -> Imported: ...


class MiddlewareImporter:
    """The real importer. ``folder_of`` gives the folder of a code package on this node by its digest."""

    def __init__(self, folder_of: Callable[[str], str]) -> None:
        self._folder_of = folder_of
        self._folders = CodeFolders()

    def __call__(self, middleware: Middleware, /) -> Imported:
        """Import it. Raises CodeFailed."""
        if middleware.code is None:
            return self._load(middleware, None)
        folder = self._folder_of(middleware.code)
        return self._folders.run(folder, lambda: self._load(middleware, Path(folder)))

    def use_only(self, digests: Iterable[str]) -> None:
        """No other code packages are served from now on, or just being replaced."""
        self._folders.use_only([self._folder_of(digest) for digest in digests])

    def _load(self, middleware: Middleware, folder: Path | None) -> Imported:
        try:
            file = by_value_file(middleware.import_path)
            factory = read_by_value(folder, file) if folder and file else import_attribute(middleware.import_path)
        except (Exception, SystemExit) as error:  # user code: it may raise anything
            raise _failed(middleware, "cannot be imported", error) from error
        return cast(MiddlewareFactory, factory), middleware.args, middleware.kwargs


def build_stack(middlewares: Sequence[tuple[Middleware, Imported]], innermost: ASGIApp) -> ASGIApp:
    """The middlewares around ``innermost``; the first is the outermost. Raises CodeFailed."""
    app: ASGIApp = _with_plain_bodies(innermost)
    for middleware, (factory, args, kwargs) in reversed(middlewares):
        try:
            app = factory(app, *args, **kwargs)
        except Exception as error:  # user code: it may raise anything
            raise _failed(middleware, "cannot be built", error) from error
        if not callable(app):
            raise CodeFailed(
                f"middleware {middleware.import_path} gave a {type(app).__name__}, which is no ASGI app",
                hint="a middleware is called with the next ASGI app, then its arguments, and is or returns an ASGI app",
            )
    return in_task(_with_plain_requests(app))


def in_task(app: ASGIApp) -> ASGIApp:
    """``app``, run in a task of asyncio's: the user's code may ask for the one that it runs in."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        await need_task()
        await app(scope, receive, send)

    return run


def _with_plain_bodies(app: ASGIApp) -> ASGIApp:
    """``app`` for whoever knows ASGI only: what the wire gives as views, so as not to copy it, or as files becomes bytes."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop(SENDS_FILES, None)

        def plain(message: Message) -> Awaitable[None]:
            return send(plain_body(message))

        await app(scope, receive, plain)

    return run


def _with_plain_requests(app: ASGIApp) -> ASGIApp:
    """``app`` for whoever knows ASGI only: what the edge has received into memory of its own becomes bytes."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        async def plain() -> Message:
            message = await receive()
            if message.pop(LENT, False):
                message["body"] = bytes(message["body"])
            return message

        await app(scope, plain, send)

    return run


def plain_body(message: Message) -> Message:
    """The same event, its body as ASGI wants it: bytes."""
    body = message.get("body", b"")
    return message if type(body) is bytes else {**message, "body": bytes(body)}


def _failed(middleware: Middleware, what: str, error: BaseException) -> CodeFailed:
    message = f"middleware {middleware.import_path} {what}: {type(error).__name__}: {error}"
    return CodeFailed(message, traceback=user_traceback(error))
