"""How many replicas a load asks for, when, and why."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scaled import Scaled

from serveconf.plan.demand import Sample
from serveconf.plan.scaling import Answer, Cause, Fleet, Past, Rule, decide, rule_of
from serveconf.spec.models import StackSpec

RULE = Rule(min_replicas=1, max_replicas=50)
PER_REPLICA = 10.0  # requests a second that make two run at a time, of 0.2 s each


def changes(numbers: list[int]) -> int:
    return sum(one != other for one, other in pairwise(numbers))


# the number for a load


@pytest.mark.parametrize("replicas", [1, 2, 5, 16, 40])
def test_a_load_gets_as_many_replicas_as_the_target_says(replicas: int) -> None:
    scaled = Scaled(RULE).run(150, PER_REPLICA * replicas)
    assert replicas - 1 <= scaled.number <= replicas + 1 and scaled.waiting == 0


def test_the_smallest_target_asks_for_all_that_may_be() -> None:
    """5e-324 is more than 0: a load divided by it is more than a float holds."""
    assert Scaled(replace(RULE, target_ongoing_requests=5e-324)).run(5, PER_REPLICA).number == RULE.max_replicas


def test_a_step_is_right_within_a_second_although_one_replica_serves_it_all() -> None:
    scaled = Scaled(RULE).run(60, PER_REPLICA * 0.5).run(1, PER_REPLICA * 16)
    assert 16 <= scaled.number <= 32  # and what works the queue off in a second


def test_clients_that_wait_for_their_answers_are_counted_one_by_one() -> None:
    """32 of them at one replica that takes 3 at a time: as many come as go, and all of them would run."""
    past, fleet = Past(), Fleet(number=1, ready=1, start_s=1.0)
    for tick in range(9):
        time = tick * 0.25
        done = 7 * tick
        sample = Sample(
            time=time,
            arrivals=32 + done,
            completions=done,
            ongoing_s=32 * time,
            waiting_s=29 * time,
            ongoing=32,
            waiting=29,
            oldest_wait_s=time,
        )
        verdict, past = decide(RULE, past, sample, fleet, wall=0)
    assert (verdict.number, verdict.cause) == (16, Cause.QUEUE)


def test_they_are_counted_also_while_replicas_get_ready() -> None:
    """In the middle of what is compared the second one comes, and twice as many come and go."""
    past = Past()
    for tick in range(5):
        time = tick * 0.25
        done = 7 * tick + 7 * max(0, tick - 2)
        fleet = Fleet(number=1, ready=1 if tick < 3 else 2, start_s=1.0)
        waiting = 29 if tick < 3 else 26
        sample = Sample(
            time=time,
            arrivals=32 + done,
            completions=done,
            ongoing_s=32 * time,
            waiting_s=29 * time - 3 * max(0.0, time - 0.5),
            ongoing=32,
            waiting=waiting,
            oldest_wait_s=time,
        )
        verdict, past = decide(RULE, past, sample, fleet, wall=0)
    assert (verdict.number, verdict.cause) == (16, Cause.QUEUE)


def test_a_little_over_the_target_is_no_reason() -> None:
    assert Scaled(RULE, number=10).run(50, PER_REPLICA * 10.8).number == 10
    assert Scaled(RULE, number=10).run(50, PER_REPLICA * 11.5).number == 12


def test_requests_that_do_not_end_are_load_too() -> None:
    """Open WebSockets, beside short requests that come and go."""
    past, fleet = Past(), Fleet(number=3, ready=3)
    for tick in range(400):
        time = tick * 0.25
        sample = Sample(time=time, arrivals=20 + 3 * tick, completions=3 * tick, ongoing_s=20.0 * time, ongoing=20)
        verdict, past = decide(RULE, past, sample, fleet, wall=0)
        fleet = replace(fleet, number=verdict.number, ready=verdict.number)
    assert verdict.number == 10


# when


def test_a_rise_without_a_queue_waits_for_its_delay() -> None:
    rule = replace(RULE, upscale_delay_s=20)
    scaled = Scaled(rule, number=4).run(30, PER_REPLICA * 3).run(15, PER_REPLICA * 5)
    assert scaled.number == 4 and scaled.verdict is not None and scaled.verdict.cause is Cause.SOON
    assert scaled.run(15, PER_REPLICA * 5).number == 5


def test_a_queue_does_not_wait_for_the_delay() -> None:
    scaled = Scaled(replace(RULE, upscale_delay_s=600)).run(5, 5).run(2, PER_REPLICA * 20)
    assert scaled.number > 10 and scaled.causes[0] is Cause.QUEUE


def test_no_replica_goes_before_the_load_has_asked_for_fewer_for_downscale_delay_s() -> None:
    scaled = Scaled(RULE, number=10).run(100, PER_REPLICA * 10)
    assert scaled.run(58, PER_REPLICA * 2).number == 10
    assert scaled.run(25, PER_REPLICA * 2).number == 2
    assert set(scaled.causes) == {Cause.FALLING}


def test_what_was_started_for_a_queue_goes_soon_after_it() -> None:
    scaled = Scaled(RULE).run(100, PER_REPLICA * 4).run(3, PER_REPLICA * 20)
    most = scaled.number
    scaled.run(20, PER_REPLICA * 4)
    assert most > 20 and scaled.number < 25 and scaled.time < 125


def test_a_new_past_lets_nothing_go_before_the_delay_has_passed_anew() -> None:
    scaled = Scaled(RULE, number=10).run(200, PER_REPLICA * 10)
    scaled.past = Past()
    assert scaled.run(58, PER_REPLICA).number == 10


def test_a_fall_goes_on_with_the_load() -> None:
    scaled = Scaled(RULE, number=30).run(100, PER_REPLICA * 30)
    scaled.run(300, lambda time: PER_REPLICA * max(1.0, 30 - (time - 100) / 10))
    assert scaled.number <= 6


def test_the_number_does_not_turn_within_a_start() -> None:
    scaled = Scaled(replace(RULE, downscale_delay_s=0, upscale_delay_s=0), start_s=5.0)
    scaled.run(200, lambda time: PER_REPLICA * (8 if time % 4 < 2 else 1))
    ups = [i for i, (one, other) in enumerate(pairwise(scaled.numbers)) if other > one]
    downs = [i for i, (one, other) in enumerate(pairwise(scaled.numbers)) if other < one]
    assert ups and all(not 0 < down - up <= 4 * 5 for up in ups for down in downs)


def test_the_number_does_not_turn_while_what_was_asked_for_comes_a_few_at_a_time() -> None:
    """Two start at a time, and take what the clients beside them need: so few of these ask until all have started."""
    scaled = Scaled(replace(RULE, max_replicas=16, downscale_delay_s=5), service_s=0.1, at_once=2)
    scaled.serve(5, 1, 0.002)
    before = len(scaled.numbers)
    scaled.serve(25, 32, lambda time: 0.1 if scaled.starts else 0.004)
    found = scaled.numbers[before:]
    assert found == sorted(found) and scaled.ready == scaled.number >= 15


def test_a_rise_whose_replicas_find_no_room_may_fall_again() -> None:
    scaled = Scaled(replace(RULE, downscale_delay_s=2), takes_s=lambda: 1000).run(3, PER_REPLICA * 3)
    assert scaled.number > 3 and scaled.ready == 1
    assert scaled.run(20, 1).number == 1


# steps and factors


def test_no_more_than_max_upscale_step_are_started_at_once() -> None:
    scaled = Scaled(replace(RULE, max_upscale_step=3), start_s=2.0).run(30, PER_REPLICA * 20)
    assert max(other - one for one, other in pairwise([1, *scaled.numbers])) == 3
    first = scaled.numbers.index(4)
    assert scaled.numbers[first : first + 7] == [4] * 7  # until those have started
    assert scaled.number >= 20


def test_half_of_what_is_missing_is_added_at_once() -> None:
    numbers = Scaled(replace(RULE, upscaling_factor=0.5), number=10).run(40, PER_REPLICA * 14).numbers
    assert list(dict.fromkeys(numbers)) == [10, 12, 13]
    assert max(Scaled(replace(RULE, upscaling_factor=2.0), number=8).run(9, PER_REPLICA * 10).numbers) == 12


def test_half_of_the_surplus_goes_at_once() -> None:
    scaled = Scaled(replace(RULE, downscaling_factor=0.5), number=10).run(100, PER_REPLICA * 10)
    scaled.run(75, PER_REPLICA * 2)
    assert scaled.number == 6
    assert scaled.run(400, PER_REPLICA * 2).number == 2


# none


ZERO = Rule(min_replicas=0, max_replicas=10, downscale_delay_s=30)


def test_without_requests_the_last_replica_goes() -> None:
    scaled = Scaled(ZERO).run(20, PER_REPLICA).run(29, 0)
    assert scaled.number == 1
    assert scaled.run(3, 0).number == 0 and scaled.causes == [Cause.IDLE]


def test_going_to_none_has_a_delay_of_its_own() -> None:
    assert Scaled(replace(ZERO, downscale_to_zero_delay_s=100)).run(20, PER_REPLICA).run(90, 0).number == 1
    assert Scaled(replace(ZERO, downscale_to_zero_delay_s=5)).run(20, PER_REPLICA).run(7, 0).number == 0


def test_a_request_now_and_then_keeps_the_last_replica() -> None:
    scaled = Scaled(ZERO).run(300, lambda time: 4.0 if round(time * 4) % 80 == 0 else 0.0)
    assert set(scaled.numbers) == {1}


def test_from_none_the_first_request_starts_one_and_many_start_many() -> None:
    for requests, number in ((1, 1), (9, 5), (1000, 10)):
        sample = Sample(time=5.0, arrivals=requests, ongoing=requests, waiting=requests)
        verdict, _ = decide(ZERO, Past(), sample, Fleet(number=0, ready=0), wall=0)
        assert (verdict.number, verdict.cause in (Cause.QUEUE, Cause.BOUNDS)) == (number, True)


def test_from_none_the_first_request_does_not_have_to_wait_in_line_before_it_counts() -> None:
    """Its report says that it is there, before it has been found that there is nobody to take it."""
    _, past = decide(ZERO, Past(), Sample(time=5.0), Fleet(number=0, ready=0), wall=0)
    sample = Sample(time=15.0, arrivals=1, ongoing=1)
    assert decide(ZERO, past, sample, Fleet(number=0, ready=0), wall=0)[0].number == 1


def test_what_comes_after_a_quiet_time_is_no_average_over_it() -> None:
    """53 requests in a tenth of a second, of 0.1 s each: five run at a time, and five more work the queue off in a second."""
    past = Past()
    for time, arrivals, ongoing in ((1.0, 0, 0), (1.25, 10, 1), (2.25, 20, 0), (50.0, 20, 0), (62.0, 21, 1)):
        served_s = min(arrivals, 20) * 0.1
        sample = Sample(
            time=time, arrivals=arrivals, completions=min(arrivals, 20), ongoing_s=served_s, ongoing=ongoing
        )
        _, past = decide(ZERO, past, sample, Fleet(number=1, ready=1), wall=0)
    burst = Sample(time=62.1, arrivals=73, completions=20, ongoing_s=4.0, waiting_s=2.0, ongoing=53, waiting=53)
    assert decide(ZERO, past, burst, Fleet(number=1, ready=0, starting=1), wall=0)[0].number == 6


# what else decides


def test_a_silent_proxy_keeps_the_number() -> None:
    scaled = Scaled(RULE, number=10).run(100, PER_REPLICA * 10)
    scaled.silent = True
    assert scaled.run(300, 0).number == 10
    assert scaled.verdict is not None and scaled.verdict.cause is Cause.SILENT
    scaled.silent = False
    assert scaled.run(50, 0).number == 10
    assert scaled.run(20, 0).number == 1


def test_replicas_that_do_not_start_are_not_asked_for_again_and_again() -> None:
    sample = Sample(time=9.0, arrivals=100, ongoing=100, waiting=100, oldest_wait_s=9)
    verdict, _ = decide(RULE, Past(), sample, Fleet(number=2, ready=0, failing=True), wall=0)
    assert (verdict.number, verdict.cause) == (2, Cause.FAILING)


@pytest.mark.parametrize(
    ("answer", "number", "reason"),
    [
        (Answer(number=7), 7, "the policy says so"),
        (Answer(number=99), 50, "min_replicas and max_replicas: 1 to 50"),
        (Answer(failure="ZeroDivisionError"), 3, "the policy failed: ZeroDivisionError"),
        (None, 3, "the policy says so"),
    ],
)
def test_a_policy_decides_within_the_bounds(answer: Answer | None, number: int, reason: str) -> None:
    rule = replace(RULE, policy="m:f")
    verdict, _ = decide(rule, Past(), Sample(time=1.0), Fleet(number=3, ready=3), wall=0, answer=answer)
    assert (verdict.number, verdict.reason) == (number, reason)


def test_a_number_set_by_hand_stays_within_the_bounds() -> None:
    for held, number in ((8, 8), (0, 1), (60, 50)):
        verdict, _ = decide(RULE, Past(), Sample(time=1.0), Fleet(number=3, ready=3), wall=0, held=held)
        assert verdict.number == number


def test_the_reason_has_the_numbers() -> None:
    scaled = Scaled(RULE).run(100, PER_REPLICA * 4)
    assert scaled.verdict is not None
    assert re.fullmatch(
        r"as many as the load asks for: 7\.\d requests at a time, target 2 per replica", scaled.verdict.reason
    )


def test_a_rule_says_what_the_file_says() -> None:
    config = {
        "min_replicas": 2,
        "max_replicas": 9,
        "schedule": [{"from": "08:00", "until": "18:00", "max_replicas": 20}],
    }
    said: Any = {"deployments": [{"name": "a", "import_path": "m:app", "autoscaling_config": config}]}
    rule = rule_of(StackSpec.model_validate_json(json.dumps(said)).deployments[0].model_dump(mode="json"))
    assert rule is not None
    assert (rule.min_replicas, rule.max_replicas, rule.downscale_delay_s, rule.widest.most) == (2, 9, 60.0, 20)
    assert rule_of({"num_replicas": 3, "autoscaling_config": None}) is None


# properties

RULES = st.builds(
    Rule,
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 12),
    target_ongoing_requests=st.sampled_from([0.5, 1.0, 2.0, 7.5]),
    upscale_delay_s=st.sampled_from([0.0, 1.0, 5.0]),
    downscale_delay_s=st.sampled_from([0.0, 5.0, 20.0]),
    upscaling_factor=st.sampled_from([0.3, 1.0, 3.0]),
    downscaling_factor=st.sampled_from([0.3, 1.0, 3.0]),
    max_upscale_step=st.sampled_from([None, 1, 4]),
)
RATES = st.lists(st.tuples(st.floats(0.5, 8), st.floats(0, 120)), min_size=1, max_size=4)


def run(scaled: Scaled, rates: list[tuple[float, float]]) -> Scaled:
    for seconds, rate in rates:
        scaled.run(seconds, rate)
    return scaled


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rule=RULES, rates=RATES, number=st.integers(0, 20))
def test_never_outside_of_the_bounds(rule: Rule, rates: list[tuple[float, float]], number: int) -> None:
    scaled = run(Scaled(rule, number=number), rates)
    assert all(rule.min_replicas <= one <= rule.max_replicas for one in scaled.numbers)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rule=RULES, rates=RATES, number=st.integers(0, 6), more=st.integers(1, 5), starting=st.integers(0, 4))
def test_one_more_replica_never_raises_the_number(
    rule: Rule, rates: list[tuple[float, float]], number: int, more: int, starting: int
) -> None:
    scaled = run(Scaled(rule, number=number), rates)
    sample, fleet = scaled.sample(), replace(scaled.fleet(), starting=starting)
    sample = replace(sample, time=sample.time + 0.25)
    few, _ = decide(rule, scaled.past, sample, fleet, wall=0)
    many, _ = decide(rule, scaled.past, sample, replace(fleet, starting=fleet.starting + more), wall=0)
    assert many.number <= few.number
    ready, _ = decide(rule, scaled.past, sample, replace(fleet, ready=fleet.ready + more), wall=0)
    assert ready.number <= max(few.number, fleet.number)  # it may keep the number from falling at once


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    delay_s=st.sampled_from([0.0, 1.0, 5.0]),
    at_once=st.integers(1, 4),
    loads=st.lists(st.tuples(st.floats(0.5, 8), st.integers(0, 60)), min_size=2, max_size=5),
    closed=st.booleans(),
)
def test_the_number_does_not_turn_within_the_start_of_a_replica_that_is_starting(
    seed: int, delay_s: float, at_once: int, loads: list[tuple[float, int]], closed: bool
) -> None:
    """Whatever chance does to what starts take, to how soon clients ask again, and to what is seen of it."""
    dice = random.Random(seed)
    rule = replace(RULE, max_replicas=30, downscale_delay_s=delay_s, upscale_delay_s=0)
    scaled = Scaled(rule, at_once=at_once, takes_s=lambda: dice.choice([0.3, 1.0, 1.5, 6.0]))
    scaled.blurred = lambda seen: seen * dice.uniform(0.5, 1.5)
    for seconds, load in loads:
        if closed:
            scaled.serve(seconds, load, lambda _time: dice.choice([0.001, 0.02, 0.5]))
        else:
            scaled.run(seconds, lambda _time, load=load: 5 * load * dice.choice([0.2, 1.0, 3.0]))
    assert all(age > scaled.start_s for age in scaled.turns)


def asked_for(rate: float, number: int, seconds: float) -> int:
    """What ``number`` replicas that served a rate for some time make of it."""
    fixed = Scaled(replace(RULE, min_replicas=number, max_replicas=number), number=number).run(seconds, rate)
    sample = replace(fixed.sample(), time=fixed.time + 0.01)
    return decide(RULE, fixed.past, sample, fixed.fleet(), wall=0)[0].number


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shares=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)), number=st.integers(1, 8), seconds=st.floats(3, 90))
def test_more_load_never_asks_for_fewer_where_there_is_room(
    shares: tuple[float, float], number: int, seconds: float
) -> None:
    few, many = (asked_for(15 * number * share, number, seconds) for share in sorted(shares))
    assert few <= many


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shares=st.tuples(st.floats(1.2, 9), st.floats(1.2, 9)), number=st.integers(1, 8), seconds=st.floats(1, 9))
def test_more_load_never_asks_for_fewer_where_a_queue_grows(
    shares: tuple[float, float], number: int, seconds: float
) -> None:
    few, many = (asked_for(15 * number * share, number, seconds) for share in sorted(shares))
    assert few <= many


@settings(max_examples=40, deadline=None, derandomize=True)
@given(clients=st.tuples(st.integers(4, 90), st.integers(4, 90)))
def test_more_clients_never_ask_for_fewer(clients: tuple[int, int]) -> None:
    found = []
    for count in sorted(clients):
        past, fleet = Past(), Fleet(number=1, ready=1)
        for tick in range(8):
            time, done = tick * 0.25, 4 * tick
            sample = Sample(
                time=time,
                arrivals=count + done,
                completions=done,
                ongoing_s=count * time,
                waiting_s=(count - 3) * time,
                ongoing=count,
                waiting=count - 3,
                oldest_wait_s=time,
            )
            verdict, past = decide(RULE, past, sample, fleet, wall=0)
        found.append(verdict.number)
    assert found[0] <= found[1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(load=st.floats(0.2, 30), number=st.integers(1, 40), service_s=st.sampled_from([0.05, 0.2, 2.0]))
def test_a_constant_load_settles(load: float, number: int, service_s: float) -> None:
    assume(abs(load - round(load)) > 0.05)  # just at the border two numbers are as good
    scaled = Scaled(RULE, number=number, service_s=service_s).run(240, 2 * load / service_s)
    assert len(set(scaled.numbers[-200:])) == 1
    assert load * 0.85 <= scaled.number <= load + 2


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), replicas=st.integers(2, 20))
def test_noise_makes_it_no_flapping(seed: int, replicas: int) -> None:
    """A change a minute at most where only chance moves the load, by a fifth from one quarter of a second to the next."""
    dice = random.Random(seed)
    scaled = Scaled(RULE, number=replicas).run(60, PER_REPLICA * replicas)
    before = len(scaled.numbers)
    scaled.run(600, lambda _time: PER_REPLICA * replicas * dice.gauss(1.0, 0.2))
    assert changes(scaled.numbers[before:]) <= 12
    assert all(0.8 * replicas - 1 <= one <= 1.6 * replicas + 1 for one in scaled.numbers[before:])
