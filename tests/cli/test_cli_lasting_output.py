"""Output that goes away or stands still never ends the command that writes it, nor keeps it from ending."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from serveconf.cli import lasting as lasting_module
from serveconf.cli.lasting import LastingStream, lasting_output


class Pipe:
    """stdout for as long as the block lasts; ``read`` is the other end."""

    def __init__(self, *, held: bool = False) -> None:
        """``held``: it stays open, for a thread may be writing to it still."""
        reads, writes = os.pipe()
        self.read = os.fdopen(reads, "rb")
        self.stream = os.fdopen(writes, "w", encoding="utf-8", closefd=not held)

    def __enter__(self) -> Pipe:
        self._before, sys.stdout = sys.stdout, self.stream
        return self

    def __exit__(self, *why: object) -> None:
        sys.stdout = self._before
        with suppress(OSError):  # its reader may have gone
            self.stream.close()

    def text(self) -> str:
        """All that was written."""
        with self.read:
            return self.read.read().decode()


def test_what_is_written_comes_in_order_and_all_of_it_before_the_end() -> None:
    with Pipe() as pipe:
        print("before")
        with lasting_output():
            for number in range(300):
                print(number, end=" ")
            print("zoë ✓")
        print("after")
    assert pipe.text() == "before\n" + "".join(f"{n} " for n in range(300)) + "zoë ✓\nafter\n"


def test_letters_that_the_output_has_not_are_shown_as_something_else(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        lasting = LastingStream(stream)
        assert lasting.write("zoë\n") == 4
        lasting.end()
    assert (tmp_path / "out").read_bytes() == b"zo?\n"


def test_a_reader_that_has_gone_ends_nobody() -> None:
    with Pipe() as pipe, lasting_output():
        print("one")
        pipe.read.close()
        for _ in range(1000):
            print("x" * 1000)
            sys.stdout.flush()


def test_a_reader_that_does_not_read_keeps_nobody_and_what_does_not_fit_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lasting_module, "WAITING", 3)
    monkeypatch.setattr(lasting_module, "LAST_S", 0.05)
    with Pipe(held=True) as pipe:
        with lasting_output():
            for _ in range(100):
                print("y" * 60_000, end="")
        pipe.read.close()


def test_both_outputs_that_are_one_file_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "log", "a") as out, open(tmp_path / "log", "a") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with lasting_output():
            assert sys.stdout is sys.stderr
            for number in range(50):
                print(number, file=(sys.stdout, sys.stderr)[number % 2])
        assert (sys.stdout, sys.stderr) == (out, err)
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(50)]


def no_file() -> Any:
    class NoFile:
        def flush(self) -> None:
            """Nothing is below."""

        def write(self, text: str) -> int:
            return len(text)

    return NoFile()


def closed() -> Any:
    reads, writes = os.pipe()
    os.close(reads)
    stream = os.fdopen(writes, "w")
    stream.close()
    return stream


@pytest.mark.parametrize("odd", [no_file, closed, lambda: None])
def test_an_output_that_is_none_stays_as_it_is(odd: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = odd()
    monkeypatch.setattr(sys, "stderr", stream)
    with lasting_output():
        assert sys.stderr is stream
    assert sys.stderr is stream


def test_only_text_is_taken_as_from_any_text_stream(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as stream:
        lasting = LastingStream(stream)
        with pytest.raises(TypeError, match="text only"):
            lasting.write(b"bytes")  # type: ignore[arg-type]
        assert lasting.writable() and not lasting.isatty()
        assert lasting.fileno() == stream.fileno()
        assert lasting.write("") == 0
        lasting.end()


def test_an_error_of_the_command_is_not_swallowed_and_the_output_is_as_before() -> None:
    def fails() -> None:
        with lasting_output():
            print("said")
            raise RuntimeError("of the command")

    with Pipe() as pipe:
        with pytest.raises(RuntimeError, match="of the command"):
            fails()
        assert sys.stdout is pipe.stream
    assert pipe.text() == "said\n"
