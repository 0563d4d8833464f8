"""``POST /api/v1/handles``: what a script needs to call deployments by handle: the routing table, and the frames' secret.

A POST, although it changes nothing: the read-only token must not be enough to call deployments past the proxies.
"""

from __future__ import annotations

import hashlib
import socket
from base64 import b64encode
from collections.abc import Callable, Mapping

import msgspec
from fastapi import APIRouter

from serveconf.admin import models
from serveconf.figures import DeploymentLoad
from serveconf.reconcile.ports import Store


class Peering(msgspec.Struct, frozen=True, kw_only=True):
    """What this cluster's ends of the wire know of each other. ``node_id``: the controller's node."""

    secret: bytes
    node_id: str


Hear = Callable[[str, Mapping[str, DeploymentLoad]], None]  # (script, what it asks of each deployment)


def handles_router(store: Store, peering: Peering, hear: Hear) -> APIRouter:
    """Its one route."""
    router = APIRouter(tags=["look"])

    @router.post("/handles")
    async def handles(seen: str = "", body: models.HandlesBody | None = None) -> models.HandlesModel:
        """The committed routing table as replicas read it, for a script on the controller's host that calls by handle.

        ``seen``: digest of the table that the script has; that one is not sent again. What it says of its calls counts
        for autoscaling.
        """
        if body is not None:
            hear(body.script, {name: DeploymentLoad(**dict(load)) for name, load in body.loads.items()})
        table = await store.get("generation")
        digest = hashlib.sha256(table).hexdigest() if table is not None else ""
        return models.HandlesModel(
            host=socket.gethostname(),
            node_id=peering.node_id,
            secret=peering.secret.hex(),
            digest=digest,
            table=b64encode(table).decode() if table is not None and digest != seen else None,
        )

    return router
