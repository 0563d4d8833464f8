"""A replica's log lines as its spec says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from serveconf.runtime import log_lines
from serveconf.runtime.log_lines import set_up_logging

NAMES = {"stack": "shop", "deployment": "web", "replica": "shop.web.1"}


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What goes to stderr; the process's logging is afterwards as it was."""
    root, own = logging.getLogger(), logging.getLogger("serveconf")
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in (root, own)]
    written = io.StringIO()
    monkeypatch.setattr(log_lines, "sys", SimpleNamespace(stderr=written))  # pytest itself puts sys.stderr back
    yield written
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
        logger.setLevel(level)


def write() -> None:
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("app.of.mine"), level)("said %s", level, extra={"order": 7})


@pytest.mark.parametrize(
    ("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_least_level_holds_in_both_forms(lines: io.StringIO, level: str, written: int, form: str) -> None:
    set_up_logging({"level": level, "format": form}, lambda: NAMES)
    write()
    assert len(lines.getvalue().splitlines()) == written


def test_a_json_line_says_who_wrote_it_and_what_it_adds(lines: io.StringIO) -> None:
    set_up_logging({"level": "info", "format": "json"}, lambda: NAMES)
    logging.getLogger("a").info("two\nlines", extra={"order": 7, "odd": {1}})
    try:
        raise LookupError("none")
    except LookupError:
        logging.getLogger("a").exception("failed")
    logging.getLogger("serveconf.replica").info("replica ready", extra={"seconds": 1})
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    first, second, third = (line for line in said if line["logger"] != "asyncio")  # of another test's tasks
    assert {**first, "time": 0} == {
        "time": 0, "level": "info", "logger": "a", "message": "two\nlines", **NAMES, "order": 7, "odd": "{1}",
    }  # fmt: skip
    assert "LookupError: none" in second["error"]
    assert (third["message"], third["seconds"]) == ("replica ready", 1)


def test_a_name_of_the_line_itself_cannot_be_put_over(lines: io.StringIO) -> None:
    set_up_logging({"format": "json"}, lambda: NAMES)
    logging.getLogger("a").warning("x", extra={"stack": "forged", "level": "forged", "time": "forged"})
    line = json.loads(lines.getvalue())
    assert (line["stack"], line["level"]) == ("shop", "warning")
    assert line["time"] != "forged"


@pytest.mark.parametrize("said", [None, {"level": "info"}, {"format": "text"}])
def test_where_nothing_is_said_logging_is_left_as_it_is(said: Any, lines: io.StringIO) -> None:
    before = list(logging.getLogger().handlers)
    set_up_logging(said, lambda: NAMES)
    assert (logging.getLogger().handlers == before) is (said is None)


def test_what_an_app_sets_up_later_with_basic_config_changes_nothing(lines: io.StringIO) -> None:
    set_up_logging({"level": "warning", "format": "json"}, lambda: NAMES)
    logging.basicConfig(level="DEBUG", format="other")
    write()
    assert [json.loads(line)["level"] for line in lines.getvalue().splitlines()] == ["warning", "error"]
