"""Who would take a request, and why: every rule looked at one by one, and said in words. Pure.

``serveconf routes --test`` and the dashboard ask. What the proxies do is ``matching``; here speed does not matter, so this
is written as the contract reads, and the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from serveconf.errors import AuthorError
from serveconf.matching import fields_of, hosts_of, query_of, rule_texts, taken_methods
from serveconf.routing import Conditions, Generation, Match, Route

_RANKS = ("a more specific host", "a longer prefix", "a method", "more headers", "more query parameters")


class _Asked(NamedTuple):
    """The request."""

    method: str
    path: str
    host: str
    headers: dict[str, str]
    query: dict[str, str]


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that has a say about the request's path, and what became of it."""

    stack: str
    deployment: str
    rule: str
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes the request: ``status`` is 404 or 405 where nobody does, and None where that is the app's business."""

    status: int | None = None
    stack: str = ""
    deployment: str = ""
    rule: str = ""
    why: str
    others: tuple[Considered, ...] = ()


def judge_request(generation: Generation, method: str, url: str, headers: Sequence[tuple[str, str]] = ()) -> Verdict:
    """Who takes it, and why not the others. Raises AuthorError for a URL that is none."""
    asked = _asked(method, url, headers)
    path = asked.path
    fitting: list[tuple[Any, Route, str]] = []
    others: list[Considered] = []
    methods: set[str] = set()
    for route in generation.public:
        match = route.match or Match()
        host = _host_that_fits(match, asked)
        if not route.prefix or route.share is not None or not _is_below(path, route.prefix):
            continue
        missing = "it is for other hosts" if host is None else _missing(match, asked)
        if missing:
            others.append(_considered(route, host, missing))
        elif match.methods and method not in taken_methods(match):
            methods |= taken_methods(match).keys()
            others.append(_considered(route, host, f"it takes {', '.join(sorted(taken_methods(match)))} only"))
        else:
            fitting.append((_order(route, match, host or "", asked), route, host or ""))
    fitting.sort(key=lambda one: one[0])
    others = [_considered(route, host, _later(order, fitting[0])) for order, route, host in fitting[1:]] + others
    if fitting:
        _, route, host = fitting[0]
        return Verdict(
            stack=route.stack,
            deployment=route.deployment,
            rule=_text(route, host),
            why=_why_first(fitting),
            others=tuple(others),
        )
    if path == "/-" or path.startswith("/-/"):
        return Verdict(status=None, why="'/-' is the proxy's own", others=tuple(others))
    if methods:
        return Verdict(status=405, why=f"only {', '.join(sorted(methods))} is taken there", others=tuple(others))
    return Verdict(status=404, why="no rule fits", others=tuple(others))


def _asked(method: str, url: str, headers: Sequence[tuple[str, str]]) -> _Asked:
    none = AuthorError(
        f"'{url}' is no URL and no path", code="bad_request", hint="such as 'GET https://a.example/x?v=2' or '/x'"
    )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise none from error
    if not parts.path.startswith("/") and (parts.path or not parts.netloc):
        raise none
    try:
        fields = [(name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError as error:
        raise AuthorError(f"'{error.object}' can be in no header", code="bad_request") from error
    if parts.netloc:
        fields = [(b"host", parts.netloc.rpartition("@")[2].encode()), *(one for one in fields if one[0] != b"host")]
    given = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields_of(fields).items()}
    query = {name.decode(): value.decode() for name, value in query_of(parts.query.encode()).items()}
    return _Asked(method, unquote(parts.path) or "/", given.get("host", ""), given, query)


def _is_below(path: str, prefix: str) -> bool:
    return prefix == "/" or path == prefix or path.startswith(f"{prefix}/")


def _host_that_fits(match: Match, asked: _Asked) -> str | None:
    """The most specific of its hosts that fits; ``""`` where it names none, None where none of them fits."""
    if not match.hosts:
        return ""
    return next((host for host in hosts_of(asked.host) if host in match.hosts), None)


def _missing(match: Match, asked: _Asked) -> str:
    """What the request lacks, in words; empty where it lacks nothing."""
    lacks = [*_lacking("header", match.headers, asked.headers), *_lacking("query", match.query, asked.query)]
    return "; ".join(lacks)


def _lacking(kind: str, conditions: Conditions, given: dict[str, str]) -> list[str]:
    found = []
    for name, wanted in conditions:
        if name not in given:
            found.append(f"{kind} {name} is missing")
        elif wanted is not None and given[name] != wanted:
            found.append(f"{kind} {name} is '{given[name]}', not '{wanted}'")
    return found


def _order(route: Route, match: Match, host: str, asked: _Asked) -> tuple[Any, ...]:
    """Less is before. Hosts by how specific they are, then prefix, method, headers, query; then the name."""
    hosts = list(hosts_of(asked.host))
    ranks = (hosts.index(host), -len(route.prefix), not match.methods, -len(match.headers), -len(match.query))
    return (*ranks, taken_methods(match).get(asked.method, False), route.deployment, route.stack)


def _why_first(fitting: Sequence[tuple[Any, Route, str]]) -> str:
    if len(fitting) == 1:
        return "the only rule that fits"
    (first, _, _), (second, route, _) = fitting[:2]
    return f"before '{route.deployment}': {_difference(first, second)}"


def _later(order: Any, first: tuple[Any, Route, str]) -> str:
    return f"fits, but '{first[1].deployment}' has {_difference(first[0], order)}"


def _difference(before: Any, after: Any) -> str:
    for name, one, other in zip(_RANKS, before, after, strict=False):
        if one != other:
            return name
    return "a name that comes first" if before[5] == after[5] else "the method itself among its own"


def _considered(route: Route, host: str | None, why: str) -> Considered:
    return Considered(stack=route.stack, deployment=route.deployment, rule=_text(route, host), why=why)


def _text(route: Route, host: str | None) -> str:
    texts = rule_texts(route.prefix, route.match)
    hosts = route.match.hosts if route.match else ()
    return texts[hosts.index(host)] if host and host in hosts else texts[0]
