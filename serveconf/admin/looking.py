"""What the control API shows: status, routes, nodes, data, drift, revisions, and what a spec file says."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query

from serveconf import __version__
from serveconf.admin import models, status_models
from serveconf.admin.keys import Keys
from serveconf.credentials import prove, read_only
from serveconf.errors import NotFound, ServeconfError
from serveconf.reconcile.control import ControlPlane
from serveconf.reconcile.data import all_data, data_of, warnings_of
from serveconf.reconcile.drift import find_drift
from serveconf.reconcile.ports import Cluster
from serveconf.reconcile.records import Revision
from serveconf.reconcile.status import make_history, make_routes, make_status
from serveconf.route_test import judge_request
from serveconf.spec.load import front_of, read_clean
from serveconf.spec.models import as_wire
from serveconf.versions import API, OLDEST_API

NOTES_S = 2.0  # for what a status says beside; who looks, while nothing answers, wants to know just that
StackName = Annotated[str, Path(description="Name of the stack.")]
HeaderLines = Annotated[Sequence[str], Query(description="Header fields of the request: name: value.")]
Load = Annotated[
    bool, Query(description="Whether each replica is asked how many requests it has now: one may be silent.")
]
Challenge = Annotated[str | None, Query(max_length=200, description="Random text of the caller's.")]


async def status_of(plane: ControlPlane, address: str, *, load: bool = True) -> dict[str, Any]:
    """The contract's status JSON. Without ``load`` no replica is asked how many requests it has: what was known is shown."""
    if load:
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


def looking_router(plane: ControlPlane, address: str, keys: Keys) -> APIRouter:
    """``address``: the controller's own."""
    router = APIRouter(tags=["look"])

    @router.get("/health")
    async def health(challenge: Challenge = None) -> models.HealthModel:
        """The controller is there. Needs no token; with a challenge it proves that it knows the caller's."""
        tokens = (keys.token, read_only(keys.token)) if challenge else ()
        proofs = [prove(one, challenge or "") for one in tokens]
        return models.HealthModel(proofs=proofs, version=__version__, api=API, oldest_api=OLDEST_API)

    @router.get("/status", response_model=status_models.StatusModel)
    async def status(load: Load = True) -> dict[str, Any]:
        """Stacks, deployments, replicas, proxies, their states and generation."""
        return await status_of(plane, address, load=load)

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


def nodes_router(cluster: Cluster) -> APIRouter:
    """Its one route."""
    router = APIRouter(tags=["look"])

    @router.get("/nodes")
    async def nodes() -> list[status_models.NodeModel]:
        """Every node with its resources, and the replicas and proxies on it."""
        observed = cluster.observe()
        return [
            status_models.NodeModel(
                id=node.id,
                name=next((r.host for r in observed.replicas if r.node_id == node.id and r.host), ""),
                is_head=node.is_head,
                drains=node.drains,
                total=node.total,
                available=node.available,
                replicas=[
                    status_models.PlacedModel(id=r.id, state=r.phase.value, stack=r.stack, deployment=r.deployment)
                    for r in observed.replicas
                    if r.node_id == node.id
                ],
                proxies=[
                    status_models.PlacedModel(id=p.id, state=p.phase.value)
                    for p in observed.proxies
                    if p.node_id == node.id
                ],
            )
            for node in cluster.nodes()
        ]

    return router


def reading_router() -> APIRouter:
    """It knows nothing of what runs."""
    router = APIRouter(tags=["look"])

    @router.post("/spec/read")
    async def read_spec(body: models.FileBody) -> models.ReadModel:
        """What a spec file says, where nothing is wrong with it. Changes nothing."""
        found = await asyncio.to_thread(read_clean, body.text.encode(), env=body.variables)
        if found is None:
            return models.ReadModel(spec=None)
        spec, masks = found
        front = front_of(spec)
        there = models.FrontModel(host=front[0], port=front[1]) if front else None
        return models.ReadModel(spec=as_wire(spec), masks=masks, front=there)

    return router
