"""Who takes a request: hosts, prefixes, methods, headers and query in the Gateway API's order of precedence. Pure.

``Rule``s come in (a prefix, a ``Match``, a name and what stands for it); ``table_of`` compiles them once per generation.
The order is that of HTTPRoute: the host without a wildcard, then the longest one with it, then none; then the longest
prefix; then a method; then the number of headers, then of query parameters; then the name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from serveconf.routing import Conditions, Match, PrefixTable

T = TypeVar("T")

_MEMORY = 2048  # hosts whose levels are remembered; a client chooses them


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[T]):
    """A claim on requests. ``name`` decides between rules that are equal in everything else."""

    prefix: str
    match: Match | None
    name: str
    value: T


class _Found(NamedTuple):
    """What a key leads to. Between several of one rank the least one counts."""

    implied: bool  # a HEAD that is taken because GET is; who asks for HEAD itself comes before it
    name: str
    value: Any


Given = Mapping[bytes, bytes]  # what a request has: header fields, or query parameters
Find = Callable[[str, Given, Given], _Found | None]  # method, headers, query -> which rule of a shape


@dataclass(kw_only=True, slots=True)
class _Shape:
    """Rules of one host and prefix that look at the same things: one look-up, however many they are."""

    rank: tuple[bool, int, int]
    has_method: bool
    headers: tuple[bytes, ...]  # whose values are part of the key
    query: tuple[bytes, ...]
    any_headers: tuple[bytes, ...]  # that have to be there
    any_query: tuple[bytes, ...]
    by_key: dict[tuple[object, ...], _Found] = field(default_factory=dict)
    methods: dict[tuple[object, ...], set[str]] = field(default_factory=dict)  # by the key's other part
    find: Find = field(init=False)

    def compile(self) -> None:
        """Make ``find``, when all of its rules are there: a look at one thing needs no key of many."""
        rules = self.by_key
        match self.has_method, self.headers, self.query, (*self.any_headers, *self.any_query):
            case False, (), (), ():
                only = rules[()]
                self.find = lambda method, headers, query: only
            case False, (header,), (), ():
                values = {key[0]: found for key, found in rules.items()}
                self.find = lambda method, headers, query: values.get(headers.get(header))
            case False, (), (parameter,), ():
                values = {key[0]: found for key, found in rules.items()}
                self.find = lambda method, headers, query: values.get(query.get(parameter))
            case True, (), (), ():
                values = {key[0]: found for key, found in rules.items()}
                self.find = lambda method, headers, query: values.get(method)
            case True, names, (), ():
                self.find = lambda method, headers, query: rules.get((method, *map(headers.get, names)))
            case _:
                self.find = self._find

    def _find(self, method: str, headers: Given, query: Given) -> _Found | None:
        key = self.key(headers, query)
        if key is None:
            return None
        return self.by_key.get((method, *key) if self.has_method else key)

    def key(self, headers: Given, query: Given) -> tuple[object, ...] | None:
        """What the request has of that, without the method. A None is what no rule's key holds."""
        if (self.any_headers or self.any_query) and not (
            all(name in headers for name in self.any_headers) and all(name in query for name in self.any_query)
        ):
            return None
        if not self.query:
            return tuple(map(headers.get, self.headers))
        return (*map(headers.get, self.headers), *map(query.get, self.query))


class _Level:
    """The rules of one host."""

    def __init__(self, rules: Iterable[tuple[str, Match, str, Any]]) -> None:
        shapes: dict[str, dict[Any, _Shape]] = defaultdict(dict)
        for prefix, match, name, value in rules:
            _add(shapes[prefix], match, name, value)
        for those in shapes.values():
            for shape in those.values():
                shape.compile()
        self.table = PrefixTable(
            {
                prefix: tuple(sorted(those.values(), key=lambda shape: shape.rank, reverse=True))
                for prefix, those in shapes.items()
            }
        )

    def along(self, path: str) -> Iterator[tuple[_Shape, ...]]:
        """The shapes of each prefix of ``path``, the longest first."""
        table, longest = self.table.by_prefix, self.table.longest
        end = len(path)
        if end > longest:
            end = path.rfind("/", 0, longest + 1)
        while end > 0:
            shapes = table.get(path[:end])
            if shapes is not None:
                yield shapes
            end = path.rfind("/", 0, end)
        root = table.get("/")
        if root is not None:
            yield root


