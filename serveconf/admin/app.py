"""The control API as a FastAPI app over ``reconcile.control.ControlPlane``; it adds transport and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from msgspec.structs import replace as changed
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from serveconf import __version__
from serveconf.admin import models, status_models
from serveconf.admin.callers import Calling
from serveconf.admin.events import events_router
from serveconf.admin.guard import LOOPBACK, ROLE, Guard
from serveconf.admin.handles import Peering, handles_router
from serveconf.admin.keys import Keep, Keys
from serveconf.admin.live import live_router
from serveconf.admin.logs import NDJSON, logs_router
from serveconf.admin.metrics import MEDIA_TYPE, read_metrics
from serveconf.admin.nodes import nodes_router
from serveconf.admin.page import page_router
from serveconf.admin.sessions import Sessions
from serveconf.admin.sign_in import sign_in_router
from serveconf.admin.token import token_router
from serveconf.admin.uploads import Uploads
from serveconf.admin.webhooks import webhooks_router
from serveconf.backup_file import SavedStack
from serveconf.credentials import Role, prove, read_only
from serveconf.errors import AuthorError, Conflict, InternalError, NoRoom, NotFound, ServeconfError
from serveconf.reconcile.beside import warnings_of
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.data import all_data, data_of
from serveconf.reconcile.drift import find_drift
from serveconf.reconcile.events import EventLog
from serveconf.reconcile.journal import unheard
from serveconf.reconcile.packages import check_digest
from serveconf.reconcile.prepare import CodeRefused
from serveconf.reconcile.pulse import Pulse
from serveconf.reconcile.records import Revision
from serveconf.reconcile.requests import ApplyRequest, Caller
from serveconf.reconcile.result import code_failures, problem_of
from serveconf.reconcile.status import make_history, make_routes, make_status
from serveconf.route_test import judge_request
from serveconf.versions import API, OLDEST_API

MSGPACK = "application/msgpack"
NOTES_S = 2.0  # for what a status says beside; who looks, while nothing answers, wants to know just that

StackName = Annotated[str, Path(description="Name of the stack.")]
IfMatch = Annotated[str | None, Header(description="Revision that the stack must be at, or 412.")]
HeaderLines = Annotated[Sequence[str], Query(description="Header fields of the request: name: value.")]
Challenge = Annotated[str | None, Query(max_length=200, description="Random text of the caller's.")]
Shutdown = Callable[[], Awaitable[None]]
MakeWay = Callable[[str], Awaitable[None]]  # ends the controller for the version that is named

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
    app.add_exception_handler(ServeconfError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_fault)
    app.include_router(page_router())
    note = events.note if events is not None else unheard
    app.include_router(sign_in_router(sessions, note))
    app.include_router(token_router(keys, note), prefix="/api/v1")
    app.include_router(_measuring(plane, pulse))
    app.include_router(_looking(plane, address, keys), prefix="/api/v1")
    app.include_router(logs_router(plane, events), prefix="/api/v1")
    app.include_router(_changing(plane, on_shutdown, on_upgrade), prefix="/api/v1")
    if events is not None:
        app.include_router(events_router(events), prefix="/api/v1")
    if pulse is not None:
        app.include_router(live_router(pulse, lambda: _status(plane, address)), prefix="/api/v1")
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


async def _status(plane: ControlPlane, address: str) -> dict[str, Any]:
    await plane.cluster.refresh_load()
    warnings, data = await _noted(plane)
    silent_s = plane.cluster.silent_for()
    return make_status(
        plane.ledger,
        plane.cluster.observe(),
        pid=os.getpid(),
        address=address,
        silent_s=None if silent_s is None else round(silent_s, 1),
        autoscaling=plane.scaling.state,
        warnings=warnings,
        data=data,
    )


async def _noted(plane: ControlPlane) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What replicas have noted of what they write: by stack, the warnings, and the data. Nothing, where the store is silent."""
    try:
        async with asyncio.timeout(NOTES_S):
            store = plane.packages.store
            return await warnings_of(store, socket.gethostname()), await all_data(store)
    except (TimeoutError, ServeconfError):
        return {}, {}


