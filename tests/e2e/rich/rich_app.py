"""An app that uses what FastAPI and Starlette have, and knows nothing of where it is mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

HERE = Path(__file__).parent


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"from_lifespan": "yes"}


app = FastAPI(title="rich", lifespan=lifespan)
done: list[str] = []


class TeaError(Exception):
    """Handled by the app."""


class Item(BaseModel):
    name: str
    price: float = 1.5
    tags: list[str] = []


class Pages:
    """A dependency that is a class."""

    def __init__(self, page: int = 1, size: int = 10) -> None:
        self.page, self.size = page, size


@app.middleware("http")
async def mark(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-app"] = "marked"
    return response


@app.exception_handler(TeaError)
async def tea(request: Request, error: TeaError) -> JSONResponse:
    return JSONResponse({"tea": str(error), "path": request.url.path}, 418)


@app.get("/")
def root() -> dict[str, str]:
    return {"at": "root"}


@app.get("/scope")
@app.post("/scope")
@app.put("/scope")
@app.patch("/scope")
@app.delete("/scope")
async def scope(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.scope["path"],
        "raw_path": request.scope["raw_path"].decode(),
        "root_path": request.scope["root_path"],
        "query": request.scope["query_string"].decode(),
        "url_path": request.url.path,
        "base_path": request.base_url.path,
        "scheme": request.url.scheme,
        "client": request.client.host if request.client else None,
        "http_version": request.scope["http_version"],
        "state": request.state.from_lifespan,
        "body": (await request.body()).decode(),
        "repeated": request.headers.getlist("x-many"),
        "extensions": sorted(request.scope.get("extensions", {})),
    }


@app.get("/any/{rest:path}")
async def any_path(rest: str, request: Request) -> dict[str, str]:
    return {"rest": rest, "raw": request.scope["raw_path"].decode()}


@app.get("/slashed/")
def slashed(request: Request) -> dict[str, str]:
    return {"url": request.url.path}


@app.get("/named/{number}", name="named")
def named(number: int, request: Request) -> dict[str, str]:
    return {"url": request.url_for("named", number=number + 1).path, "static": request.url_for("static", path="a").path}


@app.get("/redirect")
def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("root").path)


@app.post("/form")
def form(name: Annotated[str, Form()], age: Annotated[int, Form()] = 3) -> dict[str, Any]:
    return {"name": name, "age": age}


@app.post("/upload")
async def upload(files: list[UploadFile]) -> list[dict[str, Any]]:
    return [{"name": f.filename, "type": f.content_type, "size": len(await f.read())} for f in files]


@app.get("/cookies")
def cookies(response: Response, taste: Annotated[str | None, Cookie()] = None) -> dict[str, Any]:
    response.set_cookie("taste", "sweet", httponly=True, samesite="lax")
    response.set_cookie("second", "one", path="/x")
    response.delete_cookie("third")
    return {"taste": taste}


@app.get("/background")
def background(tasks: BackgroundTasks) -> dict[str, int]:
    before = len(done)
    tasks.add_task(done.append, "ran")
    return {"before_is_even_or_odd": before - before}


@app.get("/tea")
def brew() -> None:
    raise TeaError("short and stout")


@app.get("/forbidden")
def forbidden() -> None:
    raise HTTPException(403, {"why": "because"}, headers={"x-why": "because"})


@app.get("/broken")
def broken() -> None:
    raise RuntimeError("not handled")


@app.post("/items", response_model=Item, response_model_exclude_unset=True, status_code=201)
def make_item(item: Item) -> Item:
    return item


@app.get("/badmodel", response_model=Item)
def bad_model(ok: bool = True) -> dict[str, Any]:
    return {"name": "fine"} if ok else {"price": "free"}


@app.get("/pages")
def pages(pages: Annotated[Pages, Depends()], agent: Annotated[str | None, Header(alias="x-agent")] = None) -> Any:
    return {"page": pages.page, "size": pages.size, "agent": agent}


@app.get("/html", response_class=HTMLResponse)
def html() -> str:
    return "<h1>ü</h1>"


@app.get("/file")
def file() -> FileResponse:
    return FileResponse(__file__, filename="süß.py")


@app.get("/repeated")
def repeated() -> Response:
    response = Response(b"", 204)
    for value in ("1", "2", "3"):
        response.headers.append("x-many", value)
    return response


@app.get("/bytes/{size}")
def some_bytes(size: int) -> Response:
    return Response(bytes(range(256)) * (size // 256), media_type="application/octet-stream")


@app.post("/count")
async def count(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(chunk) async for chunk in request.stream()])}


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/plain", headers={"x-stream": "yes"})


@app.get("/sse")
async def sse() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(3):
            yield f"id: {number}\ndata: tick\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/ws/{room}")
async def talk(websocket: WebSocket, room: str) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept("second" if "second" in offered else None, headers=[(b"x-room", room.encode())])
    await websocket.send_json(
        {"root_path": websocket.scope["root_path"], "path": websocket.url.path, "offered": offered}
    )
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await websocket.send_bytes(message["bytes"][::-1])
            elif message["text"] == "bye":
                await websocket.close(4321, "so long")
                return
            else:
                await websocket.send_text(message["text"].upper())
    except WebSocketDisconnect:
        return


@app.websocket("/refused")
async def refused(websocket: WebSocket) -> None:
    await websocket.close(4403)


router = APIRouter(prefix="/router", tags=["routed"])


@router.get("/deep")
def deep(request: Request) -> dict[str, str]:
    return {"deep": request.url.path}


app.include_router(router)
sub = FastAPI(title="sub")


@sub.get("/inner")
def inner(request: Request) -> dict[str, str]:
    return {"root_path": request.scope["root_path"], "docs": request.url_for("inner").path}


app.mount("/sub", sub)
app.mount("/static", StaticFiles(directory=HERE / "static", html=True), name="static")
