"""Handles in a script: its own connections to replicas, on a loop in a thread, by the table that the controller gives.

They go over the same sockets as those of replicas, so the script has to run on the controller's host.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import uuid
from base64 import b64decode
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from serveconf.client import Client
from serveconf.errors import OperatorError, Unreachable
from serveconf.handles.calls import Caller
from serveconf.handles.following import Following
from serveconf.proxy.pool import ReplicaPool
from serveconf.serve.session import session
from serveconf.wire.node_tls import node_tls

T = TypeVar("T")

LOOK_EVERY_S = 0.25


class Driver:
    """One controller's deployments, as this process calls them. Raises OperatorError on another host."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._seen = ""  # digest of the table that was read last
        told = client.handles()
        if told["host"] != socket.gethostname():
            raise OperatorError(
                f"handles in a script work on the controller's host, {told['host']}, alone",
                hint="call the deployment over HTTP",
                code="other_host",
            )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="serveconf handles", daemon=True).start()
        self._name = uuid.uuid4().hex
        self._pool = ReplicaPool(
            node_id=told["node_id"], secret=bytes.fromhex(told["secret"]), tls=node_tls(os.environ)
        )
        self._following = self._run(self._follow())

    def caller(self) -> Caller:
        """Who makes the calls."""
        return self._following.caller()

    def refresh(self) -> None:
        """What this process has just applied is what its next call meets."""
        self._run(self._following.refresh())

    def close(self) -> None:
        """Let go of every replica."""
        self._run(self._following.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _follow(self) -> Following:
        return Following(self._pool, self._table, every_s=LOOK_EVERY_S)

    async def _table(self) -> bytes | None:
        """The table, where it is another one; what this process asks for is told on the way."""
        report = await self._pool.reporter.report(0)
        loads = {name: msgspec.structs.asdict(load) for name, load in report.loads.items()}
        try:
            told = await asyncio.to_thread(self.client.handles, self._seen, {"script": self._name, "loads": loads})
        except (Unreachable, RuntimeError):  # RuntimeError: the process ends, or its session was closed
            return None
        self._seen = told["digest"]
        return b64decode(told["table"]) if told["table"] is not None else None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_lock = threading.Lock()
_driver: Driver | None = None


def the_caller() -> Caller:
    """Who makes the calls of this script; connects it where it is not."""
    driver = _driver or connect()
    return driver.caller()


def connect() -> Driver:
    """The driver of this process's session."""
    global _driver
    client = session().client
    with _lock:
        if _driver is not None and _driver.client is not client:
            _driver.close()
            _driver = None
        if _driver is None:
            _driver = Driver(client)
        return _driver


def refresh() -> None:
    """After a change of this process's own; nothing where it has called nobody yet."""
    if _driver is not None:
        connect().refresh()


def disconnect() -> None:
    """Everything is shut down."""
    global _driver
    with _lock:
        known, _driver = _driver, None
    if known is not None:
        known.close()
