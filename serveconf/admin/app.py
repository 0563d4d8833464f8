"""The control API as a FastAPI app over ``reconcile.control.ControlPlane``; it adds transport and nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from serveconf import __version__
from serveconf.admin import models
from serveconf.admin.changing import MakeWay, Shutdown, changing_router, token_router
from serveconf.admin.events import events_router
from serveconf.admin.failures import answer_error, answer_fault, answer_http_error, answer_invalid
from serveconf.admin.guard import LOOPBACK, Guard
from serveconf.admin.handles import Peering, handles_router
from serveconf.admin.keys import Keep, Keys
from serveconf.admin.live import live_router
from serveconf.admin.logs import logs_router
from serveconf.admin.looking import looking_router, nodes_router, reading_router, status_of
from serveconf.admin.metrics import MEDIA_TYPE, read_metrics
from serveconf.admin.page import page_router
from serveconf.admin.sessions import Sessions
from serveconf.admin.sign_in import sign_in_router
from serveconf.admin.webhooks import webhooks_router
from serveconf.errors import ServeconfError
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import unheard
from serveconf.reconcile.pulse import Pulse

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": models.ErrorModel} for status in (401, 403, 404, 409, 412, 413, 422, 500, 503, 507)
}


def make_app(
    plane: ControlPlane,
    *,
    token: str,
    address: str,
    host: str,
    on_shutdown: Shutdown,
    on_upgrade: MakeWay | None = None,
    keep_token: Keep | None = None,
    events: EventLog | None = None,
    pulse: Pulse | None = None,
    peering: Peering | None = None,
) -> FastAPI:
    """The control API of one controller. ``keep_token``: where another token is written before it counts."""
    keys = Keys(token, keep_token)
    sessions = Sessions(keys, name=f"serveconf_{urlsplit(address).port}")
    hosts = LOOPBACK if host in LOOPBACK else frozenset()
    app = FastAPI(
        title="serveconf control API",
        version=__version__,
        middleware=[Middleware(Guard, keys=keys, hosts=hosts, sessions=sessions)],
        responses=_ERRORS,
    )
    app.add_exception_handler(ServeconfError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_fault)
    app.include_router(page_router())
    note = events.note if events is not None else unheard
    app.include_router(sign_in_router(sessions, note))
    app.include_router(token_router(keys, note), prefix="/api/v1")
    app.include_router(_measuring(plane, pulse))
    app.include_router(looking_router(plane, address, keys), prefix="/api/v1")
    app.include_router(reading_router(), prefix="/api/v1")
    app.include_router(logs_router(plane, events), prefix="/api/v1")
    app.include_router(changing_router(plane, on_shutdown, on_upgrade), prefix="/api/v1")
    if events is not None:
        app.include_router(events_router(events), prefix="/api/v1")
    if pulse is not None:
        app.include_router(live_router(pulse, lambda: status_of(plane, address), plane.ledger), prefix="/api/v1")
    app.include_router(nodes_router(plane.cluster), prefix="/api/v1")
    app.include_router(webhooks_router(keys, note), prefix="/api/v1")
    if peering is not None:
        app.include_router(handles_router(plane.packages.store, peering, plane.scaling.hear), prefix="/api/v1")
    return app


def _measuring(plane: ControlPlane, pulse: Pulse | None) -> APIRouter:
    router = APIRouter(tags=["look"])

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Requests, failures, replicas, generation and applies, as Prometheus text."""
        return PlainTextResponse(
            await read_metrics(plane.cluster, plane.ledger, pulse.kept if pulse else None), media_type=MEDIA_TYPE
        )

    return router
