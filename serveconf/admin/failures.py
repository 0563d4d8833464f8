"""Errors as the control API answers them: the contract's error object, with the status that says who must act."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serveconf.disk import DiskFull, disk_full, is_full
from serveconf.errors import Conflict, InternalError, NoRoom, NotFound, ServeconfError
from serveconf.reconcile.prepare import CodeRefused
from serveconf.reconcile.result import code_failures, problem_of


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """A ServeconfError as the contract's error object, with the status that says who must act."""
    assert isinstance(error, ServeconfError)
    match error:
        case Conflict():
            status = 412 if error.code == "stale" else 409
        case NotFound():
            status = 404
        case NoRoom():
            status = 507 if error.code == "code_budget" else 503
        case DiskFull():
            status = 507
        case InternalError():
            status = 500
        case _:
            status = 422
    problems = [problem_of(f) for f in code_failures(error)] if isinstance(error, CodeRefused) else []
    return JSONResponse({"error": {**error.as_json(), "problems": problems}}, status)


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """A body or parameter that is not what the API takes: the same error object as everywhere, naming each place."""
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return _error(422, "bad_request", "; ".join(lines), "see /docs for what is expected")


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework answers by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return _error(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}", "see /docs")


async def answer_fault(request: Request, error: Exception) -> JSONResponse:
    """Nobody has foreseen this one; a disk that is full we have."""
    if is_full(error):
        return await answer_error(request, disk_full("what was to be written", getattr(error, "filename", None)))
    return _error(500, "internal", f"{type(error).__name__}: {error}", "this is a fault of serveconf")


def _error(status: int, code: str, message: str, hint: str | None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)
