"""Exceptions of the user's code as ``CodeFailed``: one line that says what failed, and the frames that are the user's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import os
import threading
import traceback
from pathlib import Path

from serveconf.errors import CodeFailed

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MACHINERY = tuple(
    os.path.dirname(str(module.__file__)) + os.sep for module in (asyncio, concurrent.futures, importlib)
)
_FILES = frozenset({str(threading.__file__)})


def code_failed(doing: str, exc: BaseException, *, hint: str | None = None) -> CodeFailed:
    """``exc``, raised by the user's code while it was ``doing`` something ("importing shop.catalog", "Model.__init__")."""
    return CodeFailed(f"{doing}: {describe(exc)}", traceback=user_traceback(exc), hint=hint)


def describe(exc: BaseException) -> str:
    """The exception as one line."""
    if isinstance(exc, SystemExit):
        return f"the code called sys.exit({'' if exc.code is None else repr(exc.code)})"
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def user_traceback(exc: BaseException) -> str:
    """The formatted traceback without the frames of serveconf, importlib, asyncio and thread pools."""
    report = traceback.TracebackException.from_exception(exc)
    pending: list[traceback.TracebackException | None] = [report]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        part.stack = traceback.StackSummary.from_list(
            [frame for frame in part.stack if not _is_machinery(frame.filename)]
        )
        pending += [part.__cause__, part.__context__, *(part.exceptions or [])]
    return "".join(report.format())


def _is_machinery(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", "<frozen runpy", _OURS, *_MACHINERY)) or filename in _FILES


def with_own_paths(text: str, code: Path | None, app_dir: str | None) -> str:
    """``text`` with app_dir wherever the package's folder stands."""
    return text if code is None or not app_dir else text.replace(f"{code}/", f"{app_dir}/")
