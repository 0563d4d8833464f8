"""Env files: each line is a variable with just that text, or a problem at its line; nothing is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.spec.envfile import read_env_file

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("env") / "app.env"


def read(file: Path, text: str | bytes) -> tuple[dict[str, str], list[tuple[int, int, str]]]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    values, problems = read_env_file(file)
    assert all(one.file == str(file) for one in problems)
    return values, [(one.line, one.column, one.code) for one in problems]


@given(variables=st.dictionaries(NAMES, TEXTS | st.just("two\nlines"), max_size=4), export=st.booleans())
def test_any_text_in_double_quotes_is_itself(file: Path, variables: dict[str, str], export: bool) -> None:
    lines = []
    for name, text in variables.items():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'{"export " if export else ""}{name} = "{quoted}"  # said\n')
    assert read(file, "# first\n\n" + "".join(lines)) == (variables, [])


@given(name=NAMES, text=TEXTS.filter(lambda text: "'" not in text))
def test_nothing_is_an_escape_or_a_comment_in_single_quotes(file: Path, name: str, text: str) -> None:
    assert read(file, f"{name}='{text}' # said") == ({name: text}, [])


@given(name=NAMES, text=st.text("ab=$#\"'\\ä", max_size=8).filter(lambda text: text[:1] not in ("'", '"', "#")))
def test_without_quotes_a_text_ends_where_a_comment_begins(file: Path, name: str, text: str) -> None:
    assert read(file, f"{name}={text}   # said\n") == ({name: text}, [])


@given(st.binary(max_size=60))
def test_any_bytes_are_variables_or_problems(file: Path, data: bytes) -> None:
    values, problems = read(file, data)
    lines = data.count(b"\n") + data.count(b"\r") + 1
    assert len(values) + len(problems) <= lines
    assert all(1 <= line <= lines for line, _, _ in problems)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\ufeffA=1\n", {"A": "1"}),
        ("A=1\r\nB=2\rC=3", {"A": "1", "B": "2", "C": "3"}),
        ("A=\n", {"A": ""}),
        ("A=''\nB=\"\"\n", {"A": "", "B": ""}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=a#b\nB=a #b\nC=#b\n", {"A": "a#b", "B": "a", "C": ""}),
        ("A=x=y\n", {"A": "x=y"}),
        ("A='one\\ntwo'\nB=\"one\\ttwo\\\\n\"\n", {"A": "one\\ntwo", "B": "one\\ttwo\\n"}),
        ("A=${B}\nB=$A\n", {"A": "${B}", "B": "$A"}),
        ("A=one\u2028two\x0cthree\x85four\n", {"A": "one\u2028two\x0cthree\x85four"}),
        ("   export   A   =   1   \n", {"A": "1"}),
    ],
)
def test_lines_mean_what_people_expect(file: Path, text: str, values: dict[str, str]) -> None:
    assert read(file, text) == (values, [])


@pytest.mark.parametrize(
    "line", ["A", "=1", "1A=1", "A-B=1", "A B=1", "A='x", 'A="x', "A='x'y", "export", "ä=1", 'A="\\"']
)
def test_what_is_no_variable_is_told_at_its_line_and_the_others_count(file: Path, line: str) -> None:
    assert read(file, f"B=1\n{line}\nC=2\n") == ({"B": "1", "C": "2"}, [(2, 1, "env_file")])


def test_what_can_not_be_read_is_a_problem_of_the_file(file: Path, tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it is not a regular file"), (tmp_path / "nowhere", "No such file or directory")):
        values, (problem,) = read_env_file(path)
        assert (values, problem.code, problem.line) == ({}, "file", 0)
        assert problem.message == f"cannot be read: {why}"
    assert read(file, b"A=1\nB=\xff\n") == ({}, [(1, 1, "encoding")])


def test_a_file_of_endless_size_is_refused_and_not_read_in_part(file: Path) -> None:
    assert read(file, b"A=1\n" + b"#" * (1024 * 1024 - 4)) == ({"A": "1"}, [])
    assert read(file, b"A=1\n" + b"#" * (1024 * 1024 - 4) + b"\nB=2\n") == ({}, [(0, 0, "too_large")])
