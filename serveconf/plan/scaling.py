"""How many replicas a deployment should have: pure. What its proxies counted goes in, a number and why comes out.

``reconcile.scaling`` calls ``decide`` with each report and hands back the ``Past`` that it returned; the benchmark
``benchmarks/autoscaling.py`` simulates it against others. Upwards the short view of the load counts, downwards the long one:
what is missing costs its clients at once, what is too much costs a little for as long as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import ceil, inf
from typing import Any

import msgspec
from msgspec.structs import replace

from serveconf.plan.demand import Sample, Window, calm, extended, present, queue_stands, queued, rising
from serveconf.plan.schedule import Bounds, Part, bounds_at, parts_of, widest
from serveconf.plan.state import DesiredStack

TOLERANCE = 0.05  # so much more load than the target is no reason for another replica
FOLLOWS = 0.1  # once the number falls, what it falls by next has to last for this share of downscale_delay_s
FALLS = 0.5  # ... for this share of it after the last fall
START_S = 2.0  # what a replica's start takes where none has started yet
_MOST = 1e6  # replicas that a load can ask for, however small the target is
_PARTS = 64  # of downscale_delay_s, for each of which the largest load is remembered


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What ``autoscaling_config`` says; the names are its own."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    upscale_delay_s: float = 1.0
    downscale_delay_s: float = 60.0
    downscale_to_zero_delay_s: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    max_upscale_step: int | None = None
    policy: str | None = None
    schedule: tuple[Part, ...] = ()
    dry_run: bool = False

    @property
    def ever(self) -> Bounds:
        """The bounds where no part of the schedule holds."""
        return Bounds(self.min_replicas, self.max_replicas)

    @property
    def widest(self) -> Bounds:
        """All that the bounds can be at some time."""
        return widest(self.ever, self.schedule)


class Cause(StrEnum):
    """Why the number is what it is."""

    ENOUGH = "as many as the load asks for"
    RISING = "more load"
    QUEUE = "requests wait"
    SOON = "more load, not yet for upscale_delay_s"
    FALLING = "less load"
    LATER = "less load, not yet for downscale_delay_s"
    IDLE = "no requests"
    STARTING = "replicas are starting"
    TURN = "the number has just changed"
    BOUNDS = "min_replicas and max_replicas"
    SILENT = "a proxy is silent"
    FAILING = "its replicas do not start"
    POLICY = "the policy says so"
    POLICY_FAILED = "the policy failed"
    HELD = "set by hand"


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What is there of it. ``number``: how many there should be by now; ``start_s``: what a start takes here."""

    number: int
    ready: int
    starting: int = 0
    start_s: float = START_S
    failing: bool = False  # replicas ended instead of getting ready, and back-off holds


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the user's policy said; without a number it failed."""

    number: int | None = None
    failure: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there should be, and why. ``load``: the requests at a time that it was decided by."""

    number: int
    cause: Cause
    load: float = 0.0
    ongoing: int = 0
    waiting: int = 0
    least: int = 0
    most: int = 0
    target: float = 0.0
    detail: str = ""

    @property
    def reason(self) -> str:
        """The cause and the numbers behind it."""
        said = self.cause.value
        if self.detail:
            return f"{said}: {self.detail}"
        match self.cause:
            case Cause.RISING | Cause.FALLING | Cause.SOON | Cause.LATER | Cause.ENOUGH:
                return f"{said}: {self.load:.1f} requests at a time, target {self.target:g} per replica"
            case Cause.QUEUE:
                return f"{said}: {self.waiting} of {self.ongoing}"
            case Cause.BOUNDS:
                return f"{said}: {self.least} to {self.most}"
            case _:
                return said


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What ``decide`` has to know of before. A new one makes no replica go before the delay has passed anew."""

    window: Window = Window()
    since: float = inf  # when it began
    busy_at: float = -inf  # when there was a request last
    asked: tuple[tuple[float, float], ...] = ()  # (until, load): the largest loads of the last time, falling
    more_since: float | None = None
    less_since: float | None = None
    rose_at: float = -inf
    fell_at: float = -inf
    follows_until: float = -inf  # the number is falling: it may go on sooner
    ready: int = 0
    came_at: float = -inf  # when a replica last got ready


def rule_of(spec: Mapping[str, Any]) -> Rule | None:
    """The rule of a deployment's spec, with its defaults filled in; None where its number is fixed."""
    said = spec.get("autoscaling_config")
    if not said:
        return None
    names = [name for name in Rule.__struct_fields__ if name in said and name != "schedule"]
    plain = msgspec.convert({name: said[name] for name in names}, Rule)
    return replace(plain, schedule=parts_of(said.get("schedule", ())))


