"""``/metrics`` as a scraper reads it: names, types and labels of the contract, sums over processes, nothing goes backwards."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from serveconf.admin.metrics import Buckets, Moment, families, read_metrics, render
from serveconf.figures import (
    DeploymentFigures,
    Family,
    Histogram,
    ProcessFigures,
    ProxyFigures,
    ReplicaFigures,
    Side,
    new_histogram,
)
from serveconf.plan.state import DesiredDeployment, Observed
from serveconf.reconcile.kept_figures import KeptFigures
from serveconf.reconcile.ports import ReplicaOrder, StandbyOrder
from serveconf.reconcile.records import Ledger
from serveconf.testing import FakeCluster, MemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def process(began: float, memory: int = 0) -> ProcessFigures:
    return ProcessFigures(began=began, resident_bytes=memory, cpu_s=1.5)


def proxy(began: float, answers: int, *, key: str = "shop/web", active: int = 0) -> ProxyFigures:
    """One that has answered so many GETs with 200, each in 3 ms."""
    figures = DeploymentFigures(bytes_in=answers, bytes_out=10 * answers, active=active)
    for _ in range(answers):
        figures.duration("GET", 200).observe(0.003)
    return ProxyFigures(deployments={key: figures}, refused={"no_route": answers}, process=process(began, 1000))


def scrape(kept: KeptFigures, moment: Moment | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return parsed(render(families(kept, moment or Moment(observed=Observed()))).decode())


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


WEB = {"stack": "shop", "deployment": "web"}
ANSWERS = of(
    "http_server_request_duration_seconds_count", **WEB, http_request_method="GET", http_response_status_code="200"
)


def test_two_workers_add_up() -> None:
    kept = KeptFigures()
    kept.saw_proxy("n-0", proxy(1.0, 5, active=1))
    kept.saw_proxy("n-1", proxy(2.0, 7, active=2))
    found = scrape(kept)
    assert found[ANSWERS] == 12
    assert found[of("http_server_active_requests", **WEB)] == 3
    assert found[of("http_server_request_body_size_bytes_total", **WEB)] == 12
    assert found[of("http_server_response_body_size_bytes_total", **WEB)] == 120
    assert found[of("serveconf_queue_wait_seconds_count", **WEB)] == 12
    assert found[of("serveconf_proxy_refused_total", proxy="n-0", reason="no_route")] == 5
    assert found[of("process_resident_memory_bytes", role="proxy", id="n-1")] == 1000
    bucket = dict(WEB, http_request_method="GET", http_response_status_code="200")
    name = "http_server_request_duration_seconds_bucket"
    assert [found[of(name, **bucket, le=le)] for le in ("0.0025", "0.005", "10.0", "+Inf")] == [0, 12, 12, 12]


def test_nothing_goes_backwards_when_a_proxy_is_restarted_or_replaced() -> None:
    kept = KeptFigures()
    kept.saw_proxy("n-0", proxy(1.0, 5, active=1))
    kept.saw_proxy("n-0", proxy(2.0, 1))
    assert scrape(kept)[ANSWERS] == 6
    assert scrape(kept)[of("http_server_active_requests", **WEB)] == 0
    kept.saw_proxy("n-0", proxy(2.0, 3))
    assert scrape(kept)[ANSWERS] == 8
    kept.keep_only([], [])
    assert scrape(kept)[ANSWERS] == 8
    assert scrape(kept)[of("serveconf_proxy_refused_total", proxy="n-0", reason="no_route")] == 8


def test_a_certificates_end_follows_the_renewed_one_and_goes_with_its_proxy() -> None:
    kept = KeptFigures()
    name = "serveconf_proxy_certificate_expiry_timestamp_seconds"
    for ends_at in (1.9e9, 1.8e9):  # also an earlier one: what is shown counts
        kept.saw_proxy("n-0", ProxyFigures(certificate_ends_at=ends_at, process=process(1.0)))
        kept.saw_proxy("n-1", ProxyFigures(process=process(1.0)))  # without TLS
        assert [(key, end) for key, end in scrape(kept).items() if key[0] == name] == [(of(name, proxy="n-0"), ends_at)]
    kept.saw_proxy("n-0", ProxyFigures(process=process(2.0)))  # started anew, without TLS
    assert not [key for key in scrape(kept) if key[0] == name]


async def test_the_next_controller_goes_on_from_there() -> None:
    store = MemoryStore()
    kept = KeptFigures(store)
    kept.saw_proxy("n-0", proxy(1.0, 5))
    kept.applied("shop", "applied", 2.0, failed_requests=3)
    kept.started("shop/web", 0.4, standby=True)
    await kept.flush()
    again = KeptFigures(store)
    await again.load()
    again.saw_proxy("n-0", proxy(1.0, 6))  # the same process, which has lived on
    again.applied("shop", "applied", 2.0)
    found = scrape(again)
    assert found[ANSWERS] == 6
    assert found[of("serveconf_applies_total", stack="shop", outcome="applied")] == 2
    assert found[of("serveconf_apply_failed_requests_total", stack="shop", outcome="applied")] == 3
    assert found[of("serveconf_replica_start_seconds_bucket", **WEB, standby="true", le="0.5")] == 1


async def test_figures_that_cannot_be_read_are_begun_anew() -> None:
    store = MemoryStore()
    store.values["figures"] = b"\xc1"
    kept = KeptFigures(store)
    await kept.load()
    kept.saw_proxy("n-0", proxy(1.0, 1))
    assert scrape(kept)[ANSWERS] == 1


def test_the_versions_of_a_canary_are_told_apart_while_it_runs_also_when_a_proxy_is_replaced() -> None:
    kept = KeptFigures()
    for began, given in ((1.0, 5), (2.0, 2)):
        figures = proxy(began, 1)
        figures.sides["shop/web@v2"] = Side(given=given, failed=1, slowness=(given,))
        kept.saw_proxy("n-0", figures)
    shares = {("shop", "web", "v1"): 90.0, ("shop", "web", "v2"): 10.0}
    found = scrape(kept, Moment(observed=Observed(), canaries=shares))
    assert found[of("serveconf_canary_answers_total", **WEB, version="v2")] == 7
    assert found[of("serveconf_canary_failed_answers_total", **WEB, version="v2")] == 2
    assert found[of("serveconf_canary_answers_total", **WEB, version="v1")] == 0
    assert found[of("serveconf_canary_percent", **WEB, version="v1")] == 90
    assert not [name for name, _ in scrape(kept) if name.startswith("serveconf_canary")]


def test_many_replaced_proxies_leave_a_bounded_number_of_names() -> None:
    kept = KeptFigures()
    for number in range(1000):
        kept.saw_proxy(f"n-{number}", proxy(float(number), 1))
        kept.keep_only([], [])
    found = scrape(kept)
    assert found[ANSWERS] == 1000
    assert len([name for name, _ in found if name == "serveconf_proxy_refused_total"]) == 201


def test_what_apps_measure_themselves_is_added_up_over_replicas_and_outlives_them() -> None:
    def replica(began: float, made: float, load: float) -> ReplicaFigures:
        calls = new_histogram()
        calls.observe(0.1)
        return ReplicaFigures(
            process=process(began),
            calls={"shop/api": calls},
            families=[
                Family(name="tokens", kind="counter", labels=("model",), samples={("small",): [made]}),
                Family(name="load", kind="gauge", samples={(): [load]}),
                Family(name="size", kind="histogram", bounds=(1.0, 2.0), samples={(): [0.0, 1.0, 1.0, 9.5]}),
            ],
        )

    kept = KeptFigures()
    kept.saw_replica("r1", "shop/web", replica(1.0, 5, 0.5))
    kept.saw_replica("r2", "shop/web", replica(2.0, 6, 0.25))
    found = scrape(kept)
    assert found[of("tokens_total", **WEB, model="small")] == 11
    assert found[of("load", **WEB)] == 0.75
    assert found[of("size_bucket", **WEB, le="2.0")] == 2
    assert found[of("size_count", **WEB)] == 4
    assert found[of("size_sum", **WEB)] == 19
    kept.keep_only([], ["r2"])
    found = scrape(kept)
    assert found[of("tokens_total", **WEB, model="small")] == 11
    assert found[of("load", **WEB)] == 0.25
    call = of("serveconf_handle_request_duration_seconds_count", stack="shop", deployment="api", caller="shop/web")
    assert found[call] == 2


async def test_a_scrape_asks_every_replica_that_serves() -> None:
    cluster = FakeCluster()
    for number in range(2):
        await cluster.start_replica(order(f"shop.web.{number}"))
    cluster.settle()
    family = Family(name="tokens", kind="counter", samples={(): [3.0]})
    for number, replica in enumerate(cluster.observe().replicas):
        cluster.counted[replica.id] = ReplicaFigures(families=[family], process=process(float(number + 1)))
    found = parsed((await read_metrics(cluster, Ledger(MemoryStore()))).decode())
    assert found[of("tokens_total", **WEB)] == 6
    assert found[of("process_cpu_seconds_total", role="replica", id="shop.web.0")] == 1.5


def order(replica_id: str) -> ReplicaOrder:
    deployment = DesiredDeployment(name="web", prefix="/", num_replicas=1, version="1", code="")
    return ReplicaOrder(id=replica_id, stack="shop", deployment=deployment, ready_timeout_s=60)


def test_two_versions_that_call_different_things_by_one_name_do_not_break_the_page() -> None:
    kept = KeptFigures()
    for began, family in enumerate(
        (
            Family(name="a", kind="counter", samples={(): [1.0]}),
            Family(name="a", kind="histogram", bounds=(1.0,), samples={(): [1.0, 0.0, 0.5]}),
        )
    ):
        kept.saw_replica(f"r{began}", "shop/web", ReplicaFigures(families=[family], process=process(began)))
    assert scrape(kept)[of("a_total", **WEB)] == 1


def test_histograms_are_written_as_the_library_writes_them() -> None:
    odd = 'a "quoted" \\ back\nslash'
    ours = Buckets("a_seconds", "What \\ it\nis.", ("stack", "deployment"))
    ours.add(("shop", odd), Histogram([1, 0, 2], 0.5), (0.25, 10.0))
    ours.add(("shop", "web"), Histogram([0, 0, 0]), (0.25, 10.0))
    registry = CollectorRegistry()
    theirs = HistogramMetricFamily("a_seconds", "What \\ it\nis.", labels=("stack", "deployment"))
    theirs.add_metric(("shop", odd), [("0.25", 1), ("10.0", 1), ("+Inf", 3)], 0.5)
    theirs.add_metric(("shop", "web"), [("0.25", 0), ("10.0", 0), ("+Inf", 0)], 0.0)
    registry.collect = lambda: [theirs]  # type: ignore[method-assign]
    read = [list(text_string_to_metric_families(text)) for text in (ours.text(), generate_latest(registry).decode())]
    assert read[0] == read[1]
    assert ours.text().splitlines()[:2] == generate_latest(registry).decode().splitlines()[:2]


async def test_standbys_are_counted_by_state() -> None:
    cluster, ledger = FakeCluster(), Ledger(MemoryStore())
    for name in ("one", "two"):
        await cluster.start_standby(StandbyOrder(id=name, node_id="node0", kind="num_cpus=1", options={}))
    cluster.settle()
    await cluster.start_standby(StandbyOrder(id="three", node_id="node0", kind="num_cpus=1", options={}))
    text = (await read_metrics(cluster, ledger, None)).decode()
    assert 'serveconf_standbys{state="Ready"} 2.0' in text
    assert 'serveconf_standbys{state="Starting"} 1.0' in text


def test_an_answer_that_was_long_on_its_way_takes_nothing_back() -> None:
    def counted(answers: int, cpu_s: float) -> ProxyFigures:
        figures = DeploymentFigures()
        for _ in range(answers):
            figures.duration("GET", 200).observe(0.001)
        return ProxyFigures(deployments={"s/d": figures}, process=ProcessFigures(began=1.0, cpu_s=cpu_s))

    kept = KeptFigures()
    kept.saw_proxy("n-0", counted(5, 2.0))
    kept.saw_proxy("n-0", counted(4, 1.9))
    kept.keep_only([], [])
    assert kept.proxies()["n-0"].deployments["s/d"].durations["GET"][200].count == 5


def test_what_a_replica_has_counted_stays_under_the_name_that_it_began_with() -> None:
    kept = KeptFigures()
    family = Family(name="made", kind="counter", samples={(): [5.0]})
    kept.saw_replica("r1", "shop/web", ReplicaFigures(families=[family], process=process(1.0)))
    kept.saw_replica("r1", "shop/new", ReplicaFigures(families=[family], process=process(1.0)))
    assert list(kept.replicas()) == ["shop/web"]
    kept.saw_replica("r1", "shop/new", ReplicaFigures(families=[family], process=process(2.0)))
    assert list(kept.replicas()) == ["shop/new", "shop/web"]
