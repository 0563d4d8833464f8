"""Who takes a request: the order of precedence, case by case, and the compiled table against the plain reading of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.matching import MatchTable, PlainTable, Rule, rule_texts, table_of
from serveconf.route_test import judge_request
from serveconf.routing import Generation, PrefixTable, Route, as_match, decode, encode


def rule(name: str, prefix: str = "/", **match: Any) -> Rule[str]:
    return Rule(prefix=prefix, match=as_match(match), name=name, value=name)


def asked(method: str = "GET", host: str | None = None, query: str = "", **headers: str) -> dict[str, Any]:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if host is not None:
        fields.insert(0, (b"host", host.encode()))
    return {"type": "http", "method": method, "headers": fields, "query_string": query.encode()}


def taker(rules: list[Rule[str]], path: str = "/", scope: dict[str, Any] | None = None) -> str | None:
    return table_of(rules, {"/-": "system"}).match(path, scope or asked())


# Each row: the rules, the request, who takes it. The order is the Gateway API's (HTTPRouteMatch, "Precedence").
ROWS = {
    "a host comes before a longer prefix": (
        [rule("host", "/", hosts=["a.example"]), rule("long", "/x/y")],
        ("/x/y", asked(host="a.example")),
        "host",
    ),
    "an exact host comes before a wildcard": (
        [rule("wild", hosts=["*.example"]), rule("exact", hosts=["a.example"])],
        ("/", asked(host="a.example")),
        "exact",
    ),
    "a longer wildcard comes before a shorter one": (
        [rule("short", hosts=["*.example"]), rule("long", hosts=["*.b.example"])],
        ("/", asked(host="a.b.example")),
        "long",
    ),
    "a wildcard comes before no host": (
        [rule("any"), rule("wild", hosts=["*.example"])],
        ("/", asked(host="a.example")),
        "wild",
    ),
    "a wildcard takes several labels": ([rule("wild", hosts=["*.example"])], ("/", asked(host="a.b.example")), "wild"),
    "a wildcard does not take the bare name": ([rule("wild", hosts=["*.example"])], ("/", asked(host="example")), None),
    "a wildcard begins at a label": ([rule("wild", hosts=["*.example"])], ("/", asked(host="bexample")), None),
    "a host's port does not matter": ([rule("a", hosts=["a.example"])], ("/", asked(host="a.example:8000")), "a"),
    "a host's case does not matter": ([rule("a", hosts=["A.example"])], ("/", asked(host="a.EXAMPLE")), "a"),
    "a host's final dot does not matter": ([rule("a", hosts=["a.example"])], ("/", asked(host="a.example.")), "a"),
    "an address is a host": ([rule("a", hosts=["127.0.0.1"])], ("/", asked(host="127.0.0.1:80")), "a"),
    "a request without a host finds who asks for none": (
        [rule("a", hosts=["a.example"]), rule("b")],
        ("/", asked()),
        "b",
    ),
    "a host that has no fitting prefix leaves it to no host": (
        [rule("a", "/x", hosts=["a.example"]), rule("b")],
        ("/y", asked(host="a.example")),
        "b",
    ),
    "a longer prefix comes before a method": (
        [rule("method", "/x", methods=["GET"]), rule("long", "/x/y")],
        ("/x/y/z", asked()),
        "long",
    ),
    "a prefix ends at a path boundary": ([rule("a", "/a", methods=["GET"])], ("/ab", asked()), None),
    "a prefix takes itself with a slash": ([rule("a", "/a", methods=["GET"])], ("/a/", asked()), "a"),
    "a longer prefix that does not fit leaves it to a shorter one": (
        [rule("long", "/x/y", headers={"x-beta": "1"}), rule("short", "/x")],
        ("/x/y", asked()),
        "short",
    ),
    "a method comes before any number of headers": (
        [rule("headers", headers={"a": "1", "b": "2"}), rule("method", methods=["GET"])],
        ("/", asked(a="1", b="2")),
        "method",
    ),
    "more headers come before fewer": (
        [rule("one", headers={"a": "1"}), rule("two", headers={"a": "1", "b": "2"})],
        ("/", asked(a="1", b="2")),
        "two",
    ),
    "a header comes before any number of parameters": (
        [rule("query", query={"p": "1", "q": "2"}), rule("z-header", headers={"a": "1"})],
        ("/", asked(a="1", query="p=1&q=2")),
        "z-header",
    ),
    "more parameters come before fewer": (
        [rule("one", query={"p": "1"}), rule("two", query={"p": "1", "q": "2"})],
        ("/", asked(query="q=2&p=1")),
        "two",
    ),
    "between equals the name decides": (
        [rule("b", headers={"a": "1"}), rule("a", headers={"b": "2"})],
        ("/", asked(a="1", b="2")),
        "a",
    ),
    "a header's value is exact": ([rule("a", headers={"x": "1"})], ("/", asked(x="10")), None),
    "a header's name has no case": ([rule("a", headers={"X-Beta": "1"})], ("/", asked(x_beta="1")), "a"),
    "null is any value of a header": ([rule("a", headers={"x": None})], ("/", asked(x="")), "a"),
    "null is no missing header": ([rule("a", headers={"x": None})], ("/", asked()), None),
    "null is any value of a parameter": ([rule("a", query={"v": None})], ("/", asked(query="v")), "a"),
    "a parameter is decoded": ([rule("a", query={"v": "a b&c"})], ("/", asked(query="v=a+b%26c")), "a"),
    "of a repeated parameter the first counts": ([rule("a", query={"v": "1"})], ("/", asked(query="v=1&v=2")), "a"),
    "GET takes HEAD": ([rule("a", methods=["GET"])], ("/", asked("HEAD")), "a"),
    "who asks for HEAD itself has it": (
        [rule("a", methods=["GET"]), rule("b", methods=["HEAD"])],
        ("/", asked("HEAD")),
        "b",
    ),
    "another method is not taken": ([rule("a", methods=["POST"])], ("/", asked()), None),
    "the proxy's own endpoints come before everything": (
        [rule("a", hosts=["a.example"], methods=["GET"])],
        ("/-/healthz", asked(host="a.example")),
        "system",
    ),
}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_precedence(case: tuple[list[Rule[str]], tuple[str, dict[str, Any]], str | None]) -> None:
    rules, (path, scope), expected = case
    assert taker(rules, path, scope) == expected
    assert taker(rules[::-1], path, scope) == expected  # the order of the file says nothing


def test_a_websocket_is_a_get() -> None:
    scope = {"type": "websocket", "headers": [(b"host", b"a.example")], "query_string": b""}
    assert taker([rule("a", methods=["GET"], hosts=["a.example"])], "/", scope) == "a"
    assert taker([rule("a", methods=["POST"])], "/", scope) is None


def test_only_the_method_does_not_fit() -> None:
    rules = [
        rule("get", "/x", methods=["GET"], headers={"a": "1"}),
        rule("put", "/x", methods=["PUT"]),
        rule("host", "/x", methods=["PATCH"], hosts=["b.example"]),
    ]
    table = table_of(rules, {})
    assert table.match("/x", asked("POST", a="1")) is None
    assert table.allowed("/x", asked("POST", a="1")) == ("GET", "HEAD", "PUT")
    assert table.allowed("/x", asked("POST")) == ("PUT",)
    assert table.allowed("/x", asked("POST", host="b.example")) == ("PATCH", "PUT")
    assert table.allowed("/y", asked("POST", a="1")) == ()


def test_a_table_without_any_match_is_the_plain_one() -> None:
    assert isinstance(table_of([rule("a", "/a"), rule("b", "/b")], {}), PlainTable)
    assert isinstance(table_of([rule("a", "/a"), rule("b", "/b", methods=["GET"])], {}), MatchTable)


class Counting(dict[str, str]):
    """Notes what is looked up."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.keys_asked: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_asked.append(key)
        return super().get(key, default)


