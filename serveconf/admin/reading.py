"""What a spec file says, read for a command that need not load what that takes (``read_there``)."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from serveconf.admin import models
from serveconf.spec.load import front_of, read_clean
from serveconf.spec.models import as_wire


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
