"""Any bytes are answered with a spec or with problems that point into the file: never with another exception."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from corpus import ENV, cases
from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf.spec.codes import CODES
from serveconf.spec.load import load_file
from serveconf.spec.problems import SpecInvalid

SEEDS = [case.text for name in ("good.txt", "bad_yaml.txt", "bad_variables.txt") for case in cases(name)]
PIECES = (
    "[", "]", "{", "}", ":", ": ", "- ", "? ", "&a ", "*a", "<<: *a\n", "!!str ", "|\n", ">-\n", "'", '"', "\\", "#", "\t", "\r",
    "\n", "\n\n", "  ", "---\n", "...\n", "%YAML 1.1\n", "${", "${A}", "}", "$$", "~", "null", "NO", "017", ".nan", "1:30", "\x00",
    "\x85", "\u2028", "\ufeff", "é", "🙂", "name: a\n", "deployments:\n", "include: [spec.yaml]\n", "defaults: {}\n", "0", "-1",
    "1e999",
)  # fmt: skip


@contextmanager
def spec_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "spec.yaml")


def answer(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        load_file(file, env=ENV)
    except SpecInvalid as error:
        problems = error.problems
    else:
        return
    lines = data.count(b"\n") + data.count(b"\r") + 1
    assert problems
    for problem in problems:
        assert problem.code in CODES
        assert problem.message
        assert 1 <= problem.line <= lines
        assert problem.column >= 1


def mutate(random: Random, text: str) -> str:
    for _ in range(random.randint(1, 5)):
        at, length = random.randint(0, len(text)), random.randint(0, 8)
        match random.randrange(4):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = text[:at] + random.choice(PIECES) + text[at:]
            case 2:
                text = text[:at] + random.choice(PIECES) + text[at + length :]
            case _:
                start = random.randint(0, len(text))
                text = text[:at] + text[start : start + random.randint(0, 40)] + text[at:]
    return text


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_are_answered(seed: int) -> None:
    random = Random(seed)
    with spec_file() as file:
        for _ in range(250):
            answer(file, mutate(random, random.choice(SEEDS)).encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    with spec_file() as file:
        answer(file, data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_sequence_of_yaml_pieces_is_answered(pieces: list[str]) -> None:
    with spec_file() as file:
        answer(file, "".join(pieces).encode())
