"""A streamed answer, server-sent events, an upload that is counted as it comes, and a WebSocket that echoes."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI(title="live")


@app.get("/count")
async def count(to: int = 5) -> StreamingResponse:
    """Numbers, a line each, as they are counted."""

    async def lines() -> AsyncIterator[str]:
        for number in range(1, to + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/events")
async def events(n: int = 3) -> StreamingResponse:
    """Server-sent events."""

    async def ticks() -> AsyncIterator[str]:
        for tick in range(n):
            yield f"event: tick\ndata: {tick}\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.post("/size")
async def size(request: Request) -> dict[str, int]:
    """How many bytes were sent, without ever holding them all."""
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
    return {"bytes": total}


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Everything comes back."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return
