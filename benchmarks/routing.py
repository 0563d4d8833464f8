"""What a look-up in the table costs: prefixes alone, and hosts, methods, headers and query among 10,000 rules.

python benchmarks/routing.py
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from serveconf.matching import Rule, table_of
from serveconf.routing import PrefixTable, as_match

HEADERS = [
    (b"host", b"h77.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"cookie", b"session=0123456789abcdef"),
    (b"x-tenant", b"t4711"),
    (b"x-beta", b"1"),
    (b"x-request-id", b"00000000-0000-4000-8000-000000000000"),
]
SCOPE = {"type": "http", "method": "GET", "headers": HEADERS, "query_string": b"page=2&v=2"}


def rules(count: int, make: Callable[[int], tuple[str, dict[str, Any] | None]]) -> list[Rule[int]]:
    found = []
    for index in range(count):
        prefix, match = make(index)
        found.append(Rule(prefix=prefix, match=as_match(match), name=f"d{index}", value=index))
    return found


def nanoseconds(look_up: Callable[[], object], calls: int = 1_000, rounds: int = 300) -> float:
    """The best round's time for a call: what is above it are the neighbours."""
    best = float("inf")
    for _ in range(rounds):
        began = perf_counter_ns()
        for _ in range(calls):
            look_up()
        best = min(best, (perf_counter_ns() - began) / calls)
    return best


def main() -> None:
    prefixes = rules(10_000, lambda i: (f"/p{i}/a", None))
    plain, table = PrefixTable({rule.prefix: rule.value for rule in prefixes}), table_of(prefixes, {})
    cases = {
        "a dictionary of prefixes, as before": lambda: plain.match("/p4711/a/items/42"),
        "no rule has a match": lambda: table.match("/p4711/a/items/42", SCOPE),
    }
    for name, make in {
        "100 hosts, 100 prefixes each": lambda i: (f"/p{i // 100}", {"hosts": [f"h{i % 100}.example"]}),
        "10,000 values of one header": lambda i: ("/", {"headers": {"x-tenant": f"t{i}"}}),
        "methods and two headers": lambda i: (
            f"/p{i // 2}",
            {"methods": ["GET"], "headers": {"x-tenant": "t4711", "x-beta": str(i % 2)}},
        ),
        "a query parameter": lambda i: (f"/p{i // 2}", {"query": {"v": str(1 + i % 2)}}),
    }.items():
        one = table_of(rules(10_000, make), {})
        assert one.match("/p47/items/42", SCOPE) is not None
        cases[name] = lambda one=one: one.match("/p47/items/42", SCOPE)  # type: ignore[misc]
    for name, look_up in cases.items():
        print(f"{name:<40} {nanoseconds(look_up) / 1000:6.2f} µs")


if __name__ == "__main__":
    main()
