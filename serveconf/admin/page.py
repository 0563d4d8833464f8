"""The dashboard's page and its parts, as they are in ``web/``: no build step, nothing from elsewhere, no data in them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from fastapi.responses import HTMLResponse

from serveconf.errors import NotFound

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
ASSET_HEADERS = {
    "cache-control": "no-cache",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}
PAGE = "dashboard.html"


@cache
def parts() -> dict[str, bytes]:
    """All files of ``web/``, by name."""
    folder = files("serveconf.admin").joinpath("web")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(tuple(MEDIA_TYPES))}


def page_router() -> APIRouter:
    """The page and its parts. They need no token."""
    router = APIRouter(tags=["dashboard"])

    @router.get("/", response_class=HTMLResponse)
    async def dashboard() -> HTMLResponse:
        """A page that shows everything live, once its reader has signed in. Needs no token itself."""
        return HTMLResponse(parts()[PAGE], headers=PAGE_HEADERS)

    @router.get(
        "/assets/{name}",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The file."}},
    )
    async def asset(
        name: Annotated[str, Path(description="Name of the file.")],
        if_none_match: Annotated[str | None, Header(description="The file that is there already.")] = None,
    ) -> Response:
        """A script, style or picture of the dashboard."""
        data = parts().get(name)
        if data is None or name == PAGE:
            raise NotFound(f"there is no file '{name}'")
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {**ASSET_HEADERS, "etag": tag}
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=MEDIA_TYPES[name[name.rindex(".") :]])

    return router
