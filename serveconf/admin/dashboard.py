"""The dashboard: one static page that reads the control API with the token that its reader gives. It holds no data itself."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@cache
def page() -> str:
    """The page as HTML."""
    return files("serveconf.admin").joinpath("dashboard.html").read_text(encoding="utf-8")
