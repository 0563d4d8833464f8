"""Whether the new version of a deployment is worse than the old one, judged while both serve: pure.

The two are compared over the same moments: whatever befalls both of them (a database that is down) speaks against neither.
Each look gives what either side has answered since the look before. If the new version were no worse, the failures of
that time would lie on the two sides as chance deals them: of ``K`` failures among ``N`` requests, as many on the new
side as a hypergeometric draw gives. How much likelier they lie as they do if the odds of failing are some times higher
there (Fisher's noncentral hypergeometric) is a bet whose winnings multiply from look to look; a mean over several odds
needs no guess of how bad the new version is. Played without end against chance such a bet exceeds ``1 / ALPHA`` with a
probability of less than ``ALPHA`` (Ville's inequality), however often one looks: so one may look all the time.

Who may look at any time needs more proof at each. So once, at ``ONCE`` answers of the new side, the number of its failures
is also held against the exact chance of so many (the stratified form of Fisher's test), which finds what is moderately bad.

Latency likewise: of the old side the answers slower than its p95 so far count, of the new one those slower than
``max_latency_ratio`` times that. When something makes both slower, both have more of them.
``benchmarks/canaries.py`` simulates both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import exp, floor, lgamma, log

import msgspec

from serveconf.figures import Side, add_sides

ALPHA_ERRORS = 0.003  # with the next two: how often a version as good as the old one may be taken back
ALPHA_ONCE = 0.004
ALPHA_LATENCY = 0.003
ONCE = 180
ENOUGH_FOR_P95 = 100  # answers of the old side below which its p95 is not known well enough

_ODDS = {3.0: 0.5, 10.0: 0.25, 50.0: 0.15, 250.0: 0.1}  # how many times higher the new side's odds of failing may be
_SLOW = {2.0: 0.25, 4.0: 0.25, 10.0: 0.25, 40.0: 0.25}  # ... and of being slow; each with its part of the stake
_P95_TAIL = 0.05

BOUNDS = tuple(0.0005 * 1.1**step for step in range(144))  # seconds: half a millisecond to seven minutes, by tenths


class CanaryRule(msgspec.Struct, frozen=True, kw_only=True):
    """What ``rollout`` says of it."""

    steps: tuple[float, ...]
    step_s: float = 30.0
    min_requests: int = 20
    max_error_rate: float = 0.05
    max_latency_ratio: float | None = 1.5
    sticky: str | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What has been seen since the canary began: the sums, and the logarithms of the bets against chance."""

    old: Side = Side()
    new: Side = Side()
    errors: tuple[float, ...] = (0.0,) * len(_ODDS)
    slow: tuple[float, ...] = (0.0,) * len(_SLOW)
    dealt: tuple[float, ...] = (1.0,)  # how likely chance deals the new side 0, 1, … failures; until ONCE
    proved: bool = False  # it was too unlikely
    owed: float = 0.0  # the part of a slow answer of the old side that is not counted yet: its p95 lies within a bucket


def rule_of(rollout: Mapping[str, object]) -> CanaryRule | None:
    """The rule of a deployment's ``rollout``; None where it has no canary."""
    canary = rollout.get("canary")
    if not isinstance(canary, Mapping):
        return None
    said = {name: canary[name] for name in CanaryRule.__struct_fields__ if name in canary}
    if "max_error_rate" in rollout:
        said["max_error_rate"] = rollout["max_error_rate"]
    return msgspec.convert(said, CanaryRule)


def look(evidence: Evidence, old: Side, new: Side, rule: CanaryRule) -> Evidence:
    """The evidence with what both sides have answered since the look before."""
    slow, owed = evidence.slow, evidence.owed
    limit = slow_from(evidence.old, rule)
    if limit is not None:
        index, weight = _p95_bucket(evidence.old.slowness)
        exact = owed + sum(old.slowness[index + 1 :]) + weight * sum(old.slowness[index : index + 1])
        owed = exact - floor(exact)
        one = Side(given=sum(old.slowness), failed=floor(exact))
        other = Side(given=sum(new.slowness), failed=sum(new.slowness[limit:]))
        slow = tuple(bet + _won(odds, one, other) for bet, odds in zip(slow, _SLOW, strict=True))
    errors = tuple(bet + _won(odds, old, new) for bet, odds in zip(evidence.errors, _ODDS, strict=True))
    given = add_sides(evidence.new, new)
    dealt, proved = evidence.dealt, evidence.proved
    if dealt:
        dealt = _convolve(dealt, _dealt(old, new))
    if dealt and given.given >= ONCE:
        dealt, proved = (), sum(dealt[given.failed :]) <= ALPHA_ONCE
    return Evidence(
        old=add_sides(evidence.old, old), new=given, errors=errors, slow=slow, dealt=dealt, proved=proved, owed=owed
    )


