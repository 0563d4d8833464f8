"""The revisions of a stack, for people."""

from __future__ import annotations

import time

import pytest

from serveconf.cli.status_view import render_history


def test_a_revision_is_a_line_with_the_time_that_it_was_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"revision": 3, "time": "2026-01-31T23:30:00+00:00", "outcome": "applied", "author": "ada", "token": "ci"}
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        lines = render_history([{**one, "summary": "1 rolled"}]).splitlines()
    time.tzset()
    assert lines == [
        "REVISION  TIME                 OUTCOME  AUTHOR  TOKEN  SUMMARY",
        "3         2026-02-01 00:30:00  applied  ada     ci     1 rolled",
    ]
