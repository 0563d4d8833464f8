"""How the end of a change comes to who asked for it in Python."""

from __future__ import annotations

import traceback

import pytest

from serveconf.errors import AuthorError, CodeFailed, Conflict, InternalError, OperatorError
from serveconf.serve.session import checked


def result(outcome, **problem):
    problems = [{"message": "m", "code": "c", "path": "p", "hint": None, "traceback": "", **problem}] if problem else []
    return {"outcome": outcome, "problems": problems}


@pytest.mark.parametrize("outcome", ["applied", "unchanged"])
def test_a_good_end_is_the_result_itself(outcome):
    good = result(outcome)
    assert checked(good) is good


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (result("conflict", code="prefix"), Conflict),
        (result("timeout", code="deadline"), OperatorError),
        (result("rolled_back", code="code_failed"), CodeFailed),
        (result("rolled_back", code="replica_failed", traceback="Traceback: x"), CodeFailed),
        (result("failed", code="internal"), InternalError),
        (result("failed", code="too_large"), AuthorError),
        (result("failed"), InternalError),
    ],
)
def test_a_bad_end_is_raised_by_who_must_act(bad, error):
    with pytest.raises(error):
        checked(bad)


def test_the_users_traceback_is_shown_with_the_error():
    with pytest.raises(CodeFailed) as caught:
        checked(result("rolled_back", code="code_failed", traceback="  my_code.py, line 7", deployment="model"))
    assert caught.value.traceback == "  my_code.py, line 7"
    shown = "".join(traceback.format_exception(caught.value))
    assert "model:\n  my_code.py, line 7" in shown
