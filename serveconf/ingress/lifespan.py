"""The ASGI lifespan protocol of one app: startup, shutdown, and the state that it hands to every request.

An app that raises or returns on the lifespan scope without a word does not support it, and is served all the same
(ASGI lifespan specification, "Scope").
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.types import ASGIApp, Message

from serveconf.errors import CodeFailed
from serveconf.ingress.failures import code_failed

log = logging.getLogger("serveconf.replica")

_LAST_WORD_S = 1.0  # an app that said startup.failed usually raises right after; its exception tells more


class Lifespan:
    """Runs the app's lifespan in one task from ``startup`` to ``shutdown``, as cancel scopes held across it need."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[BaseException | None] | None = None
        self._started = False

    async def startup(self) -> None:
        """Raises ``CodeFailed`` where the app says that it cannot start."""
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._ask("lifespan.startup")
        if answer is None:
            ended = self._task.result()
            self._task = None
            if ended is not None and not isinstance(ended, Exception):
                raise code_failed("lifespan startup", ended)
            log.debug("app has no lifespan")
        elif answer["type"] == "lifespan.startup.failed":
            raise await self._failed(answer)
        else:
            self._started = True

    async def shutdown(self) -> None:
        """Never raises: what goes wrong is logged."""
        if self._task is None or self._task.done():
            return
        if not self._started:  # its startup was given up on; it would not hear of a shutdown
            self._task.cancel()
            return
        answer = await self._ask("lifespan.shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            log.error("lifespan shutdown failed: %s", answer.get("message", ""))
        await self._end()

    async def _run(self) -> BaseException | None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - a SystemExit in user code must not end the loop of the replica
            return exc
        return None

    async def _send(self, message: Message) -> None:
        if not message["type"].startswith("lifespan."):
            raise RuntimeError(f"{message['type']} sent on the lifespan scope")  # an app that takes it for a request
        self._answers.put_nowait(message)

    async def _ask(self, question: str) -> Message | None:
        """What the app answers; None where it ended without an answer."""
        assert self._task is not None
        self._inbox.put_nowait({"type": question})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None if self._answers.empty() else self._answers.get_nowait()

    async def _failed(self, answer: Message) -> CodeFailed:
        exc = await self._end()
        if exc is not None:
            return code_failed("lifespan startup", exc)
        text = str(answer.get("message", "")).strip()
        return CodeFailed(f"lifespan startup: {text.splitlines()[-1] if text else 'failed'}", traceback=text)

    async def _end(self) -> BaseException | None:
        assert self._task is not None
        task, self._task = self._task, None
        await asyncio.wait({task}, timeout=_LAST_WORD_S)
        if not task.done():
            task.cancel()
            return None
        return None if task.cancelled() else task.result()
