"""``serve.metrics``: what an app may measure, and what it may not."""

from __future__ import annotations

import pytest

from serveconf import serve
from serveconf.own_metrics import MOST_SERIES, own_families


def samples(name):
    return {family.name: family for family in own_families()}[name].samples


def test_the_three_kinds_count():
    counter = serve.metrics.Counter("t_tokens", description="Tokens.", tag_keys=("model",))
    counter.set_default_tags({"model": "small"})
    counter.inc()
    counter.inc(2.5, tags={"model": "large"})
    gauge = serve.metrics.Gauge("t_load")
    gauge.set(3)
    gauge.set(2)
    histogram = serve.metrics.Histogram("t_size", boundaries=[1, 10])
    for value in (0.5, 1, 5, 100):
        histogram.observe(value)
    assert samples("t_tokens") == {("small",): [1.0], ("large",): [2.5]}
    assert samples("t_load") == {(): [2.0]}
    assert samples("t_size") == {(): [2, 1, 1, 106.5]}


def test_a_module_that_is_imported_again_goes_on_counting():
    serve.metrics.Counter("t_again").inc(2)
    serve.metrics.Counter("t_again").inc()
    assert samples("t_again") == {(): [3.0]}


def test_labels_without_bound_become_one_series():
    counter = serve.metrics.Counter("t_users", tag_keys=("user",))
    for user in range(MOST_SERIES + 50):
        counter.inc(tags={"user": str(user)})
    assert len(samples("t_users")) == MOST_SERIES + 1
    assert samples("t_users")["_OTHER",] == [50.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: serve.metrics.Counter("a-b"), "no name of a metric"),
        (lambda: serve.metrics.Gauge("g", tag_keys=("stack",)), "set by serveconf"),
        (lambda: serve.metrics.Histogram("h", boundaries=[2, 1]), "growing"),
        (lambda: serve.metrics.Counter("c").inc(0), "more than 0"),
        (lambda: serve.metrics.Counter("c", tag_keys=("a",)).inc(), "needs a value"),
        (lambda: serve.metrics.Gauge("g").set(1, tags={"x": "y"}), "no tag 'x'"),
    ],
)
def test_what_cannot_be_counted_is_an_error_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()
