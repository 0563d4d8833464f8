"""What processes count, added up: in whichever order, and without anything counting backwards when one of them ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf import own_metrics
from serveconf.figures import (
    BOUNDS,
    METHODS,
    OTHER,
    DeploymentFigures,
    Family,
    Histogram,
    ProcessFigures,
    ProxyFigures,
    ReplicaFigures,
    Side,
    add_deployments,
    add_histograms,
    add_proxies,
    add_replicas,
    add_sides,
    new_histogram,
    use_of_this_process,
    without_gauges,
    without_now,
)

SMALL = st.integers(0, 5)
NAMES = st.sampled_from(["s/a", "s/b", "/"])
SECONDS = st.sampled_from([0.0, 2**-9, 0.25, 10.0, 11.0])  # on a bound, between two, past all; exact when added


@st.composite
def histograms(draw: Any) -> Histogram:
    found = new_histogram()
    for value in draw(st.lists(SECONDS, max_size=4)):
        found.observe(value)
    return found


@st.composite
def deployments(draw: Any) -> DeploymentFigures:
    found = DeploymentFigures(
        bytes_in=draw(SMALL), bytes_out=draw(SMALL), active=draw(SMALL), queued=draw(SMALL), waits=draw(histograms())
    )
    for method, status, took in draw(
        st.lists(st.tuples(st.sampled_from(["GET", "POST", "BREW"]), st.sampled_from([200, 503]), SECONDS), max_size=4)
    ):
        found.duration(method, status).observe(took)
    return found


@st.composite
def sides(draw: Any) -> Side:
    return Side(given=draw(SMALL), failed=draw(SMALL), slowness=tuple(draw(st.lists(SMALL, max_size=3))))


@st.composite
def proxies(draw: Any) -> ProxyFigures:
    return ProxyFigures(
        deployments=draw(st.dictionaries(NAMES, deployments(), max_size=3)),
        sides=draw(st.dictionaries(st.sampled_from(["s/a@1", "s/a@2"]), sides(), max_size=2)),
        refused=draw(st.dictionaries(st.sampled_from(["full", "late"]), SMALL, max_size=2)),
        retries=draw(SMALL),
        log_dropped=draw(SMALL),
        connections=draw(SMALL),
        process=ProcessFigures(resident_bytes=draw(SMALL), cpu_s=float(draw(SMALL))),
    )


@st.composite
def replicas(draw: Any) -> ReplicaFigures:
    def family(kind: str) -> Family:
        size = 4 if kind == "histogram" else 1
        samples = draw(
            st.dictionaries(
                st.tuples(st.sampled_from(["x", "y"])),
                st.lists(SMALL.map(float), min_size=size, max_size=size),
                max_size=2,
            )
        )
        bounds = (1.0, 2.0) if kind == "histogram" else ()
        return Family(name=f"m_{kind}", kind=kind, labels=("label",), bounds=bounds, samples=samples)

    kinds = draw(st.lists(st.sampled_from(["counter", "gauge", "histogram"]), unique=True))
    return ReplicaFigures(
        calls=draw(st.dictionaries(NAMES, histograms(), max_size=2)),
        families=[family(kind) for kind in kinds],
        process=ProcessFigures(resident_bytes=draw(SMALL), cpu_s=float(draw(SMALL))),
    )


def plain(value: Any) -> Any:
    """As data that can be compared, whatever the order of what has none."""
    found = msgspec.to_builtins(value, str_keys=False)
    if isinstance(found, dict) and "families" in found:
        found["families"] = sorted(found["families"], key=lambda family: str(family["name"]))
    return found


SUMS: list[tuple[Any, Callable[[Any], Any]]] = [
    (histograms(), add_histograms),
    (deployments(), add_deployments),
    (proxies(), add_proxies),
    (replicas(), add_replicas),
    (sides(), lambda parts: add_sides(*parts) if len(parts) == 2 else add_sides(add_sides(*parts[:2]), parts[2])),
]


@pytest.mark.parametrize(("strategy", "add"), SUMS, ids=["histograms", "deployments", "proxies", "replicas", "sides"])
@settings(max_examples=40)
@given(data=st.data())
def test_neither_order_nor_grouping_changes_a_sum_and_no_part_is_touched(
    strategy: Any, add: Callable[[Any], Any], data: Any
) -> None:
    parts = [data.draw(strategy) for _ in range(3)]
    before = msgspec.msgpack.encode([plain(part) for part in parts])
    whole = plain(add(parts))
    shuffled = random.Random(1).sample(parts, 3)
    assert plain(add(shuffled)) == whole
    assert plain(add([add(parts[:2]), parts[2]])) == whole
    assert plain(add([parts[0], add(parts[1:])])) == whole
    assert msgspec.msgpack.encode([plain(part) for part in parts]) == before


@given(st.lists(st.floats(0, 20), max_size=30))
def test_each_value_is_in_the_one_bucket_whose_bound_it_does_not_pass(values: list[float]) -> None:
    histogram = new_histogram()
    for value in values:
        histogram.observe(value)
    limits = [*BOUNDS, float("inf")]
    expected = [sum(1 for v in values if v <= limit) for limit in limits]
    assert [sum(histogram.buckets[: at + 1]) for at in range(len(limits))] == expected
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))


def test_a_sum_of_nothing_has_the_buckets_of_our_own_durations() -> None:
    assert add_histograms([]) == new_histogram()
    assert add_proxies([]) == ProxyFigures()
    assert add_replicas([]) == ReplicaFigures()


def test_histograms_with_other_bounds_are_no_sum() -> None:
    with pytest.raises(ValueError, match="zip"):
        add_histograms([new_histogram(), new_histogram((1.0,))])


def test_methods_that_clients_make_up_share_one_series() -> None:
    figures = DeploymentFigures()
    for method in ("GET", "BREW", "get", "x" * 100):
        figures.duration(method, 200).observe(0.1)
    assert {method: statuses[200].count for method, statuses in figures.durations.items()} == {"GET": 1, OTHER: 3}
    assert "GET" in METHODS


@given(proxies(), proxies())
def test_nothing_counts_backwards_when_a_proxy_ends(ended: ProxyFigures, alive: ProxyFigures) -> None:
    before, after = add_proxies([ended, alive]), add_proxies([without_now(ended), alive])
    assert (after.retries, after.log_dropped, after.refused) == (before.retries, before.log_dropped, before.refused)
    assert after.process.cpu_s == before.process.cpu_s
    assert after.connections == alive.connections
    assert after.process.resident_bytes == alive.process.resident_bytes
    for key, figures in before.deployments.items():
        now = alive.deployments.get(key, DeploymentFigures())
        assert plain(after.deployments[key]) == plain(
            msgspec.structs.replace(figures, active=now.active, queued=now.queued)
        )
    assert {name: (side.given, side.failed) for name, side in after.sides.items()} == {
        name: (side.given, side.failed) for name, side in before.sides.items()
    }


@given(replicas(), replicas())
def test_of_a_replica_that_has_ended_all_stays_but_its_gauges(ended: ReplicaFigures, alive: ReplicaFigures) -> None:
    after = {family.name: family.samples for family in add_replicas([without_gauges(ended), alive]).families}
    before = {family.name: family.samples for family in add_replicas([ended, alive]).families}
    own = {family.name: family.samples for family in alive.families}
    assert {name: samples for name, samples in after.items() if name != "m_gauge"} == {
        name: samples for name, samples in before.items() if name != "m_gauge"
    }
    assert after.get("m_gauge") == own.get("m_gauge")


def test_metrics_of_one_name_that_differ_in_kind_or_labels_are_not_added_up() -> None:
    one = Family(name="m", kind="counter", labels=("a",), samples={("x",): [1.0]})
    other = Family(name="m", kind="counter", labels=("b",), samples={("x",): [2.0]})
    third = Family(name="m", kind="gauge", labels=("a",), samples={("x",): [4.0]})
    total = add_replicas([ReplicaFigures(families=[family]) for family in (one, other, third, one)])
    assert [(family.kind, family.labels, family.samples) for family in total.families] == [
        ("counter", ("a",), {("x",): [2.0]}),
        ("counter", ("b",), {("x",): [2.0]}),
        ("gauge", ("a",), {("x",): [4.0]}),
    ]


def test_a_share_of_errors_of_nothing_is_none() -> None:
    assert (Side().error_rate, Side(given=4, failed=1).error_rate) == (0.0, 0.25)


def test_a_process_without_proc_tells_its_memory_at_its_height(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no /proc here")

    with_proc = use_of_this_process()
    monkeypatch.setattr("builtins.open", missing)
    without = use_of_this_process()
    assert without.began == with_proc.began
    assert 0 < with_proc.resident_bytes < 2**40
    assert 0 < without.resident_bytes < 2**40
    assert without.cpu_s >= with_proc.cpu_s > 0


# Metrics of the user's own


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_metrics, "_metrics", {})


def families() -> dict[str, Family]:
    return {family.name: family for family in own_metrics.own_families()}


def test_a_metric_tells_what_it_is() -> None:
    gauge = own_metrics.Gauge("load", description="Now.", tag_keys=["model"])
    gauge.set_default_tags({"model": "small"})
    assert gauge.info == {
        "name": "load",
        "description": "Now.",
        "tag_keys": ("model",),
        "default_tags": {"model": "small"},
    }


def test_labels_that_are_a_string_are_refused_before_they_become_letters() -> None:
    with pytest.raises(TypeError, match="tag_keys is a tuple of names"):
        own_metrics.Counter("c", tag_keys="model")
    assert families() == {}


@pytest.mark.parametrize("name", ["", "1a", "a b", "ä", "a\n", "a:b", 3])
def test_a_name_that_prometheus_does_not_know_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="no name of a metric or label"):
        own_metrics.Gauge(name)
    with pytest.raises(ValueError, match="no name of a metric or label"):
        own_metrics.Gauge("fine", tag_keys=(name,))


def test_default_tags_are_held_to_the_same_names() -> None:
    counter = own_metrics.Counter("c", tag_keys=("a", "b"))
    with pytest.raises(ValueError, match="no tag 'x'"):
        counter.set_default_tags({"x": "1"})
    counter.set_default_tags({"a": "1"})
    counter.set_default_tags({"b": "2"})  # in the place of those before
    with pytest.raises(ValueError, match="needs a value for the tag 'a'"):
        counter.inc()


def test_a_metric_of_another_kind_or_with_other_labels_begins_anew() -> None:
    own_metrics.Counter("m", tag_keys=("a",)).inc(tags={"a": "x"})
    own_metrics.Counter("m", tag_keys=("b",)).inc(2, tags={"b": "x"})
    assert families()["m"].samples == {("x",): [2.0]}
    own_metrics.Gauge("m", tag_keys=("b",)).set(-1.5, tags={"b": "x"})
    assert (families()["m"].kind, families()["m"].samples) == ("gauge", {("x",): [-1.5]})


def test_what_was_read_does_not_change_afterwards() -> None:
    counter = own_metrics.Counter("c")
    counter.inc()
    read = families()["c"]
    counter.inc()
    assert (read.samples, families()["c"].samples) == ({(): [1.0]}, {(): [2.0]})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("-inf")])
def test_a_counter_never_counts_backwards(value: float) -> None:
    with pytest.raises(ValueError, match="grows by more than 0"):
        own_metrics.Counter("c").inc(value)
    assert families()["c"].samples == {}


@pytest.mark.parametrize("bounds", [[], [1, 1], [2, 1]])
def test_bounds_that_do_not_grow_leave_no_metric_behind(bounds: list[float]) -> None:
    with pytest.raises(ValueError, match="growing numbers"):
        own_metrics.Histogram("h", boundaries=bounds)
    assert families() == {}


@given(
    bounds=st.lists(st.integers(-5, 5), min_size=1, max_size=5, unique=True).map(sorted),
    values=st.lists(st.integers(-7, 7), max_size=10),
)
def test_a_histogram_holds_each_value_once_and_their_sum(bounds: list[int], values: list[int]) -> None:
    histogram = own_metrics.Histogram(f"h{len(bounds)}", boundaries=bounds)
    histogram._samples.clear()
    for value in values:
        histogram.observe(value)
    family = histogram.family()
    assert family.bounds == tuple(map(float, bounds))
    if values:
        (*buckets, total) = family.samples[()]
        limits = [*bounds, 10**9]
        assert [sum(buckets[: at + 1]) for at in range(len(limits))] == [
            sum(1 for value in values if value <= limit) for limit in limits
        ]
        assert total == sum(values)
