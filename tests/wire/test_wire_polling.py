"""When a replica stays awake for the next request, and when it does not."""

from __future__ import annotations

import pytest
from wire_harness import answer, get, http_scope, in_loop, pair

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
    poll = BusyPoll(lambda: 0.0)
    serve(poll, clock, STREAK, POLL_S / 10)
    assert clock.turn() == 0
    serve(poll, clock, 1, POLL_S / 10)
    assert [clock.turn() for _ in range(3)] == [1, 1, 1]
    clock.now += POLL_S
    assert [clock.turn() for _ in range(3)] == [1, 0, 0]


def test_does_not_poll_while_a_request_is_handled(clock):
    poll = BusyPoll(lambda: 0.0)
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    poll.asked()
    assert [clock.turn() for _ in range(2)] == [1, 0]
    poll.answered(clock)
    assert [clock.turn() for _ in range(2)] == [1, 1]


def test_one_slow_request_ends_it(clock):
    poll = BusyPoll(lambda: 0.0)
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    clock.now += POLL_S
    serve(poll, clock, 1, POLL_S / 10)
    clock.now += POLL_S
    clock.turn()
    assert clock.turn() == 0


def test_requests_that_overlap_are_polled_after_when_the_last_of_them_is_answered(clock):
    poll = BusyPoll(lambda: 0.0)
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
    poll = BusyPoll(lambda: 0.0)
    serve(poll, clock, STREAK + 1, POLL_S / 10)
    clock.now += POLL_S
    clock.turn()
    for _ in range(3):
        poll.answered(clock)
        assert clock.turn() == 0
        clock.now += POLL_S * 2


def polled(poll, clock, seconds):
    """Requests one after the other for so long; how many turns were spent polling after them."""
    turns = 0
    until = clock.now + seconds
    while clock.now < until:
        serve(poll, clock, 1, POLL_S / 10)
        turns += clock.turn()
    return turns


def test_a_core_that_others_want_is_left_to_them_and_tried_again_later(clock):
    waited = [0.0]
    poll = BusyPoll(lambda: waited[0])
    assert polled(poll, clock, 0.5) > 100
    waited[0] += 0.8 * polling.LOOK_S
    assert polled(poll, clock, polling.LOOK_S) > 0
    assert polled(poll, clock, polling.FIRST_REST_S - 2 * polling.LOOK_S) == 0
    assert polled(poll, clock, polling.FIRST_REST_S) > 0


def test_a_proxy_or_a_client_that_works_on_this_core_for_the_same_request_is_not_taken_for_others(clock):
    before = clock.now
    poll = BusyPoll(lambda: 0.4 * (clock.now - before))
    assert polled(poll, clock, 1) > 0.9 * 1 / (POLL_S / 10)


def test_the_rest_gets_longer_while_others_want_the_core(clock):
    poll = BusyPoll(lambda: clock.now)  # it waits all of the time
    polled(poll, clock, 5)
    share = polled(poll, clock, 15) / (15 / (POLL_S / 10))
    assert share < 0.02


def test_without_a_way_to_tell_nothing_is_polled(clock):
    assert polled(BusyPoll(None), clock, 0.5) == 0


def test_the_environment_switches_it_off(clock, monkeypatch):
    monkeypatch.setenv("SERVECONF_POLLING", "0")
    assert polled(polling.make_poll(), clock, 0.5) == 0


def test_how_long_this_thread_has_waited_is_told(monkeypatch):
    monkeypatch.delenv("SERVECONF_POLLING", raising=False)
    poll = polling.make_poll()
    assert poll._waited_s is None or poll._waited_s() >= 0


def test_only_what_a_client_asks_for_counts_not_what_keeps_an_answer_going(monkeypatch):
    asked = []
    really = BusyPoll.asked
    monkeypatch.setattr(BusyPoll, "asked", lambda self: (asked.append(1), really(self)))

    async def large(scope, receive, send):
        await answer(send, bytes(5 << 20))  # takes several credits

    @in_loop
    async def run():
        async with pair(large) as (_, client):
            for _ in range(3):
                peer = get()
                await client(http_scope(), peer.receive, peer.send)

    run()
    assert len(asked) == 3