def test_a_path_of_many_slashes_is_looked_up_no_deeper_than_the_longest_prefix() -> None:
    by_prefix = Counting({"/": "root", "/a/b": "deep"})
    table = PrefixTable(by_prefix)
    assert table.match("/" * 16_000) == "root"
    assert table.match("/a/b" + "/" * 16_000) == "deep"
    assert table.match("/a/bc") == "root"
    assert len(by_prefix.keys_asked) < 12
    assert max(map(len, by_prefix.keys_asked)) <= len("/a/b")


def test_a_rule_reads_as_it_is_asked_for() -> None:
    match = as_match(
        {"hosts": ["b.example", "a.example"], "methods": ["GET"], "headers": {"X": "1"}, "query": {"v": None}}
    )
    assert rule_texts("/x", match) == ("a.example/x GET x: 1 ?v", "b.example/x GET x: 1 ?v")
    assert rule_texts("/x", None) == ("/x",)
    assert as_match({"hosts": []}) is None


def test_a_generation_with_matches_survives_the_store() -> None:
    match = as_match({"hosts": ["a.example"], "headers": {"x": None}, "query": {"v": "1"}})
    generation = Generation(number=1, routes=(Route(prefix="/", stack="s", deployment="a", match=match),))
    assert decode(encode(generation)) == generation


HOSTS = ("a.example", "b.a.example", "*.a.example", "*.example")
PATHS = ("/", "/x", "/x/y", "/xy", "/z")
VALUES = st.sampled_from(("1", "2", None))
CONDITIONS = st.dictionaries(st.sampled_from(("p", "q")), VALUES, max_size=2)
MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.lists(st.sampled_from(HOSTS), max_size=2),
        "methods": st.lists(st.sampled_from(("GET", "HEAD", "POST")), max_size=2),
        "headers": CONDITIONS,
        "query": CONDITIONS,
    },
)
ROUTES = st.lists(
    st.builds(
        lambda prefix, match, name: Route(prefix=prefix, stack="s", deployment=name, match=as_match(match)),
        st.sampled_from(PATHS),
        MATCHES,
        st.text("abcdef", min_size=1, max_size=3),
    ),
    max_size=12,
    unique_by=lambda route: route.deployment,
)


@given(
    routes=ROUTES,
    method=st.sampled_from(("GET", "HEAD", "POST", "PUT")),
    host=st.sampled_from(("a.example", "b.a.example:80", "c.b.a.example", "example", "")),
    path=st.sampled_from(("/", "/x", "/x/", "/x/y/z", "/xy", "/w", "//x")),
    headers=st.dictionaries(st.sampled_from(("p", "q")), st.sampled_from(("1", "2", "3")), max_size=2),
    query=st.sampled_from(("", "p=1", "p=1&q=2", "q=2&p=2&p=1")),
)
def test_the_compiled_table_does_what_the_contract_reads(
    routes: list[Route], method: str, host: str, path: str, headers: dict[str, str], query: str
) -> None:
    rules = [Rule(prefix=r.prefix, match=r.match, name=f"{r.deployment} {r.stack}", value=r.deployment) for r in routes]
    table = MatchTable(rules, {})
    scope = asked(method, host, query, **headers)
    fields = list(headers.items())
    url = f"http://{host}{path}?{query}" if host else f"{path}?{query}"
    if url.startswith("//"):
        return  # without a host it would read as one
    verdict = judge_request(Generation(number=1, routes=tuple(routes)), method, url, fields)
    found = table.match(path, scope)
    assert (found or "") == verdict.deployment
    if found is None:
        assert verdict.status == (405 if table.allowed(path, scope) else 404)
