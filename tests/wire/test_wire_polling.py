"""When a replica stays awake for the next request, and when it does not."""

from __future__ import annotations

import pytest

from serveconf.wire import polling
from serveconf.wire.polling import POLL_S, STREAK, BusyPoll


class Clock:
    """The time, and an event loop that runs what is due when it is told to."""

    def __init__(self):
        self.now = 100.0
        self.soon = []

    def __call__(self):
        return self.now

    def call_soon(self, call, *arguments):
        self.soon.append((call, arguments))

    def turn(self):
        """One turn of the loop; how much there was to do."""
        due, self.soon = self.soon, []
        for call, arguments in due:
            call(*arguments)
        return len(due)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(polling, "monotonic", clock)
    return clock


def serve(poll, clock, count, pause_s):
    """Requests, one after the other, with a pause after each answer."""
    for _ in range(count):
        poll.asked()
        poll.answered(clock)
        clock.turn()
        clock.now += pause_s


def test_polls_after_a_streak_of_quick_requests_until_the_next_one_is_overdue(clock):
    poll = BusyPoll()
    serve(poll, clock, STREAK, POLL_S / 10)
    assert clock.turn() == 0
    serve(poll, clock, 1, POLL_S / 10)
    assert [clock.turn() for _ in range(3)] == [1, 1, 1]
    clock.now += POLL_S
    assert [clock.turn() for _ in range(3)] == [1, 0, 0]


def test_does_not_poll_while_a_request_is_handled(clock):
    poll = BusyPoll()
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    poll.asked()
    assert [clock.turn() for _ in range(2)] == [1, 0]
    poll.answered(clock)
    assert [clock.turn() for _ in range(2)] == [1, 1]


def test_one_slow_request_ends_it(clock):
    poll = BusyPoll()
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    clock.now += POLL_S
    serve(poll, clock, 1, POLL_S / 10)
    clock.now += POLL_S
    clock.turn()
    assert clock.turn() == 0


def test_requests_that_overlap_are_polled_after_when_the_last_of_them_is_answered(clock):
    poll = BusyPoll()
    for _ in range(STREAK + 1):
        poll.asked()
        poll.asked()
        clock.now += POLL_S / 10
        poll.answered(clock)
        clock.now += POLL_S / 10
    assert [clock.turn() for _ in range(2)] == [1, 1]
    poll.asked()
    assert [clock.turn() for _ in range(2)] == [1, 0]


def test_answers_that_nobody_asked_for_are_not_polled_after(clock):
    poll = BusyPoll()
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    clock.now += POLL_S
    clock.turn()
    for _ in range(3):
        poll.answered(clock)
        assert clock.turn() == 0
        clock.now += POLL_S * 2
