"""What was refused is remembered across restarts, by stack and controller; and nothing about the file ends a watcher."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.home import home_folder
from serveconf.watch import quarantine
from serveconf.watch.quarantine import MOST, Refused, refuse, refused, release

HERE = "http://127.0.0.1:8001"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home") / ".serveconf"
        patch.setenv("SERVECONF_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_yet(home: Path) -> None:
    (home_folder() / "quarantine.json").unlink(missing_ok=True)


STEPS = st.lists(
    st.tuples(st.sampled_from(["refuse", "release"]), st.sampled_from("ab"), st.sampled_from("xy")), max_size=8
)


@given(STEPS)
def test_it_holds_the_last_word_on_each_stack(steps: list[tuple[str, str, str]]) -> None:
    expected: dict[str, str | None] = {}
    for what, stack, key in [("release", "a", ""), ("release", "b", ""), *steps]:
        if what == "refuse":
            refuse(HERE, stack, key, f"why {key}")
            expected[stack] = key
        else:
            release(HERE, stack)
            expected[stack] = None
    for stack, wanted in expected.items():
        assert refused(HERE, stack) == (Refused(key=wanted, why=f"why {wanted}") if wanted else None)


def test_another_controller_has_another_quarantine() -> None:
    refuse(HERE, "shop", "k", "why")
    assert refused("http://127.0.0.1:8002", "shop") is None
    release("http://127.0.0.1:8002", "shop")
    assert refused(HERE, "shop") == Refused(key="k", why="why")


def test_what_is_long_is_cut_and_of_many_the_first_go() -> None:
    refuse(HERE, "first", "k", "x" * 10_000)
    found = refused(HERE, "first")
    assert found is not None and len(found.why) == 2_000
    quarantine._write({f"{HERE} {n}": Refused(key="k", why="") for n in range(MOST)})
    refuse(HERE, "last", "k", "")
    assert refused(HERE, "0") is None
    assert refused(HERE, "1") == refused(HERE, "last") == Refused(key="k", why="")


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"a": 1}', b'{"a": {"key": 1, "why": ""}}', b"{" * 100_000])
def test_a_file_that_can_not_be_read_is_an_empty_one_and_is_written_anew(data: bytes) -> None:
    (home_folder() / "quarantine.json").write_bytes(data)
    assert refused(HERE, "shop") is None
    release(HERE, "shop")
    refuse(HERE, "shop", "k", "why")
    assert refused(HERE, "shop") == Refused(key="k", why="why")


def test_a_home_that_can_not_be_written_to_costs_the_memory_and_nothing_else(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home.parent / "a file").write_text("")
    for wrong in (home.parent / "a file", home.parent / "a file" / "below"):
        monkeypatch.setenv("SERVECONF_HOME", str(wrong))
        refuse(HERE, "shop", "k", "why")
        assert refused(HERE, "shop") is None
        release(HERE, "shop")
    assert "the quarantine can't be kept" in caplog.text


def test_threads_that_refuse_at_once_lose_nothing() -> None:
    threads = [threading.Thread(target=refuse, args=(HERE, f"stack-{n}", "k", "")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(refused(HERE, f"stack-{n}") for n in range(12))
