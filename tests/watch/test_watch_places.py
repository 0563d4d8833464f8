"""Where a change shows: whatever can change what a file says is news, and what cannot is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.watch.places import is_news, joined, places_of


def names(places: dict[str, frozenset[str]] | object, folder: Path) -> set[str]:
    return set(places.get(str(folder), ()))  # type: ignore[attr-defined]


def test_a_file_is_watched_from_its_folder_and_that_from_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    file = folder / "serve.yaml"
    file.write_text("")
    places = places_of([file], None, ())
    assert names(places, folder) == {"serve.yaml"}
    assert names(places, tmp_path) == {"specs"}
    assert is_news(places, str(file)) and is_news(places, str(folder))
    assert not is_news(places, str(folder / "other.yaml"))
    assert not is_news(places, str(tmp_path / "elsewhere" / "serve.yaml"))


def test_every_link_on_the_way_counts(tmp_path: Path) -> None:
    (tmp_path / "data" / "..one").mkdir(parents=True)
    (tmp_path / "data" / "..one" / "serve.yaml").write_text("")
    (tmp_path / "data" / "..data").symlink_to("..one")
    (tmp_path / "data" / "serve.yaml").symlink_to(Path("..data") / "serve.yaml")
    (tmp_path / "way").symlink_to(tmp_path / "data")
    places = places_of([tmp_path / "way" / "serve.yaml"], None, ())
    for link in ("way", "data/serve.yaml", "data/..data", "data/..one/serve.yaml"):
        assert is_news(places, str(tmp_path / link)), link


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    places = places_of([tmp_path / "one" / "serve.yaml"], None, ())
    assert is_news(places, str(tmp_path / "one")) and is_news(places, str(tmp_path / "two"))


def test_a_folder_that_is_not_there_is_waited_for_where_it_would_come(tmp_path: Path) -> None:
    file = tmp_path / "not" / "yet" / "here" / "serve.yaml"
    places = places_of([file], None, ())
    assert set(places) <= {str(tmp_path), str(tmp_path.parent)}
    assert is_news(places, str(tmp_path / "not"))
    (tmp_path / "not" / "yet").mkdir(parents=True)
    assert is_news(places_of([file], None, ()), str(tmp_path / "not" / "yet" / "here"))


@pytest.mark.parametrize(
    ("name", "news"),
    [
        ("app.py", True),
        ("data.csv", True),
        ("..data", True),
        ("new folder", True),
        ("__pycache__", False),
        ("app.py~", False),
        (".app.py.swp", False),
        (".git", False),
    ],
)
def test_of_the_code_what_can_be_code_is_news(tmp_path: Path, name: str, news: bool) -> None:
    (tmp_path / "pkg").mkdir()
    places = places_of([], tmp_path, ("", "pkg"))
    assert is_news(places, str(tmp_path / name)) == is_news(places, str(tmp_path / "pkg" / name)) == news
    assert not is_news(places, str(tmp_path / "unknown" / name))


def test_a_named_file_is_news_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("")
    assert is_news(places_of([tmp_path / ".env"], tmp_path, ("",)), str(tmp_path / ".env"))


PARTS = st.sampled_from(["a", "b", "c.yaml", "..data"])
FILES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: Path("/nowhere", *parts)), max_size=4)


@given(FILES, FILES)
def test_what_is_news_to_one_is_news_to_all_together_and_nothing_else_is(one: list[Path], two: list[Path]) -> None:
    first, second = places_of(one, None, ()), places_of(two, None, ())
    both = joined([first, second])
    for path in {str(file) for file in (*one, *two)} | {"/nowhere", "/other"}:
        assert is_news(both, path) == (is_news(first, path) or is_news(second, path))


@given(FILES)
def test_whatever_is_created_on_the_way_to_a_file_is_news(files: list[Path]) -> None:
    places = places_of(files, None, ())
    for folder in places:
        assert os.path.isdir(folder)
    assert all(is_news(places, "/nowhere") for _ in files)
