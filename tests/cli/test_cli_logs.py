"""Which lines ``logs`` shows, and how."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from serveconf.cli.logs import LinesView, Wanted
from serveconf.cli.parser import app
from serveconf.errors import AuthorError


def row(line: str, *, time: str | None = None, replica: str = "web-1") -> dict[str, Any]:
    return {"replica": replica, "time": time, "line": line}


def test_only_what_is_newer_is_shown_and_what_says_no_time_is_not_held_back() -> None:
    wanted = Wanted("2026-01-31T08:00+00:00", None)
    assert wanted.has(row("new", time="2026-01-31T08:00:01+00:00"))
    assert not wanted.has(row("old", time="2026-01-31T07:59:59+00:00"))
    assert wanted.has(row("who knows"))


def test_only_lines_that_match_are_shown() -> None:
    wanted = Wanted(None, "status=5..")
    assert wanted.has(row("GET / status=503"))
    assert not wanted.has(row("GET / status=200"))
    with pytest.raises(AuthorError, match="no regular expression"):
        Wanted(None, "(")


def test_each_process_has_a_colour_of_its_own() -> None:
    view = LinesView(color=True)
    lines = [view.line(row("a")), view.line(row("b", replica="web-2")), view.line(row("c"))]
    assert lines[0].partition("web-1")[0] == lines[2].partition("web-1")[0] != lines[1].partition("web-2")[0]
    assert LinesView().line({"process": "controller", "time": None, "line": "ready"}) == "controller  ready"


@pytest.mark.parametrize("args", [[], ["web", "--proxy"], ["--proxy", "--controller"], ["--proxy", "--previous"]])
def test_one_thing_is_asked_for(args: list[str]) -> None:
    assert CliRunner().invoke(app, ["logs", *args]).exit_code == 2
