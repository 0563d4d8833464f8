"""What the control API changes: code, applies and what becomes of them, backups, versions, its token, the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse
from msgspec.structs import replace as changed
from starlette.exceptions import HTTPException

from serveconf.admin import models
from serveconf.admin.guard import ROLE, Calling
from serveconf.admin.keys import Keys
from serveconf.admin.logs import NDJSON
from serveconf.admin.models import TokenModel
from serveconf.admin.uploads import Uploads
from serveconf.backup_file import SavedStack
from serveconf.credentials import Role, fingerprint
from serveconf.errors import AuthorError, Conflict
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.journal import EventKind, Note, unheard
from serveconf.reconcile.packages import check_digest
from serveconf.reconcile.requests import ApplyRequest, Caller

MSGPACK = "application/msgpack"
StackName = Annotated[str, Path(description="Name of the stack.")]
IfMatch = Annotated[str | None, Header(description="Revision that the stack must be at, or 412.")]
Shutdown = Callable[[], Awaitable[None]]
MakeWay = Callable[[str], Awaitable[None]]  # ends the controller for the version that is named


def changing_router(plane: ControlPlane, on_shutdown: Shutdown, on_upgrade: MakeWay | None) -> APIRouter:
    """``on_upgrade``: None where nobody starts the controller anew."""
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


def token_router(keys: Keys, note: Note = unheard) -> APIRouter:
    """Its one route. It is noted who has asked."""
    router = APIRouter(tags=["change"])

    @router.post("/token")
    async def rotate(caller: Calling) -> TokenModel:
        """Make a new token. The old one, the read-only one, the secrets of webhooks and the sessions of browsers end with it."""
        if not caller.token.startswith(
            f"{Role.WRITE}:"
        ):  # a browser may do what its session may, and is not told the token
            raise HTTPException(403, "the token is told to nobody but who has brought the one before")
        token = await keys.replace()
        name = f"{Role.WRITE}:{fingerprint(token)}"
        data = {**caller.told(), "new": name}
        note(kind=EventKind.TOKEN, message=f"the token was replaced{caller}: from now on it is {name}", data=data)
        return TokenModel(token=token)

    return router
