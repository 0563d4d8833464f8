"""Every example is applied as it stands, but for its port, and asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from place import ASK_S, Place, ask, end, until
from websockets.sync.client import connect

EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"


@pytest.fixture
def example(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of an example that serves on this test's port; its stack is taken away at the end."""
    folder = tmp_path / request.param
    shutil.copytree(EXAMPLES / request.param, folder, ignore=shutil.ignore_patterns("__pycache__"))
    spec = folder / "serve.yaml"
    text = spec.read_text()
    if "port: 8000" in text:
        spec.write_text(text.replace("port: 8000", f"port: {place.http_port}"))
    else:
        spec.write_text(f"{text}\nhttp_options: {{port: {place.http_port}}}\n")
    yield spec
    name = next(line.split()[1] for line in text.splitlines() if line.startswith("name:"))
    place.ok("delete", "--stack", name)


def test_there_is_no_example_without_a_test() -> None:
    assert sorted(folder.name for folder in EXAMPLES.iterdir()) == [
        "api-keys", "autoscaling", "batching", "blue-green", "canary", "composition", "hosts", "mirror", "multiplexed",
        "package", "quickstart", "streaming",
    ]  # fmt: skip


@pytest.mark.parametrize("example", ["quickstart"], indirect=True)
def test_quickstart_serves_two_apps_and_a_second_apply_does_nothing(place: Place, example: Path) -> None:
    first = place.ok("apply", example, "-o", "json").json
    assert (first["outcome"], first["changed"], first["revision"]) == ("applied", True, 1)
    assert ask(f"{place.url}/hello?name=you") == (200, '{"message":"Hello, you!"}')
    note = json.dumps({"text": "buy tea"}).encode()
    headers = {"content-type": "application/json"}
    assert ask(f"{place.url}/notes", data=note, **headers) == (201, '{"number":1}')
    assert ask(f"{place.url}/notes/1") == (200, '{"text":"buy tea"}')
    again = place.ok("apply", example)
    assert "No changes" in again.out + again.err
    assert place.ok("apply", example, "-o", "json").json["outcome"] == "unchanged"
    assert ask(f"{place.url}/notes/1") == (200, '{"text":"buy tea"}')


@pytest.mark.parametrize("example", ["package"], indirect=True)
def test_package_serves_its_modules_and_its_factory(place: Place, example: Path) -> None:
    place.ok("apply", example)
    assert ask(f"{place.url}/catalog/items") == (200, '["cup","spoon","tea"]')
    order = json.dumps({"items": {"tea": 2}}).encode()
    answer = ask(f"{place.url}/orders/total", data=order, **{"content-type": "application/json"})
    assert answer == (200, '{"cents":900,"currency":"EUR"}')
    assert len(place.pids("shop", "catalog")) == 2


@pytest.mark.parametrize("example", ["streaming"], indirect=True)
def test_streaming_streams_and_echoes(place: Place, example: Path) -> None:
    place.ok("apply", example)
    assert ask(f"{place.url}/count?to=3") == (200, "1\n2\n3\n")
    assert ask(f"{place.url}/events?n=1") == (200, "event: tick\ndata: 0\n\n")
    assert ask(f"{place.url}/size", data=b"x" * 3_000_000) == (200, '{"bytes":3000000}')
    with connect(f"ws://127.0.0.1:{place.http_port}/echo", proxy=None, open_timeout=ASK_S) as socket:
        socket.send("again")
        assert socket.recv(timeout=ASK_S) == "again"


@pytest.mark.parametrize("example", ["composition"], indirect=True)
def test_composition_answers_through_the_deployments_that_it_calls(place: Place, example: Path) -> None:
    place.ok("apply", example)
    assert ask(f"{place.url}/shop/bread") == (200, '{"item":"bread","price":"5 EUR","count":35}')
    assert ask(f"{place.url}/shop.Prices")[0] == 404
    routes = place.ok("routes", "-o", "json").json
    assert routes["/shop"] == "shop" and "shop.Prices" not in routes.values()
    assert "No changes" in place.ok("plan", example).out
    assert len(place.pids("composition", "shop.Stock")) == 2
    code = example.parent / "shop.py"
    code.write_text(code.read_text().replace("7 * len", "8 * len"))
    place.ok("apply", example)
    assert ask(f"{place.url}/shop/bread") == (200, '{"item":"bread","price":"5 EUR","count":40}')


@pytest.mark.parametrize("example", ["batching"], indirect=True)
def test_batching_answers_requests_together_and_takes_another_size_without_a_restart(
    place: Place, example: Path
) -> None:
    place.ok("apply", example)
    url = f"{place.url}/sentiment"
    assert ask(f"{url}?text=a+lovely+day") == (200, '{"text":"a lovely day","mood":"good","batch":1}')

    def sizes() -> set[int]:
        with ThreadPoolExecutor(16) as pool:
            answers = pool.map(lambda number: ask(f"{url}?text=bad+{number}"), range(64))
            return {json.loads(text)["batch"] for _, text in answers}

    until(lambda: max(sizes()) > 4, "a batch of more than four")
    before = place.pids("batching", "sentiment")
    example.write_text(example.read_text().replace("max_batch_size: 16", "max_batch_size: 4"))
    done = place.ok("apply", example, "-o", "json").json
    assert [action["cost"] for action in done["actions"]] == ["reconfigure"]
    assert max(sizes()) <= 4
    assert place.pids("batching", "sentiment") == before


