"""Python's logging of a replica's process as its spec says: one handler at the root, before any code of the user is imported.

Where a spec says nothing the root is left as it is, and the app sets up its own. What an app sets up itself later holds:
``dictConfig`` replaces it, ``basicConfig`` finds a handler and leaves it.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logging(said: Mapping[str, Any] | None, names: Callable[[], Mapping[str, str]]) -> None:
    """Write the lines of the root logger and of serveconf's own as ``said`` (the spec's ``logging``).

    ``names``: the stack, deployment and replica that writes just now.
    """
    if said is None:
        return
    handler = logging.StreamHandler(sys.stderr)
    if said.get("format", "text") == "json":
        handler.setFormatter(JsonLines(names))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root, own = logging.getLogger(), logging.getLogger("serveconf")
    root.handlers[:] = [handler]
    root.setLevel(str(said.get("level", "info")).upper())
    own.setLevel(logging.NOTSET)
    if said.get("format", "text") == "json":
        own.handlers.clear()
        own.propagate = True  # else it keeps its own form of text, with keys
    else:
        own.setLevel(root.level)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, names: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        """The line; what cannot be JSON is written as its text."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._names(),
        }
        added = (
            key for key in vars(record) if key not in _STANDARD and not key.startswith("_")
        )  # Ray adds one of those
        line |= {key: getattr(record, key) for key in added if key not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return json.dumps(line, ensure_ascii=False, default=str)
