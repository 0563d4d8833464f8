"""Events as lines for people, times as people write them, and following past the end of a controller."""

from __future__ import annotations

import datetime
import time

import pytest

from serveconf.cli.events import followed
from serveconf.cli.events_view import EventList, render_event
from serveconf.cli.options import read_since
from serveconf.errors import AuthorError, Unreachable

NOW = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def event(message="replica web-2 died", **changed):
    return {
        "time": "2026-01-31T11:00:00.000+00:00",
        "kind": "heal",
        "stack": "shop",
        "deployment": "web",
        "message": message,
        "data": {},
        "count": 1,
        **changed,
    }


def test_a_line_says_when_what_where_and_why():
    assert render_event(event()) == "2026-01-31 12:00:00  heal        shop/web  replica web-2 died"
    of_nobody = render_event(event(stack=None, deployment=None, kind="node"))
    assert of_nobody == "2026-01-31 12:00:00  node        -  replica web-2 died"


def test_repeats_are_said_in_words():
    first = {"first": "2026-01-31T10:58:00.000+00:00"}
    assert render_event(event(count=7, data=first)).endswith("replica web-2 died (7 times in 2 min)")
    assert render_event(event(count=7, data={"first": "2026-01-30T10:58:00+00:00"})).endswith("(7 times in 1 d)")


def test_an_apply_that_came_to_nothing_stands_out():
    red, green = "\x1b[31m", "\x1b[32m"
    failed = render_event(event("taken back", kind="apply", data={"code": "replica_failed"}), color=True)
    assert red in failed and green not in failed
    assert green in render_event(event("is applied", kind="apply"), color=True)


def test_what_user_code_said_moves_no_cursor():
    assert "\x1b" not in render_event(event("\x1b[2Jgone"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", "2026-01-31T11:50:00+00:00"),
        ("1h30m", "2026-01-31T10:30:00+00:00"),
        ("2d", "2026-01-29T12:00:00+00:00"),
        ("0.5s", "2026-01-31T11:59:59.500000+00:00"),
        ("2026-01-31T08:00", "2026-01-31T08:00:00+01:00"),
        ("2026-01-31T08:00Z", "2026-01-31T09:00:00+01:00"),
    ],
)
def test_a_time_is_read_as_people_write_it(text, moment):
    assert read_since(text, NOW).isoformat() == moment


@pytest.mark.parametrize(
    "text", ["", "10", "m", "yesterday", "-5m", "5 m", "9999999d", "99999999999999d", "0001-01-01"]
)
def test_what_is_no_time_is_refused_with_how_to_write_one(text):
    with pytest.raises(AuthorError, match="is no time") as caught:
        read_since(text, NOW)
    assert "10m" in (caught.value.hint or "")


class OneThatDies:
    """A control API whose first controller dies after two events."""

    address = "http://controller"

    def __init__(self):
        self.asked = []

    def follow_events(self, *, stack, since):
        self.asked.append(since)
        one, two = event("one"), event("two", time="2026-01-31T11:00:01.000+00:00")
        if len(self.asked) == 1:
            yield from (one, two)
            raise Unreachable("gone")
        if len(self.asked) == 2:
            yield from (two, event("three", time="2026-01-31T11:00:01.000+00:00"))
            return
        raise KeyboardInterrupt

    def comes_back(self, seconds):
        return True


def test_following_goes_on_with_the_next_controller_and_nothing_comes_twice():
    client = OneThatDies()
    events = followed(client, None, None)
    assert [next(events)["message"] for _ in range(3)] == ["one", "two", "three"]
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert client.asked == [None, "2026-01-31T11:00:01.000+00:00", "2026-01-31T11:00:01.000+00:00"]


def test_a_message_that_is_too_long_for_the_terminal_is_whole_and_hangs_below_its_begin() -> None:
    events = EventList()
    message = "revision 2 was taken back: the replicas of 'catalog' died three times before they were ready"
    events.take(event(message=message))
    first, *rest = events.lines(10, width=80)
    assert max(map(len, [first, *rest])) <= 80
    assert all(line[:22] == " " * 22 and line[22] != " " for line in rest)
    assert " ".join(" ".join([first, *rest]).split()).endswith(message)
    assert events.lines(1, width=80) == rest[-1:]