@pytest.mark.parametrize("example", ["multiplexed"], indirect=True)
def test_multiplexed_sends_requests_where_their_model_is(place: Place, example: Path) -> None:
    place.ok("apply", example)

    def greet(model: str, **headers: str) -> dict[str, object]:
        status, text = ask(f"{place.url}/greet?name=Ada", serve_multiplexed_model_id=model, **headers)
        assert status == 200
        return dict(json.loads(text))

    for model, word in (("german", "Hallo"), ("french", "Bonjour")):
        answers = [greet(model) for _ in range(6)]
        assert {answer["text"] for answer in answers} == {f"{word}, Ada!"}
        assert len({(answer["replica"], answer["loads"]) for answer in answers}) == 1  # loaded once, on one of the two
    assert ask(f"{place.url}/greet", serve_multiplexed_model_id="klingon")[0] == 404
    assert greet("")["text"] == "Hello, Ada!"


@pytest.mark.parametrize("example", ["api-keys"], indirect=True)
def test_api_keys_lets_partners_in_so_many_times_a_minute(place: Place, example: Path) -> None:
    place.ok("apply", example)
    url = f"{place.url}/api/orders"
    assert ask(url)[0] == 401
    assert ask(url, **{"x-api-key": "wrong"})[0] == 401
    answers = [ask(url, **{"x-api-key": "demo"}) for _ in range(7)]
    assert answers[0] == (200, '{"partner":"demo","orders":[1,2,3]}')
    assert [status for status, _ in answers] == [200] * 5 + [429] * 2
    assert ask(url, **{"x-api-key": "other"})[0] == 200


@pytest.mark.parametrize("example", ["blue-green"], indirect=True)
def test_blue_green_changes_over_without_a_restart(place: Place, example: Path) -> None:
    place.ok("apply", example)
    before = place.pids("blue-green", "blue") | place.pids("blue-green", "green")
    assert ask(place.url) == (200, '{"color":"blue"}')
    assert ask(f"{place.url}/preview") == (200, '{"color":"green"}')
    done = place.run("apply", example, "-o", "json", BLUE_AT="/preview", GREEN_AT="/")
    assert [action["cost"] for action in done.json["actions"]] == ["route", "route"]
    assert ask(place.url) == (200, '{"color":"green"}')
    assert ask(f"{place.url}/preview") == (200, '{"color":"blue"}')
    assert place.pids("blue-green", "blue") | place.pids("blue-green", "green") == before


@pytest.mark.parametrize("example", ["canary"], indirect=True)
def test_canary_is_promoted_by_hand_and_a_client_keeps_its_side(place: Place, example: Path) -> None:
    place.ok("apply", example)
    assert ask(place.url) == (200, '{"version":1}')
    code = example.parent / "shop.py"
    code.write_text(code.read_text().replace("VERSION = 1", "VERSION = 2"))
    assert "canary 10, 50 %" in place.ok("plan", example).out
    apply = place.start("apply", example)
    until(lambda: (place.stack("canary")["deployments"][0]["canary"] or {}).get("until"), "the first step")
    assert "canary, step 1 of 2: shop 10 %" in place.ok("status").out
    for cookie, version in (("side=9999", 1), ("side=0", 2)):
        assert ask(place.url, cookie=cookie) == (200, f'{{"version":{version}}}')
    place.ok("promote", "shop", "--stack", "canary")
    assert end(apply).code == 0
    assert ask(place.url, cookie="side=9999") == (200, '{"version":2}')


@pytest.mark.parametrize("example", ["hosts"], indirect=True)
def test_hosts_headers_and_query_say_who_answers(place: Place, example: Path) -> None:
    place.ok("apply", example)
    for path, headers, site in (
        ("/", {"host": "shop.example"}, "shop"),
        ("/", {"host": "eu.shop.example:80"}, "shop"),
        ("/?page=1", {"host": "shop.example", "x-beta": "1"}, "shop-beta"),
        ("/?page=1", {}, "docs"),
        ("/", {"x-beta": "1"}, "landing"),
    ):
        assert ask(place.url + path, **headers) == (200, f'{{"site":"{site}"}}')
    verdict = place.ok("routes", "--test", "GET https://shop.example/?page=1", "-H", "x-beta: 1", "-o", "json").json
    assert verdict["deployment"] == "shop-beta"


@pytest.mark.parametrize("example", ["mirror"], indirect=True)
def test_mirror_gives_copies_to_a_deployment_that_nobody_can_reach(place: Place, example: Path) -> None:
    place.ok("apply", example)
    for number in range(5):
        data = json.dumps({"n": number}).encode()
        assert ask(f"{place.url}/shop", data=data, **{"content-type": "application/json"}) == (
            200,
            '{"version":"today"}',
        )
    assert ask(f"{place.url}/next")[0] == 404
    seen = example.parent / "seen"
    until(lambda: seen.exists() and len(seen.read_text().split()) == 5, "all copies")
    assert sorted(seen.read_text().split()) == [f"{number}:1" for number in range(5)]


@pytest.mark.parametrize("example", ["autoscaling"], indirect=True)
def test_autoscaling_says_its_bounds_in_the_status(place: Place, example: Path) -> None:
    place.ok("apply", example)
    assert ask(f"{place.url}/thumbnails/cat.png") == (200, '{"thumbnail":"cat.png"}')
    (found,) = place.stack("thumbnails")["deployments"]
    assert found["autoscaling"]["max"] == 8 and found["autoscaling"]["min"] in (0, 2)