def scaled(stack: DesiredStack, numbers: Mapping[str, int]) -> DesiredStack:
    """The stack with the numbers of replicas that its deployments have by now, by name."""
    if not numbers:
        return stack
    deployments = tuple(replace(d, num_replicas=numbers.get(d.name, d.num_replicas)) for d in stack.deployments)
    return replace(stack, deployments=deployments)


def decide(
    rule: Rule,
    past: Past,
    sample: Sample,
    fleet: Fleet,
    *,
    wall: float,
    answer: Answer | None = None,
    held: int | None = None,
) -> tuple[Verdict, Past]:
    """How many replicas there should be at the moment of ``sample``, and what to hand in with the next one.

    ``wall``: this moment in seconds since the epoch, for the schedule; ``answer``: of the policy, where there is one and it
    has been asked; ``held``: a number that was set by hand.
    """
    bounds = bounds_at(rule.ever, rule.schedule, wall)
    past = _remember(rule, past, sample, fleet)
    verdict, past = _unbounded(rule, past, fleet, answer, held)
    number = bounds.clamp(verdict.number)
    if number != verdict.number:
        verdict = replace(verdict, number=number, cause=Cause.BOUNDS)
    verdict = replace(
        verdict,
        ongoing=sample.ongoing,
        waiting=sample.waiting,
        least=bounds.least,
        most=bounds.most,
        target=rule.target_ongoing_requests,
    )
    return verdict, _moved(past, fleet.number, number, sample.time)


def _unbounded(rule: Rule, past: Past, fleet: Fleet, answer: Answer | None, held: int | None) -> tuple[Verdict, Past]:
    if held is not None:
        return Verdict(number=held, cause=Cause.HELD), past
    if rule.policy is not None:
        return replace(_by_policy(fleet, answer), load=rising(past.window)), past
    if fleet.failing:
        return Verdict(number=fleet.number, cause=Cause.FAILING), replace(past, more_since=None, less_since=None)
    up, past = _up(rule, past, fleet)
    if up.number > fleet.number or up.cause is not Cause.ENOUGH:
        return up, replace(past, less_since=None)
    return _down(rule, past, fleet, up)


def _by_policy(fleet: Fleet, answer: Answer | None) -> Verdict:
    if answer is None:
        return Verdict(number=fleet.number, cause=Cause.POLICY)
    if answer.number is None:
        return Verdict(number=fleet.number, cause=Cause.POLICY_FAILED, detail=answer.failure)
    return Verdict(number=answer.number, cause=Cause.POLICY)


def _up(rule: Rule, past: Past, fleet: Fleet) -> tuple[Verdict, Past]:
    """More replicas, or the number as it is; and whether the load asks for more than it gets."""
    window, now, number = past.window, past.window.last.time, fleet.number
    stands = queue_stands(window) or (window.last.ongoing > 0 and fleet.ready == 0)
    if stands:
        load = queued(window)
    else:
        load = rising(window)
    wanted = max(_replicas_for(load, rule), min(1, window.last.ongoing))
    keep = Verdict(number=number, cause=Cause.ENOUGH, load=load)
    gone = number == 0 and not window.last.ongoing  # what there was before the last replica went
    if gone or wanted <= number or not (stands or load > number * rule.target_ongoing_requests * (1 + TOLERANCE)):
        return keep, replace(past, more_since=None)
    since = now if past.more_since is None else past.more_since
    past = replace(past, more_since=since)
    if not stands and now - since < rule.upscale_delay_s - 1e-6:
        return replace(keep, cause=Cause.SOON), past
    if not stands and now - past.fell_at < fleet.start_s:
        return replace(keep, cause=Cause.TURN), past
    bounded_step = rule.upscaling_factor < 1 or rule.max_upscale_step is not None
    if bounded_step and fleet.starting and now - past.rose_at < fleet.start_s:
        return replace(keep, cause=Cause.STARTING), past
    up = _stepped(rule, number, wanted)
    return replace(keep, number=up, cause=Cause.QUEUE if stands else Cause.RISING), past


def _stepped(rule: Rule, number: int, wanted: int) -> int:
    """What of the way up is made at once."""
    up = number + ceil((wanted - number) * rule.upscaling_factor - 1e-9) if number else wanted
    return up if rule.max_upscale_step is None else min(up, number + rule.max_upscale_step)


