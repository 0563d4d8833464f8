"""``GET /api/v1/nodes``: what is placed where, and what is free."""

from __future__ import annotations

from fastapi import APIRouter

from serveconf.admin import status_models
from serveconf.reconcile.ports import Cluster


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
