"""What a deployment's requests ask for at a time, read from a window of what its proxies counted: pure.

A ``Window`` holds the sums of some moments; the difference of two of them is what happened in between, bursts included.
``plan.scaling`` turns a demand into a number of replicas. Demands are in requests that run at a time.
"""

from __future__ import annotations

from math import sqrt

import msgspec

RECENT_S = 2.5  # every sample of the last seconds is kept, then one a second, then one in four
OLD_S = 17.0
WINDOW_S = 64.0
QUEUE_S = 0.1  # a request that has waited so long stands in a queue
BALANCE_S = 0.5  # over which arrivals and completions are compared
SHORT_S = 1.0
VIEWS_S = (SHORT_S, 4.0, 15.0)  # a small rise shows in a long view, a large one in a short one
CALM_VIEWS_S = (4.0, 10.0)  # what replicas are kept for
IDLE_S = 5.0  # longer than what lies between two samples that are kept of a time with requests
DRAIN_S = 1.0  # in which a queue should be gone
LONG_S = 4.0  # requests that take so long are there for as long as a replica needs to start
NOISE = 1.0  # standard deviations of chance that are no rise


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Of all processes together at one moment. The sums (``DeploymentLoad``'s) only grow, from wherever they began.

    ``silent``: a process that had requests does not report any more, so that this may be less than there is.
    """

    time: float
    arrivals: int = 0
    completions: int = 0
    ongoing_s: float = 0.0
    waiting_s: float = 0.0
    ongoing: int = 0
    waiting: int = 0
    oldest_wait_s: float = 0.0
    silent: bool = False


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of the last minute, the newest last, sparser the older they are."""

    samples: tuple[Sample, ...] = ()
    service_s: float | None = None  # what a request takes on its replica, on average, as last seen

    @property
    def last(self) -> Sample:
        """The newest one."""
        return self.samples[-1]


class Span(msgspec.Struct, frozen=True):
    """What happened in the last ``seconds``. ``running`` and ``waiting``: so many requests at a time, on average."""

    seconds: float
    arrivals: int
    completions: int
    running: float
    waiting: float


def extended(window: Window, sample: Sample) -> Window:
    """The window with one more sample, thinned."""
    kept, stretch = [sample], _stretch(sample.time, sample.time)
    for old in reversed(window.samples):
        if old.time <= sample.time - WINDOW_S:
            break
        if (its := _stretch(old.time, sample.time)) != stretch:
            kept.append(old)
            stretch = its
    longer = Window(samples=tuple(reversed(kept)), service_s=window.service_s)
    span = span_of(longer, WINDOW_S)
    if span is None or not span.completions:
        return longer
    # Little's law the other way round, so that requests which have not ended yet (WebSockets, streams) count too.
    service_s = span.running * span.seconds / span.completions
    return Window(samples=longer.samples, service_s=service_s)


def span_of(window: Window, seconds: float) -> Span | None:
    """What happened in the last ``seconds``, or since the window began; None at its first moment."""
    last = window.last
    first = _first_of(window, last.time - seconds)
    length = last.time - first.time
    if length > seconds and not first.ongoing and _is_quiet_after(window, first):
        length = seconds
    if length <= 0:
        return None
    waiting_s = last.waiting_s - first.waiting_s
    return Span(
        seconds=length,
        arrivals=last.arrivals - first.arrivals,
        completions=last.completions - first.completions,
        running=max(0.0, last.ongoing_s - first.ongoing_s - waiting_s) / length,
        waiting=max(0.0, waiting_s) / length,
    )


def queue_stands(window: Window) -> bool:
    """Whether requests wait, and not just for a turn."""
    return window.last.waiting > 0 and window.last.oldest_wait_s >= QUEUE_S


def rising(window: Window) -> float:
    """What is asked for where nothing waits: the largest of several views, each less what chance may add to it, and no
    more than the view before it has, for a rise has to be there still."""
    loads = [_load(window, seconds) for seconds in VIEWS_S]
    views = [load - _noise(window, load, seconds) for load, seconds in zip(loads, VIEWS_S, strict=True)]
    return max(views[0], *(min(view, load) for view, load in zip(views[1:], loads, strict=False)))


def queued(window: Window) -> float:
    """What is asked for where a queue stands; never more than the requests that are there.

    Where as many come as go the queue is one of clients that wait for an answer before they ask again: with room for them
    all of them would run. Else it is a backlog: what arrives, and what works the queue off in a second.
    """
    last, service_s = window.last, window.service_s
    balance, short = span_of(window, BALANCE_S), span_of(window, SHORT_S)
    if service_s is None or balance is None or short is None:
        return float(last.ongoing)
    stands = 0.8 * balance.waiting <= last.waiting <= 1.25 * balance.waiting
    if _is_even(window) and stands:
        return balance.running + balance.waiting
    backlog = last.waiting * service_s / DRAIN_S
    return min(short.arrivals / short.seconds * service_s + backlog, float(last.ongoing))


def _is_even(window: Window) -> bool:
    """Whether as many came as went, in each part of the last moment: once is chance where replicas get ready just then."""
    last = window.last
    middle = _first_of(window, last.time - BALANCE_S / 2)
    parts = ((_first_of(window, last.time - BALANCE_S), middle), (middle, last))
    return all(_are_even(b.arrivals - a.arrivals, b.completions - a.completions) for a, b in parts)


def _are_even(arrivals: int, completions: int) -> bool:
    return abs(arrivals - completions) <= 1 + max(arrivals, completions) / 20


def present(window: Window) -> float:
    """What runs and waits just now, on average over a moment."""
    span = span_of(window, SHORT_S)
    return float(window.last.ongoing) if span is None else span.running + span.waiting


def calm(window: Window) -> float:
    """What replicas are kept for: what ran in the last seconds, but for what a queue had left to be done."""
    return max(_without_backlog(window, seconds) for seconds in CALM_VIEWS_S)


def _load(window: Window, seconds: float) -> float:
    span, last = span_of(window, seconds), window.last
    if span is None:
        return float(last.ongoing)
    if window.service_s is None:
        return span.running + span.waiting
    return max(span.running, min(span.arrivals / span.seconds * window.service_s, float(last.ongoing)))


def _noise(window: Window, load: float, seconds: float) -> float:
    """Requests that know nothing of each other run in Poisson's numbers (M/G/∞), which change as requests end: where they
    end within the view much of it is averaged out, and where they take long it is no noise, for it lasts."""
    service_s = window.service_s or 0.0
    if service_s >= LONG_S:
        return 0.0
    return NOISE * sqrt(load * min(1.0, 2 * service_s / seconds) * (1 - service_s / LONG_S))


def _without_backlog(window: Window, seconds: float) -> float:
    span = span_of(window, seconds)
    if span is None:
        return float(window.last.ongoing)
    if span.waiting > 0 and window.service_s is not None:
        return min(span.running, span.arrivals / span.seconds * window.service_s)
    return span.running


def _first_of(window: Window, time: float) -> Sample:
    """The last sample that is not after ``time``, or the first of all."""
    found = window.samples[0]
    for sample in window.samples:
        if sample.time > time + 1e-6:
            break
        found = sample
    return found


def _is_quiet_after(window: Window, sample: Sample) -> bool:
    """Whether nothing came for long after it: a first request is reported at once, and then each quarter of a second."""
    following = next(one for one in window.samples if one.time > sample.time)
    return following.time - sample.time > IDLE_S


def _stretch(time: float, now: float) -> tuple[float, float]:
    """Of the samples in one stretch of time the newest is kept."""
    age = now - time
    if age < RECENT_S:
        return (0.0, time)
    width = 1.0 if age < OLD_S else 4.0
    return (width, time // width)
