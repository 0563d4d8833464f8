"""Existing apps, served as they are below a prefix: what FastAPI and Starlette offer works there without a change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Request,
    Response,
    UploadFile,
    WebSocket,
)
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serveconf.ingress.app import build

PREFIX = "/shop/v1"


class Paging:
    def __init__(self, skip: int = 0, limit: int = 10):
        self.range = [skip, limit]


class Item(BaseModel):
    name: str
    tags: list[str] = []


def make_app(folder: Any, log: list[str]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        yield {"db": "connected"}
        log.append("down")

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.add_middleware(SessionMiddleware, secret_key="k")
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    items = APIRouter(prefix="/items", tags=["items"])

    @app.get("/", name="home")
    def home(request: Request) -> dict[str, str]:
        return {
            "item": str(request.url_for("item", id=3)),
            "file": str(request.url_for("files", path="a.txt")),
            "base": str(request.base_url),
        }

    @items.get("/{id}", name="item")
    async def item(id: int, page: Annotated[Paging, Depends()], x_mark: Annotated[str | None, Header()] = None):
        return [id, page.range, x_mark]

    @items.get("/")
    def slash():
        return "slash"

    @items.post("/", response_model=Item, status_code=201)
    def create(item: Item, background: BackgroundTasks, response: Response):
        background.add_task(log.append, f"background {item.name}")
        response.headers["x-made"] = item.name
        return item

    @app.post("/upload")
    async def upload(title: Annotated[str, Form()], file: Annotated[UploadFile, File()]):
        return [title, file.filename, len(await file.read())]

    @app.get("/old")
    def old(request: Request):
        return RedirectResponse(request.url_for("home"))

    @app.get("/teapot")
    def teapot():
        raise HTTPException(418, detail="short and stout", headers={"x-tea": "1"})

    @app.exception_handler(ZeroDivisionError)
    async def divided(request: Request, exc: ZeroDivisionError):
        return PlainTextResponse("divided", status_code=422)

    @app.get("/divide")
    def divide():
        return 1 / 0

    @app.get("/crash")
    def crash():
        raise RuntimeError("secret")

    @app.get("/state")
    def state(request: Request):
        request.session["n"] = request.session.get("n", 0) + 1
        return [request.state.db, request.session["n"]]

    @app.get("/events")
    async def events():
        async def stream():
            for n in range(3):
                yield f"data: {n}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/page", response_class=HTMLResponse)
    def page():
        return "<p>hi</p>"

    @app.websocket("/ws/{room}")
    async def ws(websocket: WebSocket, room: str, token: str = "none"):
        await websocket.accept()
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(room.encode() + token.encode() + message)

    app.include_router(items)
    sub = FastAPI()

    @sub.get("/where")
    def where(request: Request):
        return [request.scope["root_path"], str(request.url_for("where"))]

    app.mount("/sub", sub)
    (folder / "a.txt").write_text("static")
    app.mount("/files", StaticFiles(directory=folder), name="files")
    return app


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def shop(client, tmp_path, log):
    with client(build(make_app(tmp_path, log)).app, PREFIX) as c:
        c.base_url = c.base_url.join(PREFIX)
        yield lambda method, path, **kwargs: c.request(method, f"http://testserver{PREFIX}{path}", **kwargs)


def test_urls_that_the_app_makes_carry_the_prefix(shop):
    base = f"http://testserver{PREFIX}"
    expected = {"item": f"{base}/items/3", "file": f"{base}/files/a.txt", "base": f"{base}/"}
    assert shop("GET", "").json() == shop("GET", "/").json() == expected
    assert shop("GET", "/old").headers["location"] == f"{base}/"
    assert shop("GET", "/items").headers["location"] == f"{base}/items/"
    assert shop("GET", "/sub/where").json() == [f"{PREFIX}/sub", f"{base}/sub/where"]


def test_docs_and_schema_point_below_the_prefix(shop):
    assert shop("GET", "/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert f"{PREFIX}/openapi.json" in shop("GET", "/docs").text
    assert f"{PREFIX}/openapi.json" in shop("GET", "/redoc").text


def test_parameters_forms_uploads_and_background_tasks(shop, log):
    assert shop("GET", "/items/7?limit=2", headers={"x-mark": "m"}).json() == [7, [0, 2], "m"]
    assert shop("GET", "/items/").json() == "slash"
    made = shop("POST", "/items/", json={"name": "tea", "more": 1})
    assert (made.status_code, made.json(), made.headers["x-made"]) == (201, {"name": "tea", "tags": []}, "tea")
    assert "background tea" in log
    assert shop("POST", "/upload", data={"title": "t"}, files={"file": ("f.bin", b"12345")}).json() == ["t", "f.bin", 5]
    assert shop("POST", "/items/", json={}).status_code == 422


def test_errors_are_answered_as_the_app_says(shop):
    tea = shop("GET", "/teapot")
    assert (tea.status_code, tea.json(), tea.headers["x-tea"]) == (418, {"detail": "short and stout"}, "1")
    assert (shop("GET", "/divide").status_code, shop("GET", "/divide").text) == (422, "divided")
    assert (shop("GET", "/crash").status_code, shop("GET", "/crash").text) == (500, "Internal Server Error")
    assert shop("DELETE", "/page").status_code == 405
    assert shop("GET", "/nothing").json() == {"detail": "Not Found"}


def test_middlewares_sessions_static_files_and_streams(shop):
    assert shop("GET", "/files/a.txt").text == "static"
    assert shop("GET", "/page").headers["content-type"] == "text/html; charset=utf-8"
    assert (
        shop("GET", "/page", headers={"origin": "https://a.example"}).headers["access-control-allow-origin"]
        == "https://a.example"
    )
    assert [shop("GET", "/state").json() for _ in range(2)] == [["connected", 1], ["connected", 2]]
    events = shop("GET", "/events")
    assert (events.headers["content-type"], events.text) == (
        "text/event-stream; charset=utf-8",
        "data: 0\n\ndata: 1\n\ndata: 2\n\n",
    )


def test_websockets_below_the_prefix(client, tmp_path):
    with client(build(make_app(tmp_path, [])).app, PREFIX).websocket_connect(f"{PREFIX}/ws/r?token=t") as socket:
        socket.send_bytes(b"\x00")
        assert socket.receive_bytes() == b"rt\x00"


def test_lifespan_runs_once_around_all(client, tmp_path, log):
    async def main() -> None:
        served = build(make_app(tmp_path, log))
        await served.startup()
        assert (log, served.state) == (["up"], {"db": "connected"})
        await served.shutdown()
        await served.shutdown()

    asyncio.run(main())
    assert log == ["up", "down"]


def test_a_starlette_app_and_a_mounted_tree_answer_at_the_bare_prefix(client):
    def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.scope["root_path"] + "|" + request.url.path)

    app = Starlette(routes=[Route("/", show), Mount("/m", routes=[Route("/x", show)])])
    c = client(build(app).app, "/p")
    assert [c.get("/p").text, c.get("/p/m/x").text] == ["/p|/p/", "/p/m|/p/m/x"]
    assert client(build(app).app).get("/").text == "|/"