def _looking(plane: ControlPlane, address: str, keys: Keys) -> APIRouter:
    router = APIRouter(tags=["look"])

    @router.get("/health")
    async def health(challenge: Challenge = None) -> models.HealthModel:
        """The controller is there. Needs no token; with a challenge it proves that it knows the caller's."""
        tokens = (keys.token, read_only(keys.token)) if challenge else ()
        proofs = [prove(one, challenge or "") for one in tokens]
        return models.HealthModel(proofs=proofs, version=__version__, api=API, oldest_api=OLDEST_API)

    @router.get("/status", response_model=status_models.StatusModel)
    async def status() -> dict[str, Any]:
        """Stacks, deployments, replicas, proxies, their states and generation."""
        return await _status(plane, address)

    @router.get("/routes")
    async def routes() -> dict[str, str]:
        """The live routing table: prefix to deployment."""
        return make_routes(plane.ledger.generation)

    @router.get("/routes/test", response_model=models.VerdictModel)
    async def test_route(url: str, method: str = "GET", header: HeaderLines = ()) -> dict[str, Any]:
        """Who would take a request, and why not the others."""
        fields = [(name, value) for name, _, value in (line.partition(":") for line in header)]
        verdict: dict[str, Any] = msgspec.to_builtins(judge_request(plane.ledger.generation, method, url, fields))
        return verdict

    @router.get("/stacks/{stack}/data")
    async def data(stack: StackName) -> status_models.DataModel:
        """What its replicas were seen to write below app_dir: their data, in no package and no reason to roll."""
        return status_models.DataModel(paths=await data_of(plane.packages.store, stack))

    @router.get("/stacks/{stack}/drift", response_model=models.PlanModel, response_model_exclude_unset=True)
    async def drift(stack: StackName) -> dict[str, Any]:
        """What of a stack is not as it was applied, as a plan. Changes nothing."""
        return find_drift(plane.ledger, plane.cluster.observe(), stack).as_json()

    @router.get("/stacks/{stack}/revisions", response_model=list[models.RevisionModel])
    async def revisions(stack: StackName) -> list[dict[str, Any]]:
        """The kept revisions, the newest first."""
        return make_history(plane.history(stack))

    @router.get("/stacks/{stack}/revisions/{number}", response_model=models.RevisionDetail)
    async def revision(stack: StackName, number: int) -> dict[str, Any]:
        """One revision: what it said, did and counted."""
        found = next((r for r in plane.history(stack) if r.number == number), None)
        if found is None:
            raise NotFound(f"stack '{stack}' has no revision {number}", hint="'serveconf history' lists them")
        return _detail(found)

    @router.get(
        "/stacks/{stack}/revisions/{number}/plan",
        response_model=models.PlanModel,
        response_model_exclude_unset=True,
    )
    async def plan_rollback(stack: StackName, number: int) -> dict[str, Any]:
        """What going back to a revision would do. Changes nothing."""
        return (await plane.plan_rollback(stack, number)).as_json()

    return router


