"""What a deployment asks of a process, and when its reports come."""

from __future__ import annotations

import asyncio

import pytest
from dispatch_harness import Request, in_loop, node, until
from test_dispatch import Gate

from serveconf.proxy import load as load_module
from serveconf.proxy.load import Load, Reporter


@pytest.fixture
def reporter() -> Reporter:
    return Reporter()


def test_the_integrals_are_request_seconds(reporter: Reporter) -> None:
    load = reporter.load("s/d")
    load.arrive(10.0)
    load.arrive(11.0)
    load.wait(11.0)
    load.go_on(13.0)
    load.leave(14.0)
    at = load.at(15.0)
    assert (at.arrivals, at.ongoing, at.waiting) == (2, 1, 0)
    assert (at.ongoing_s, at.waiting_s, at.oldest_wait_s) == (4.0 + 4.0, 2.0, 0.0)  # 10-14 and 11-15


def test_a_burst_between_two_looks_is_in_the_integral(reporter: Reporter) -> None:
    load = reporter.load("s/d")
    before = load.at(0.0)
    for _ in range(100):
        load.arrive(0.1)
    for _ in range(100):
        load.leave(0.15)
    after = load.at(0.25)
    assert (after.ongoing, after.arrivals - before.arrivals) == (0, 100)
    assert after.ongoing_s - before.ongoing_s == pytest.approx(5.0)


@in_loop
async def test_the_first_report_comes_at_once_and_says_all() -> None:
    reporter = Reporter()
    load = reporter.load("s/d")
    load.arrive(1.0)
    report = await reporter.report(0)
    assert (report.number, list(report.loads)) == (1, ["s/d"])


@in_loop
async def test_with_nothing_new_a_report_waits_and_then_says_only_what_has_changed() -> None:
    reporter = Reporter()
    loads = [reporter.load(name) for name in ("s/a", "s/b")]
    first = await reporter.report(0)
    pending = asyncio.create_task(reporter.report(first.number))
    await asyncio.sleep(0.01)
    assert not pending.done()
    loads[1].arrive(load_module.monotonic())
    report = await pending
    assert list(report.loads) == ["s/b"] and report.loads["s/b"].ongoing == 1
    again = await reporter.report(report.number)  # it goes on, so there is something to say
    assert again.loads["s/b"].ongoing_s > report.loads["s/b"].ongoing_s
    loads[1].leave(load_module.monotonic())
    last = await reporter.report(again.number)
    assert last.loads["s/b"].ongoing == 0
    silent = asyncio.create_task(reporter.report(last.number))
    await asyncio.sleep(0.01)
    assert not silent.done()
    silent.cancel()


@in_loop
async def test_after_a_report_that_was_lost_the_next_one_says_all() -> None:
    reporter = Reporter()
    load, other = reporter.load("s/a"), reporter.load("s/b")
    load.arrive(1.0)
    lost = await reporter.report(0)
    load.leave(2.0)
    report = await reporter.report(lost.number + 7)
    assert sorted(report.loads) == ["s/a", "s/b"] and report.number == lost.number + 1
    assert other.told


@in_loop
async def test_a_deployment_that_went_is_told_to_the_end(reporter: Reporter) -> None:
    load = reporter.load("s/d")
    first = await reporter.report(0)
    load.arrive(1.0)
    load.leave(2.0)
    del load
    assert (await reporter.report(first.number)).loads["s/d"].ongoing == 0


@in_loop
async def test_a_backend_counts_who_runs_who_waits_and_what_serving_took() -> None:
    async with node() as n:
        gate = Gate()
        backend = await n.backend(await n.start("a", gate), max_ongoing_requests=1)
        load: Load = n.pool.reporter.load("s/d")
        requests = [Request(backend) for _ in range(3)]
        await until(lambda: load.waiting == 2)
        assert (load.arrivals, load.ongoing, load.completions) == (3, 3, 0)
        await asyncio.sleep(0.02)
        gate.go.set()
        assert [await r.status() for r in requests] == [200] * 3
        at = load.at(load_module.monotonic())
        assert (at.ongoing, at.waiting, at.completions) == (0, 0, 3)
        assert at.served_s < at.ongoing_s - at.waiting_s + 0.001 and at.waiting_s >= 0.04


@in_loop
async def test_a_request_that_is_refused_was_asked_for_and_served_nothing() -> None:
    async with node() as n:
        backend = await n.backend(replica_wait_s=0.01)
        load = n.pool.reporter.load("s/d")
        assert await Request(backend).status() == 503
        assert (load.arrivals, load.completions, load.ongoing, load.waiting) == (1, 0, 0, 0)
