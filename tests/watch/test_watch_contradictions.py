"""Files that can't all be true: told at both places, once each, and only of those that take part."""

from __future__ import annotations

from pathlib import Path

import pytest

from serveconf.spec.load import Loaded, load_file
from serveconf.watch.contradictions import contradictions


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, name: str, text: str) -> Loaded:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return load_file(file, env={})


def stack(name: str, *deployments: str, head: str = "") -> str:
    rows = "".join(f"  - {one}\n" for one in deployments)
    return f"name: {name}\n{head}deployments:\n{rows}"


def told(*stacks: Loaded) -> dict[str, list[tuple[int, int, str]]]:
    found = contradictions(stacks)
    assert all(one.code == "contradiction" for problems in found.values() for one in problems)
    return {
        file.name: [(one.line, one.column, one.message.replace(f"{file.parent}/", "")) for one in problems]
        for file, problems in found.items()
    }


WEB = "{name: web, import_path: 'web:app', route_prefix: %s}"


def test_two_files_that_claim_one_stack_are_told_of_each_other(files: Path) -> None:
    one = write(files, "one", stack("shop", WEB % "/a"))
    two = write(files, "two", "# hello\n" + stack("shop", WEB % "/b"))
    assert told(one, two) == {
        "one.yaml": [(1, 7, "stack 'shop' is claimed by two.yaml:2:7 too")],
        "two.yaml": [(2, 7, "stack 'shop' is claimed by one.yaml:1:7 too")],
    }
    assert told(two, one) == told(one, two)


def test_a_stack_that_says_no_name_is_one_all_the_same(files: Path) -> None:
    one = write(files, "one", "deployments: [{name: a, import_path: 'a:a'}]\n")
    two = write(files, "two", stack("default", "{name: b, import_path: 'a:a'}"))
    assert set(told(one, two)) == {"one.yaml", "two.yaml"}


def test_one_route_in_two_stacks_is_told_where_each_says_it_or_where_it_follows_from(files: Path) -> None:
    one = write(files, "one", stack("shop", WEB % "/web"))
    two = write(files, "two", stack("blog", "{name: web, import_path: 'web:app'}"))
    assert told(one, two) == {
        "one.yaml": [(3, 55, "route_prefix /web is claimed by two.yaml:3:12 too")],
        "two.yaml": [(3, 12, "route_prefix /web is claimed by one.yaml:3:55 too")],
    }


def test_what_asks_for_different_requests_below_one_prefix_is_none(files: Path) -> None:
    match = "{name: web, import_path: 'web:app', route_prefix: /, match: {hosts: [%s]}}"
    one, two = (
        write(files, "one", stack("a", match % "a.example")),
        write(files, "two", stack("b", match % "b.example")),
    )
    assert told(one, two) == {}
    same = write(files, "three", stack("c", match % "a.example"))
    assert set(told(one, two, same)) == {"one.yaml", "three.yaml"}


def test_what_is_not_reachable_claims_no_route(files: Path) -> None:
    hidden = WEB % "null"
    assert told(write(files, "one", stack("a", hidden)), write(files, "two", stack("b", hidden))) == {}


def test_one_front_can_not_be_two(files: Path) -> None:
    one = write(files, "one", stack("a", WEB % "/a", head="http_options: {port: 8000, workers: 2}\n"))
    two = write(files, "two", stack("b", WEB % "/b", head="http_options:\n  workers: 2\n  port: 9000\n"))
    silent = write(files, "three", stack("c", WEB % "/c"))
    assert told(one, two, silent) == {
        "one.yaml": [(2, 22, "http_options.port is another one in two.yaml:4:9; stacks share one HTTP front")],
        "two.yaml": [(4, 9, "http_options.port is another one in one.yaml:2:22; stacks share one HTTP front")],
    }


def test_of_three_that_claim_one_thing_each_is_told(files: Path) -> None:
    found = told(*(write(files, name, stack("shop", WEB % f"/{name}")) for name in ("one", "two", "three")))
    assert {name: len(problems) for name, problems in found.items()} == {"one.yaml": 2, "two.yaml": 1, "three.yaml": 1}


def test_what_a_file_says_beside_is_no_contradiction_and_one_file_has_none(files: Path) -> None:
    one = write(files, "one", stack("a", WEB % "/a"))
    two = write(files, "two", stack("b", WEB % "/b"))
    assert told(one, two) == told(one) == told() == {}
