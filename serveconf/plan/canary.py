"""Whether the new version of a deployment is worse than the old one, judged while both serve: pure.

The two are compared over the same moments: whatever befalls both of them (a database that is down) speaks against neither.
Each look gives what either side has answered since the look before. If the new version were no worse, the failures of
that time would lie on the two sides as chance deals them: of ``K`` failures among ``N`` requests, as many on the new
side as a hypergeometric draw gives. How much likelier they lie as they do if the odds of failing are some times higher
there (Fisher's noncentral hypergeometric) is a bet whose winnings multiply from look to look; a mean over several odds
needs no guess of how bad the new version is. Played without end against chance such a bet exceeds ``1 / ALPHA`` with a
probability of less than ``ALPHA`` (Ville's inequality), however often one looks: so one may look all the time.

Latency likewise: requests slower than ``max_latency_ratio`` times the old side's p95 are bet on against a share of 5 %.
``benchmarks/canaries.py`` simulates both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import exp, lgamma, log

import msgspec

ALPHA_ERRORS = 0.006  # with the next one: how often a version as good as the old one may be taken back
ALPHA_LATENCY = 0.003
ENOUGH_FOR_P95 = 100  # answers of the old side below which its p95 is not known well enough

_ODDS = (3.0, 10.0, 50.0, 250.0)  # how many times higher the new side's odds of failing may be
_SLOW = (0.1, 0.2, 0.4, 0.8)  # which share of the new side's answers may be slow
_P95_TAIL = 0.05

BOUNDS = tuple(0.0005 * 1.1**step for step in range(144))  # seconds: half a millisecond to seven minutes, by tenths


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one version has answered in some time. ``slowness``: how many answers began within each of ``BOUNDS``, or later."""

    given: int = 0
    failed: int = 0
    slowness: tuple[int, ...] = ()

    @property
    def error_rate(self) -> float:
        """The share of 5xx and cut answers."""
        return self.failed / self.given if self.given else 0.0


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
    slow = evidence.slow
    limit = slow_from(evidence.old, rule)
    if limit is not None and new.slowness:
        count = sum(new.slowness[limit:])
        slow = tuple(
            bet + count * log(share / _P95_TAIL) + (sum(new.slowness) - count) * log((1 - share) / (1 - _P95_TAIL))
            for bet, share in zip(slow, _SLOW, strict=True)
        )
    errors = tuple(bet + _won(odds, old, new) for bet, odds in zip(evidence.errors, _ODDS, strict=True))
    return Evidence(old=_sum(evidence.old, old), new=_sum(evidence.new, new), errors=errors, slow=slow)


def why_worse(evidence: Evidence, rule: CanaryRule) -> str | None:
    """Why the new version has to be taken back; None while nothing is proved against it."""
    old, new = evidence.old, evidence.new
    if new.error_rate > rule.max_error_rate:
        proved = _mean(evidence.errors) >= 1 / ALPHA_ERRORS
        alone = not old.given and new.given >= rule.min_requests  # nothing to compare it with
        if proved or alone:
            return (
                f"{new.failed} of {new.given} answers of the new version failed ({new.error_rate:.1%}), "
                f"of the old one {old.failed} of {old.given} in the same time; max_error_rate is {rule.max_error_rate:.3g}"
            )
    if rule.max_latency_ratio is not None and _mean(evidence.slow) >= 1 / ALPHA_LATENCY:
        one, other = p95(new.slowness), p95(old.slowness)
        if one > rule.max_latency_ratio * other:
            return (
                f"the new version's p95 is {one * 1000:.3g} ms, the old one's {other * 1000:.3g} ms in the same time; "
                f"max_latency_ratio is {rule.max_latency_ratio:.3g}"
            )
    return None


def slow_from(old: Side, rule: CanaryRule) -> int | None:
    """The index in ``slowness`` from which on an answer counts as slow; None while the old side's p95 is not known."""
    if rule.max_latency_ratio is None or sum(old.slowness) < ENOUGH_FOR_P95:
        return None
    return bisect_left(BOUNDS, rule.max_latency_ratio * p95(old.slowness)) + 1


def p95(slowness: Sequence[int]) -> float:
    """The time, in seconds, within which 95 % of the answers began, as exactly as the buckets tell; 0 of none."""
    beyond = sum(slowness) * _P95_TAIL
    for index in range(len(slowness) - 1, -1, -1):
        beyond -= slowness[index]
        if beyond < 0:
            upper = BOUNDS[min(index, len(BOUNDS) - 1)]
            width: float = 1.1 ** -float(1 + beyond / slowness[index])  # where in the bucket it lies
            return upper * width
    return 0.0


def bucket_of(seconds: float) -> int:
    """Where an answer that began after so long counts in ``slowness``."""
    return bisect_left(BOUNDS, seconds)


def _won(odds: float, old: Side, new: Side) -> float:
    """The logarithm of what a bet on these odds wins by one look: how the failures lie, against how chance deals them."""
    failures, requests = old.failed + new.failed, old.given + new.given
    if not failures or not new.given or not old.given:
        return 0.0
    least, most = max(0, failures - old.given), min(failures, new.given)
    dealt = [
        _log_choose(new.given, k)
        + _log_choose(old.given, failures - k)
        - _log_choose(requests, failures)
        + k * log(odds)
        for k in range(least, most + 1)
    ]
    top = max(dealt)
    return new.failed * log(odds) - (top + log(sum(exp(one - top) for one in dealt)))


def _log_choose(of: int, take: int) -> float:
    return lgamma(of + 1) - lgamma(take + 1) - lgamma(of - take + 1)


def _mean(bets: Sequence[float]) -> float:
    return sum(exp(min(bet, 700.0)) for bet in bets) / len(bets)


def _sum(one: Side, other: Side) -> Side:
    longest = max(len(one.slowness), len(other.slowness))
    parts = [(*side.slowness, *(0,) * (longest - len(side.slowness))) for side in (one, other)]
    return Side(
        given=one.given + other.given,
        failed=one.failed + other.failed,
        slowness=tuple(a + b for a, b in zip(*parts, strict=True)),
    )
