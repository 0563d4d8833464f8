"""An app whose answers take their time."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()


@app.get("/{name}")
async def thumbnail(name: str) -> dict[str, str]:
    """Says whose thumbnail it would be."""
    await asyncio.sleep(0.2)
    return {"thumbnail": name}