def _down(rule: Rule, past: Past, fleet: Fleet, keep: Verdict) -> tuple[Verdict, Past]:
    """Fewer replicas, or the number as it is."""
    now, number, last = past.window.last.time, fleet.number, past.window.last
    if last.silent:
        return replace(keep, cause=Cause.SILENT), replace(past, less_since=None)
    if number == 0:
        return keep, past
    if number == 1:
        return _to_zero(rule, past, fleet, keep)
    if last.waiting or _replicas_for(calm(past.window), rule) >= number:
        return keep, replace(past, less_since=None)
    since = now if past.less_since is None else past.less_since
    past = replace(past, less_since=since)
    load = calm(past.window)
    if _rises(past, fleet):
        return replace(keep, cause=Cause.TURN, load=load), past
    soon = FOLLOWS * rule.downscale_delay_s
    lag = soon if now < past.follows_until or now - since >= rule.downscale_delay_s else rule.downscale_delay_s
    asked = max(_most_asked(past, lag), present(past.window))
    down = max(1, _replicas_for(asked, rule))
    slower = rule.downscaling_factor < 1
    if now - since < soon or now - past.since < lag or down >= number:
        return replace(keep, cause=Cause.LATER, load=load), past
    if slower and now - past.fell_at < rule.downscale_delay_s:
        return replace(keep, cause=Cause.LATER, load=load), past
    down = number - ceil((number - down) * min(1.0, rule.downscaling_factor) - 1e-9)
    follows = lag < rule.downscale_delay_s and not slower
    until = now + FALLS * rule.downscale_delay_s if follows else past.follows_until
    past = replace(past, less_since=None, follows_until=-inf if slower else until)
    return Verdict(number=down, cause=Cause.FALLING, load=asked), past


def _rises(past: Past, fleet: Fleet) -> bool:
    """Whether replicas are still coming, or came just now: what they will take off the others can't be seen yet, and a
    replica that starts takes CPU from clients and replicas beside it. Where many are started a few at a time each that
    gets ready lets the next one begin; where none does for two starts, there is no room for more."""
    now, missing = past.window.last.time, fleet.ready < fleet.number
    return now < max(past.rose_at + 2 * fleet.start_s, past.came_at + (2 if missing else 1) * fleet.start_s)


def _to_zero(rule: Rule, past: Past, fleet: Fleet, keep: Verdict) -> tuple[Verdict, Past]:
    """The last replica goes when there was no request for long enough."""
    delay_s = rule.downscale_to_zero_delay_s
    delay_s = rule.downscale_delay_s if delay_s is None else delay_s
    last = past.window.last
    idle_s = last.time - max(past.busy_at, past.since)
    if last.ongoing or idle_s < delay_s or last.time - past.rose_at < fleet.start_s:
        return keep, past
    return replace(keep, number=0, cause=Cause.IDLE), past


def _replicas_for(load: float, rule: Rule) -> int:
    return ceil(min(load / rule.target_ongoing_requests, _MOST) - 1e-6)


def _remember(rule: Rule, past: Past, sample: Sample, fleet: Fleet) -> Past:
    window = extended(past.window, sample)
    came = len(window.samples) > 1 and window.samples[-2].arrivals != sample.arrivals
    load = fleet.number * rule.target_ongoing_requests if sample.silent else calm(window)
    return replace(
        past,
        window=window,
        since=min(past.since, sample.time),
        busy_at=sample.time if sample.ongoing or came else past.busy_at,
        asked=_with_load(past.asked, load, sample.time, rule.downscale_delay_s),
        ready=fleet.ready,
        came_at=sample.time if fleet.ready > past.ready else past.came_at,
    )


def _with_load(
    asked: tuple[tuple[float, float], ...], load: float, now: float, delay_s: float
) -> tuple[tuple[float, float], ...]:
    """Of each part of the delay the largest load, but for those that a later one exceeds: so the first is the largest."""
    width = max(delay_s / _PARTS, 0.01)
    until = (now // width + 1) * width
    kept = [one for one in asked if one[1] > load and one[0] > now - delay_s]
    return (*kept, (until, load)) if not kept or kept[-1][0] != until else tuple(kept)


def _most_asked(past: Past, seconds: float) -> float:
    since = past.window.last.time - seconds
    return next((load for until, load in past.asked if until > since), past.asked[-1][1])


def _moved(past: Past, before: int, after: int, now: float) -> Past:
    if after > before:
        return replace(past, rose_at=now, more_since=None, less_since=None, follows_until=-inf)
    if after < before:
        return replace(past, fell_at=now, more_since=None)
    return past