def _best(shapes: tuple[_Shape, ...], method: str, headers: Given, query: Given) -> _Found | None:
    """Of the first rank in which something fits, the least name."""
    if len(shapes) == 1:
        return shapes[0].find(method, headers, query)
    best: _Found | None = None
    rank = None
    for shape in shapes:
        if best is not None and shape.rank != rank:
            break
        found = shape.find(method, headers, query)
        if found is not None and (best is None or found[:2] < best[:2]):
            best, rank = found, shape.rank
    return best


def _add(shapes: dict[Any, _Shape], match: Match, name: str, value: Any) -> None:
    rank = (bool(match.methods), len(match.headers), len(match.query))
    headers, any_headers = _looked_at(match.headers)
    query, any_query = _looked_at(match.query)
    kind = (rank[0], headers, query, any_headers, any_query)
    shape = shapes.get(kind)
    if shape is None:
        shape = shapes[kind] = _Shape(
            rank=rank,
            has_method=rank[0],
            headers=headers,
            query=query,
            any_headers=any_headers,
            any_query=any_query,
        )
    key = tuple(wanted.encode() for _, wanted in (*match.headers, *match.query) if wanted is not None)
    taken = taken_methods(match)
    for full, implied in {(method, *key): implied for method, implied in taken.items()}.items() or [(key, False)]:
        found = _Found(implied, name, value)
        shape.by_key[full] = min(found, shape.by_key.get(full, found), key=lambda one: one[:2])
    shape.methods.setdefault(key, set()).update(taken)


