"""Histograms as Prometheus text. ``admin.metrics`` fills them.

prometheus-client renders all other kinds. Of a thousand routes nine tenths of the text are buckets, whose labels it looks at
anew for each line: 0.45 s for what takes 0.1 s here (``benchmarks/metrics_scale.py``), while the controller has better to do.
"""

from __future__ import annotations

from itertools import accumulate

from serveconf.figures import Histogram


class Buckets:
    """One metric: a histogram for each combination of its labels' values."""

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._series: list[tuple[tuple[str, ...], Histogram, tuple[float, ...]]] = []

    def add(self, values: tuple[str, ...], histogram: Histogram, bounds: tuple[float, ...]) -> None:
        """The histogram of these values of the labels."""
        self._series.append((values, histogram, bounds))

    def text(self) -> str:
        """Help, type and samples. Prometheus' buckets hold all that is below their bound, ours what is between two."""
        lines = [f"# HELP {self._name} {_in_help(self._meaning)}", f"# TYPE {self._name} histogram"]
        for values, histogram, bounds in self._series:
            said = ",".join(f'{key}="{_escaped(value)}"' for key, value in zip(self._labels, values, strict=True))
            start = f"{self._name}_bucket{{{said}," if said else f"{self._name}_bucket{{"
            counts = list(accumulate(histogram.buckets))
            lines += [f'{start}le="{bound!r}"}} {count}.0' for bound, count in zip(bounds, counts, strict=False)]
            lines += [
                f'{start}le="+Inf"}} {counts[-1]}.0',
                f"{self._name}_count{{{said}}} {counts[-1]}.0",
                f"{self._name}_sum{{{said}}} {histogram.sum!r}",
            ]
        return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _in_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