def why_worse(evidence: Evidence, rule: CanaryRule) -> str | None:
    """Why the new version has to be taken back; None while nothing is proved against it."""
    old, new = evidence.old, evidence.new
    if new.error_rate > rule.max_error_rate:
        proved = evidence.proved or _won_in_all(evidence.errors, _ODDS) >= 1 / ALPHA_ERRORS
        alone = not old.given and new.given >= rule.min_requests  # nothing to compare it with
        if proved or alone:
            return (
                f"{new.failed} of {new.given} answers of the new version failed ({new.error_rate:.1%}), "
                f"of the old one {old.failed} of {old.given} in the same time; max_error_rate is {rule.max_error_rate:.3g}"
            )
    if rule.max_latency_ratio is not None and _won_in_all(evidence.slow, _SLOW) >= 1 / ALPHA_LATENCY:
        one, other = p95(new.slowness), p95(old.slowness)
        if one > rule.max_latency_ratio * other:
            return (
                f"the new version's p95 is {one * 1000:.3g} ms, the old one's {other * 1000:.3g} ms in the same time; "
                f"max_latency_ratio is {rule.max_latency_ratio:.3g}"
            )
    return None


def slow_from(old: Side, rule: CanaryRule) -> int | None:
    """The index in ``slowness`` from which on a new answer counts as slow; None while the old side's p95 is not known."""
    if rule.max_latency_ratio is None or sum(old.slowness) < ENOUGH_FOR_P95:
        return None
    return bisect_left(BOUNDS, rule.max_latency_ratio * p95(old.slowness)) + 1


def p95(slowness: Sequence[int]) -> float:
    """The time, in seconds, within which 95 % of the answers began, as exactly as the buckets tell; 0 of none."""
    index, weight = _p95_bucket(slowness)
    width: float = 1.1**-weight
    return BOUNDS[min(index, len(BOUNDS) - 1)] * width if weight else 0.0


def _p95_bucket(slowness: Sequence[int]) -> tuple[int, float]:
    """The bucket that the p95 lies in, and which part of it is beyond; (0, 0) of none."""
    beyond = sum(slowness) * _P95_TAIL
    for index in range(len(slowness) - 1, -1, -1):
        beyond -= slowness[index]
        if beyond < 0:
            return index, 1 + beyond / slowness[index]
    return 0, 0.0


def bucket_of(seconds: float) -> int:
    """Where an answer that began after so long counts in ``slowness``."""
    return bisect_left(BOUNDS, seconds)


def _won(odds: float, old: Side, new: Side) -> float:
    """The logarithm of what a bet on these odds wins by one look: how the failures lie, against how chance deals them."""
    if not (old.failed or new.failed) or not new.given or not old.given:
        return 0.0
    least, dealt = _hypergeometric(old.given, new.given, old.failed + new.failed)
    raised = [chance + k * log(odds) for k, chance in enumerate(dealt, least)]
    top = max(raised)
    return new.failed * log(odds) - (top + log(sum(exp(one - top) for one in raised)))


def _dealt(old: Side, new: Side) -> tuple[float, ...]:
    """How likely 0, 1, … of one look's failures lie on the new side by chance."""
    if not old.given:  # nothing is to be said of it
        return (*(0.0,) * new.failed, 1.0)
    least, dealt = _hypergeometric(old.given, new.given, old.failed + new.failed)
    return (*(0.0,) * least, *map(exp, dealt))


@lru_cache(maxsize=4096)
def _hypergeometric(old: int, new: int, failures: int) -> tuple[int, tuple[float, ...]]:
    """The least number of failures that can lie on the new side, and the logarithms of the chances from there on."""
    least, most = max(0, failures - old), min(failures, new)
    whole = _log_choose(old + new, failures)
    return least, tuple(_log_choose(new, k) + _log_choose(old, failures - k) - whole for k in range(least, most + 1))


def _convolve(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    """How a sum of two is distributed."""
    sums = [0.0] * (len(one) + len(other) - 1)
    for i, p in enumerate(one):
        for j, q in enumerate(other):
            sums[i + j] += p * q
    return tuple(sums)


def _log_choose(of: int, take: int) -> float:
    return lgamma(of + 1) - lgamma(take + 1) - lgamma(of - take + 1)


def _won_in_all(bets: Sequence[float], stakes: Mapping[float, float]) -> float:
    return sum(stake * exp(min(bet, 700.0)) for bet, stake in zip(bets, stakes.values(), strict=True))
