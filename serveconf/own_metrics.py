"""Metrics of the user's own, as ``serve.metrics`` gives them: counted in the replica's process, read by the controller.

Names and arguments are those of Ray Serve's metrics (``ray.serve.metrics``, ``ray.util.metrics``). On ``/metrics`` each has
the labels ``stack`` and ``deployment`` in front, and the values of a deployment's replicas are added up.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock

from serveconf.figures import BOUNDS, OTHER, Family

MOST_SERIES = 1_000  # of one metric in one process; what comes with further values of its labels is counted as one
MADE_BY_US = frozenset({"stack", "deployment", "le"})

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_metrics: dict[str, Metric] = {}
_lock = Lock()


class Metric:
    """What the three kinds have in common. ``tag_keys``: the names of its labels, all of which every value needs."""

    kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] = ()) -> None:
        """ValueError for a name or label that Prometheus does not know, TypeError for a label list that is a string."""
        if isinstance(tag_keys, str):
            raise TypeError("tag_keys is a tuple of names, as in tag_keys=('model',)")
        for word in (name, *tag_keys):
            if not isinstance(word, str) or not _NAME.fullmatch(word):
                raise ValueError(f"{word!r} is no name of a metric or label: letters, digits and _ only")
        if taken := MADE_BY_US.intersection(tag_keys):
            raise ValueError(f"the label {min(taken)!r} is set by serveconf")
        self.name = name
        self.description = description
        self.tag_keys = tuple(tag_keys)
        self._defaults: dict[str, str] = {}
        self._samples: dict[tuple[str, ...], list[float]] = {}
        with _lock:
            before = _metrics.get(name)
            if before is not None and before.kind == self.kind and before.tag_keys == self.tag_keys:
                self._samples = before._samples  # the module was imported once more: it goes on counting
            _metrics[name] = self

    @property
    def info(self) -> dict[str, object]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self.name,
            "description": self.description,
            "tag_keys": self.tag_keys,
            "default_tags": dict(self._defaults),
        }

    def set_default_tags(self, default_tags: Mapping[str, str]) -> None:
        """The values of labels that a call leaves out."""
        self._check(default_tags)
        self._defaults = dict(default_tags)

    def family(self) -> Family:
        """A copy of what was counted."""
        with _lock:
            samples = {labels: list(values) for labels, values in self._samples.items()}
        return Family(
            name=self.name, kind=self.kind, description=self.description, labels=self.tag_keys, samples=samples
        )

    def _check(self, tags: Mapping[str, str]) -> None:
        if unknown := tags.keys() - set(self.tag_keys):
            raise ValueError(f"metric {self.name!r} has no tag {min(unknown)!r}; its tag_keys are {self.tag_keys}")

    def _values(self, tags: Mapping[str, str] | None, size: int) -> list[float]:
        """Where to count what has these labels; the lock is held."""
        given = {**self._defaults, **(tags or {})}
        self._check(given)
        if missing := [key for key in self.tag_keys if key not in given]:
            raise ValueError(f"metric {self.name!r} needs a value for the tag {missing[0]!r}")
        labels = tuple(str(given[key]) for key in self.tag_keys)
        found = self._samples.get(labels)
        if found is None:
            if len(self._samples) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            found = self._samples.setdefault(labels, [0.0] * size)
        return found


class Counter(Metric):
    """Something that only grows."""

    kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add ``value``. ValueError where it is not above 0."""
        if not value > 0:
            raise ValueError(f"a counter grows by more than 0, not by {value!r}")
        with _lock:
            self._values(tags, 1)[0] += value


class Gauge(Metric):
    """Something that goes up and down."""

    kind = "gauge"

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """It is ``value`` now."""
        with _lock:
            self._values(tags, 1)[0] = float(value)


class Histogram(Metric):
    """How a value is spread. ``boundaries``: upper bounds of its buckets, growing; left out: those of our own durations."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] = BOUNDS,
        tag_keys: Sequence[str] = (),
    ) -> None:
        """ValueError for bounds that do not grow."""
        self.boundaries = tuple(float(bound) for bound in boundaries)
        if not self.boundaries or any(
            one >= other for one, other in zip(self.boundaries, self.boundaries[1:], strict=False)
        ):
            raise ValueError("boundaries are growing numbers, at least one")
        super().__init__(name, description, tag_keys)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count one."""
        with _lock:
            values = self._values(tags, len(self.boundaries) + 2)
            values[bisect_left(self.boundaries, value)] += 1
            values[-1] += value

    def family(self) -> Family:
        """A copy of what was counted: of each series the buckets, the last for what is above all bounds, and the sum."""
        family = super().family()
        family.bounds = self.boundaries
        return family


def own_families() -> Iterator[Family]:
    """All metrics that this process has made."""
    return (metric.family() for metric in list(_metrics.values()))