def _looked_at(conditions: Conditions) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Names whose value counts, and names that only have to be there."""
    exact = tuple(name.encode() for name, value in conditions if value is not None)
    return exact, tuple(name.encode() for name, value in conditions if value is None)


def taken_methods(match: Match) -> dict[str, bool]:
    """The methods that a match takes, and whether it does so only because HEAD is a GET without its body."""
    taken = dict.fromkeys(match.methods, False)
    if "GET" in taken:
        taken.setdefault("HEAD", True)
    return taken


class MatchTable(Generic[T]):
    """Rules, compiled. A look-up costs as much as hosts and prefixes are deep, not as many as there are."""

    def __init__(self, rules: Iterable[Rule[T]], everywhere: Mapping[str, T]) -> None:
        by_host: dict[str, list[tuple[str, Match, str, T]]] = defaultdict(list)
        rules = tuple(rules)
        for rule in rules:
            match = rule.match or Match()
            for host in match.hosts or ("",):
                by_host[host].append((rule.prefix, match, rule.name, rule.value))
        by_host.setdefault("", [])
        for those in by_host.values():
            those += [(prefix, Match(), "", value) for prefix, value in everywhere.items()]
        self._by_host = {host: _Level(those) for host, those in by_host.items()}
        self._everywhere = (self._by_host[""],)
        self._has_hosts = len(self._by_host) > 1
        self._has_headers = any(rule.match is not None and rule.match.headers for rule in rules)
        self._has_query = any(rule.match is not None and rule.match.query for rule in rules)
        self._levels: dict[bytes, tuple[_Level, ...]] = {}

    def match(self, path: str, scope: Mapping[str, Any]) -> T | None:
        """What stands for the request; None where nothing fits."""
        levels, headers, query = self._given(scope)
        method = scope.get("method", "GET")  # a WebSocket's handshake is a GET
        for level in levels:
            table, longest = level.table.by_prefix, level.table.longest
            end = len(path)  # as in ``along``, but a generator would cost as much again as all the rest
            if end > longest:
                end = path.rfind("/", 0, longest + 1)
            while True:
                shapes = table.get(path[:end] if end > 0 else "/")
                if shapes is not None:
                    found = _best(shapes, method, headers, query)
                    if found is not None:
                        value: T = found[2]
                        return value
                if end <= 0:
                    break
                end = path.rfind("/", 0, end)
        return None

    def allowed(self, path: str, scope: Mapping[str, Any]) -> tuple[str, ...]:
        """The methods with which something would have fitted (RFC 9110 §10.2.1), of a request that nothing takes."""
        levels, headers, query = self._given(scope)
        methods: set[str] = set()
        for level in levels:
            for shapes in level.along(path):
                for shape in shapes:
                    key = shape.key(headers, query)
                    methods |= shape.methods.get(key, set()) if key is not None else set()
        return tuple(sorted(methods))

    def _given(self, scope: Mapping[str, Any]) -> tuple[tuple[_Level, ...], Given, Given]:
        """The levels of its host, the most specific first; its header fields and its query, where a rule looks at them."""
        fields = scope["headers"]
        headers: Given = fields_of(fields) if self._has_headers else {}
        text = scope["query_string"] if self._has_query else b""
        query = query_of(text) if text else {}
        if not self._has_hosts:
            return self._everywhere, headers, query
        host = b""
        for name, value in fields:
            if name == b"host":
                host = value
                break
        levels = self._levels.get(host)
        if levels is None:
            if len(self._levels) >= _MEMORY:
                self._levels.clear()
            names = hosts_of(host.decode("latin-1"))
            levels = self._levels[host] = tuple(self._by_host[name] for name in names if name in self._by_host)
        return levels, headers, query


def fields_of(headers: Sequence[tuple[bytes, bytes]]) -> Given:
    """Values by name; a repeated field is one list (RFC 9110 §5.3)."""
    found = dict(headers)
    if len(found) != len(headers):
        found = {}
        for name, value in headers:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def query_of(text: bytes) -> Given:
    """Parameters, decoded; of a repeated one the first value counts, as the Gateway API recommends."""
    found: dict[bytes, bytes] = {}
    if b"%" in text or b"+" in text:
        for key, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
            found.setdefault(key.encode(), value.encode())
        return found
    for part in text.split(b"&"):
        name, _, rest = part.partition(b"=")
        if part and name not in found:
            found[name] = rest
    return found


class PlainTable(Generic[T]):
    """Prefixes alone, for a generation in which no route asks for more."""

    def __init__(self, by_prefix: dict[str, T]) -> None:
        self._table = PrefixTable(by_prefix)

    def match(self, path: str, scope: Mapping[str, Any]) -> T | None:
        """What stands for the request; None where nothing fits."""
        return self._table.match(path)

    def allowed(self, path: str, scope: Mapping[str, Any]) -> tuple[str, ...]:
        """Nothing looks at the method."""
        return ()


Table = PlainTable[T] | MatchTable[T]


def table_of(rules: Iterable[Rule[T]], everywhere: Mapping[str, T]) -> Table[T]:
    """The rules, and what stands below its prefix on every host before any rule (the proxy's own endpoints)."""
    rules = tuple(rules)
    if any(rule.match for rule in rules):
        return MatchTable(rules, everywhere)
    return PlainTable({**{rule.prefix: rule.value for rule in rules}, **everywhere})


def hosts_of(host: str) -> Iterator[str]:
    """What ``match.hosts`` may say for a request's Host, the most specific first; ``""`` is a rule that names none."""
    name = plain_host(host)
    if name:
        yield name
    dot = name.find(".")
    while dot > 0:
        yield f"*{name[dot:]}"
        dot = name.find(".", dot + 1)
    yield ""


def plain_host(host: str) -> str:
    """A Host header's value without its port and a final dot, in lower case."""
    name = host.lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    return name.removesuffix(".")


def rule_texts(prefix: str, match: Match | None) -> tuple[str, ...]:
    """A route in words, for each of its hosts: ``/x``, or ``a.example/x GET,POST x-beta: 1 ?v=2``."""
    if match is None:
        return (prefix,)
    asks = [",".join(match.methods)]
    asks += [name if value is None else f"{name}: {value}" for name, value in match.headers]
    asks += [f"?{name}" if value is None else f"?{name}={value}" for name, value in match.query]
    return tuple(" ".join(part for part in (host + prefix, *asks) if part) for host in match.hosts or ("",))