def _changing(plane: ControlPlane, on_shutdown: Shutdown, on_upgrade: MakeWay | None) -> APIRouter:
    router = APIRouter(tags=["change"])
    uploads = Uploads()

    @router.get("/code/{digest}")
    async def has_code(digest: str) -> models.CodeModel:
        """Whether the store has a code package."""
        return models.CodeModel(present=await plane.packages.has(digest))

    @router.put("/code/{digest}")
    async def put_code(digest: str, request: Request) -> models.CodeModel:
        """Upload a code package: the zip that the commands make. What does not hold what its digest says is refused."""
        check_digest(digest)
        await plane.packages.put(digest, await uploads.take(request))
        return models.CodeModel(present=True)

    @router.post("/stacks/{stack}/plan", response_model=models.PlanModel, response_model_exclude_unset=True)
    async def plan(stack: StackName, body: models.ApplyBody, request: Request) -> dict[str, Any]:
        """What an apply would do. Changes nothing. With the read-only token the code is not imported to find that out."""
        look = request.scope[ROLE] is Role.WRITE
        return (await plane.plan(_request(stack, body), look=look)).as_json()

    @router.post("/stacks/{stack}/apply", status_code=202)
    async def apply(
        stack: StackName, body: models.ApplyBody, caller: Calling, if_match: IfMatch = None
    ) -> models.Accepted:
        """Make it so."""
        request = _asked_by(caller, _request(stack, body, if_match))
        plane.check_revision(stack, request.base_revision)
        return models.Accepted(operation=plane.apply(request).id)

    @router.post("/stacks/{stack}/rollback", status_code=202)
    async def rollback(
        stack: StackName, body: models.RollbackBody, caller: Calling, if_match: IfMatch = None
    ) -> models.Accepted:
        """Go back to a kept revision, and pin it."""
        request = _asked_by(caller, _origin(stack, body, if_match))
        plane.check_revision(stack, request.base_revision)
        return models.Accepted(operation=plane.rollback(stack, body.revision, request).id)

    @router.post("/stacks/{stack}/promote", status_code=202)
    async def promote(stack: StackName, body: models.CanaryBody, caller: Calling) -> models.Accepted:
        """End a canary at once: all of the requests to the new version. The operation is the apply that it belongs to."""
        return models.Accepted(operation=(await plane.promote(stack, body.deployment, caller)).id)

    @router.post("/stacks/{stack}/abort", status_code=202)
    async def abort(stack: StackName, body: models.CanaryBody, caller: Calling) -> models.Accepted:
        """End a canary at once: all of the requests back to the old version. The operation is the apply that it belongs to."""
        return models.Accepted(operation=(await plane.abort(stack, body.deployment, caller)).id)

    @router.post("/stacks/{stack}/resume", status_code=204)
    async def resume(stack: StackName, caller: Calling) -> None:
        """End the pin that a rollback left."""
        await plane.resume(stack, caller)

    @router.post("/stacks/{stack}/deployments/{deployment}/scale")
    async def scale(stack: StackName, deployment: str, body: models.ScaleBody, caller: Calling) -> models.ScaledModel:
        """Set a deployment's number of replicas until the next apply; where it follows the load, within its bounds."""
        before = plane.scale(stack, deployment, body.replicas, caller)
        return models.ScaledModel(stack=stack, deployment=deployment, before=before, replicas=body.replicas)

    @router.post("/stacks/{stack}/delete", status_code=202)
    async def delete(
        stack: StackName, body: models.DeleteBody, caller: Calling, if_match: IfMatch = None
    ) -> models.Accepted:
        """Take deployments, or the whole stack, away, draining."""
        request = _asked_by(caller, _origin(stack, body, if_match))
        plane.check_revision(stack, request.base_revision)
        return models.Accepted(operation=plane.delete(stack, body.deployments, request).id)

    @router.get(
        "/operations/{operation}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {NDJSON: {}}, "description": "Events, one JSON object a line."}},
    )
    async def events(operation: str) -> StreamingResponse:
        """Everything that an apply tells, one JSON object a line; the last has "event": "result"."""
        followed = plane.operation(operation)
        return StreamingResponse(_lines(followed.follow()), media_type=NDJSON)

    @router.delete("/operations/{operation}")
    async def cancel(operation: str, caller: Calling) -> models.CancelModel:
        """Stop an apply: undone before the switch, completed after it."""
        cancelled = await plane.cancel(operation, caller)
        return models.CancelModel(undone=cancelled.undone, message=cancelled.message)

    @router.post("/backup", response_class=Response, responses={200: {"content": {MSGPACK: {}}}})
    async def backup(caller: Calling) -> Response:
        """All stacks with their revisions and code, as MessagePack. It holds secrets, so the token that may write is needed."""
        return Response(msgspec.msgpack.encode(await plane.backup(caller)), media_type=MSGPACK)

    @router.post("/stacks/{stack}/restore", status_code=202)
    async def restore(
        stack: StackName, request: Request, caller: Calling, replace: bool = False, author: str = ""
    ) -> models.Accepted:
        """Serve what a backup says of the stack, whose code packages were uploaded before. The body: its part of the backup."""
        try:
            saved = msgspec.msgpack.decode(await request.body(), type=SavedStack)
        except msgspec.MsgspecError as error:
            raise AuthorError(f"this is no stack of a backup: {error}", code="bad_backup") from error
        if saved.name != stack:
            raise AuthorError(f"the backup is of stack '{saved.name}', not '{stack}'", code="bad_backup")
        caller = _named(caller, author)
        return models.Accepted(operation=(await plane.restore(saved, replaces=replace, caller=caller)).id)

    @router.post("/upgrade", status_code=202)
    async def upgrade(body: models.UpgradeBody, caller: Calling) -> models.Accepted:
        """Replace the proxies and replicas that run another version than the controller, old and new side by side."""
        return models.Accepted(operation=plane.upgrade(body.version, _named(caller, body.author)).id)

    @router.post("/upgrade/controller", status_code=204)
    async def upgrade_controller(body: models.UpgradeBody) -> Response:
        """End the controller, for Ray to start it anew from what is installed by now; refused where that would not start."""
        if on_upgrade is None:
            raise Conflict("this controller is not started anew by anybody", code="upgrade_failed")
        await on_upgrade(body.version)
        return Response(status_code=204)

    @router.post("/shutdown", status_code=204)
    async def shutdown() -> Response:
        """Stop proxies, replicas and the controller itself."""
        await on_shutdown()
        return Response(status_code=204)

    return router


