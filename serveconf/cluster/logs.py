"""Log lines of the actors: a fixed phrase plus keys, to stderr, where Ray keeps them per process.

``SERVECONF_LOG_FORMAT=json`` in the environment of Ray's processes makes each line a JSON object. structlog would do it
too, and cost each process 9 MB and a seventh of a second at its start (``python -X importtime -c "import structlog"``).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from serveconf.runtime.log_lines import JsonLines


class KeyLogger:
    """``log.info("replica ready", deployment="chat")`` gives ``replica ready deployment=chat``."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(f"serveconf.{name}")

    def info(self, phrase: str, **keys: Any) -> None:
        """Something that is as it should be."""
        self._log.info(phrase, extra=_safe(keys))

    def warning(self, phrase: str, **keys: Any) -> None:
        """Something that someone may have to look at."""
        self._log.warning(phrase, extra=_safe(keys))

    def exception(self, phrase: str, **keys: Any) -> None:
        """Something that has failed with the exception that is being handled."""
        self._log.exception(phrase, extra=_safe(keys))

    def error(self, phrase: str, **keys: Any) -> None:
        """Something that has failed."""
        self._log.error(phrase, extra=_safe(keys))


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _safe(keys: dict[str, Any]) -> dict[str, Any]:
    """``logging`` refuses keys that a record has itself: ``name`` becomes ``name_``."""
    return {f"{key}_" if key in _STANDARD else key: value for key, value in keys.items()}


class KeyFormatter(logging.Formatter):
    """Time, level, logger, phrase, then the keys that the line brings."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        added = (
            key for key in vars(record) if key not in _STANDARD and not key.startswith("_")
        )  # Ray adds one of those
        keys = {key: getattr(record, key) for key in added}
        return " ".join([super().format(record), *(f"{key}={_on_one_line(value)}" for key, value in keys.items())])


def _on_one_line(value: Any) -> str:
    """A value as it may stand in a line: a path holds whatever a client has sent, line ends too."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def get_logger(name: str) -> KeyLogger:
    """The logger of one room."""
    return KeyLogger(name)


def write_logs() -> None:
    """Have serveconf's own lines written to this process's stderr; the user's logging is left as it is."""
    root = logging.getLogger("serveconf")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        as_json = os.environ.get("SERVECONF_LOG_FORMAT") == "json"
        handler.setFormatter(JsonLines(dict) if as_json else KeyFormatter())
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False
