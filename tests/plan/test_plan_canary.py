"""The judgement of a canary: what speaks against the new version, and what does not."""

from __future__ import annotations

import random

import pytest

from serveconf.plan.canary import (
    BOUNDS,
    CanaryRule,
    Evidence,
    Side,
    bucket_of,
    look,
    p95,
    rule_of,
    slow_from,
    why_worse,
)

RULE = CanaryRule(steps=(5, 25, 50), max_error_rate=0.05, max_latency_ratio=1.5)


def slowness(*seconds: float) -> tuple[int, ...]:
    counts = [0] * (len(BOUNDS) + 1)
    for one in seconds:
        counts[bucket_of(one)] += 1
    return tuple(counts)


def judged(*looks: tuple[Side, Side], rule: CanaryRule = RULE) -> str | None:
    evidence = Evidence()
    for old, new in looks:
        evidence = look(evidence, old, new, rule)
        if why := why_worse(evidence, rule):
            return why
    return None


def test_failures_that_the_old_version_does_not_have_speak_against_the_new_one() -> None:
    why = judged(*[(Side(given=45), Side(given=5, failed=1))] * 4)
    assert why == (
        "4 of 20 answers of the new version failed (20.0%), of the old one 0 of 180 in the same time; max_error_rate is 0.05"
    )


def test_what_is_moderately_bad_is_found_at_180_answers_though_no_bet_has_won() -> None:
    looks = [(Side(given=47, failed=2), Side(given=3, failed=n % 10 > 6)) for n in range(60)]
    assert judged(*looks[:59]) is None
    assert judged(*looks) is not None
    assert judged((Side(given=2820, failed=120), Side(given=180, failed=13))) is None


def test_what_befalls_both_speaks_against_neither() -> None:
    assert judged(*[(Side(given=45, failed=45), Side(given=5, failed=5))] * 100) is None
    assert judged(*[(Side(given=25, failed=5), Side(given=25, failed=5))] * 100) is None


def test_more_errors_than_the_old_version_within_the_limit_are_allowed() -> None:
    assert judged(*[(Side(given=1000), Side(given=1000, failed=40))] * 20) is None


def test_one_failure_proves_nothing() -> None:
    assert judged((Side(given=95), Side(given=5, failed=1))) is None


def test_where_there_is_nothing_to_compare_with_the_share_counts() -> None:
    assert judged((Side(), Side(given=19, failed=19))) is None
    assert judged((Side(), Side(given=20, failed=20))) is not None


def test_a_version_that_is_slower_is_taken_back() -> None:
    looks = [(Side(given=95, slowness=slowness(*[0.01] * 95)), Side(given=5, slowness=slowness(*[0.05] * 5)))] * 4
    why = judged(*looks)
    assert why is not None
    assert "p95" in why
    assert judged(*looks, rule=CanaryRule(steps=(5,), max_latency_ratio=None)) is None


def test_what_slows_both_down_speaks_against_neither() -> None:
    calm = (Side(given=80, slowness=slowness(*[0.01] * 80)), Side(given=20, slowness=slowness(*[0.01] * 20)))
    hard = (Side(given=80, slowness=slowness(*[0.09] * 80)), Side(given=20, slowness=slowness(*[0.09] * 20)))
    assert judged(*[calm] * 5, *[hard] * 20) is None


def test_latency_is_judged_when_the_old_one_is_known() -> None:
    assert slow_from(Side(slowness=slowness(*[0.01] * 99)), RULE) is None
    limit = slow_from(Side(slowness=slowness(*[0.01] * 100)), RULE)
    assert limit is not None
    assert 0.015 <= BOUNDS[limit - 1] < 0.018


def test_p95_is_as_exact_as_the_buckets() -> None:
    values = [random.Random(1).uniform(0.001, 1.0) for _ in range(10_000)]
    assert p95(slowness(*values)) == pytest.approx(sorted(values)[9500], rel=0.1)
    assert p95(()) == 0.0


def test_the_rule_is_what_rollout_says() -> None:
    assert rule_of({"canary": None}) is None
    assert rule_of({"max_error_rate": 0.2, "canary": {"steps": [10], "step_s": 5}}) == CanaryRule(
        steps=(10,), step_s=5, max_error_rate=0.2
    )


def false_alarms(canaries: int, error_rate: float) -> int:
    """How many versions that are as good as the old one are taken back; ``benchmarks/canaries.py`` does more of them."""
    rng = random.Random(7)
    back = 0
    for _ in range(canaries):
        evidence = Evidence()
        for share in (5, 25, 50):
            for _ in range(20):
                new, old = share, 100 - share
                failed = [sum(rng.random() < error_rate for _ in range(count)) for count in (old, new)]
                evidence = look(evidence, Side(given=old, failed=failed[0]), Side(given=new, failed=failed[1]), RULE)
            if why_worse(evidence, RULE):
                back += 1
                break
    return back


def test_a_version_as_good_as_the_old_one_is_left_alone() -> None:
    assert false_alarms(100, 0.1) <= 3