def _request(stack: str, body: models.ApplyBody, if_match: str | None = None) -> ApplyRequest:
    if body.spec.get("name", "default") != stack:
        raise AuthorError(f"the spec is of stack '{body.spec.get('name', 'default')}', not '{stack}'")
    return ApplyRequest(**body.model_dump(), base_revision=_base(if_match))


def _named(caller: Caller, author: str) -> Caller:
    """With the author that the body names, where it names one."""
    return changed(caller, author=author) if author else caller


def _asked_by(caller: Caller, request: ApplyRequest) -> ApplyRequest:
    known = _named(caller, request.author)
    return changed(request, author=known.author, token=known.token)


def _origin(stack: str, body: models.Origin, if_match: str | None) -> ApplyRequest:
    fields = {key: value for key, value in body.model_dump().items() if key in models.Origin.model_fields}
    return ApplyRequest(spec={"name": stack}, **fields, base_revision=_base(if_match))


def _base(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    number = if_match.strip().removeprefix("W/").strip('"')
    if not number.isdigit():
        raise AuthorError("If-Match must be a revision number", code="bad_request")
    return int(number)


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for event in events:
        yield msgspec.json.encode(event) + b"\n"


def _detail(revision: Revision) -> dict[str, Any]:
    return {
        **make_history([revision])[0],
        "spec": revision.spec,
        "actions": revision.actions,
        "receipt": revision.receipt,
        "failure": msgspec.to_builtins(revision.failure),
        "packages": {
            d.name: {"code": d.code, "files": d.modules, "app_dir": d.app_dir, "masked": bool(d.masks)}
            for d in revision.desired.deployments
        },
    }


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """A ServeconfError as the contract's error object, with the status that says who must act."""
    assert isinstance(error, ServeconfError)
    match error:
        case Conflict():
            status = 412 if error.code == "stale" else 409
        case NotFound():
            status = 404
        case NoRoom():
            status = 507 if error.code == "code_budget" else 503
        case InternalError():
            status = 500
        case _:
            status = 422
    problems = [problem_of(f) for f in code_failures(error)] if isinstance(error, CodeRefused) else []
    return JSONResponse({"error": {**error.as_json(), "problems": problems}}, status)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """A body or parameter that is not what the API takes: the same error object as everywhere, naming each place."""
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return _error(422, "bad_request", "; ".join(lines), "see /docs for what is expected")


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework answers by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return _error(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}", "see /docs")


async def _answer_fault(request: Request, error: Exception) -> JSONResponse:
    """Nobody has foreseen this one."""
    return _error(500, "internal", f"{type(error).__name__}: {error}", "this is a fault of serveconf")


def _error(status: int, code: str, message: str, hint: str | None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)
