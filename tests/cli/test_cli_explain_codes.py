"""Every code that a user can meet has its cause and its cure, in the command and on the page."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serveconf.answers import ANSWERS, Where, answers_page
from serveconf.cli.parser import app
from serveconf.spec.codes import CODES

ROOT = Path(__file__).parents[2]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments])


def codes_in(tree: ast.Module) -> Iterator[str]:
    """What is written as ``code="…"`` in a call, or as ``code = "…"`` in a class."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                yield code
            case ast.ClassDef(body=body):
                for line in body:
                    match line:
                        case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                            yield code
                        case _:
                            pass
            case _:
                pass


def test_every_code_in_the_sources_is_explained() -> None:
    found = {
        code: str(file)
        for file in (ROOT / "serveconf").rglob("*.py")
        for code in codes_in(ast.parse(file.read_text(encoding="utf-8")))
        if code
    }
    missing = {code: file for code, file in found.items() if code not in ANSWERS}
    assert missing == {}, "say in serveconf/answers what causes these codes, and what cures them"
    assert set(CODES) - set(ANSWERS) == set()


def test_the_page_of_errors_is_what_the_command_writes() -> None:
    written = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert written == answers_page(), "run: serveconf explain codes -o markdown > docs/errors.md"
    assert call("codes", "-o", "markdown").stdout == written


@pytest.mark.parametrize("code", ANSWERS)
def test_each_code_is_answered_in_whole_sentences(code: str) -> None:
    answer = ANSWERS[code]
    assert answer.cause.endswith((".", "?")) and answer.cure.endswith((".", "?"))
    shown = call(f"[{code}]")
    assert shown.exit_code == 0
    assert answer.cause in shown.stdout and answer.cure in shown.stdout


@pytest.mark.parametrize(
    ("word", "first"), [("ambiguous", "ambiguous"), ("503", "503"), ("does_not_fit", "does_not_fit")]
)
def test_a_code_alone_is_enough(word: str, first: str) -> None:
    assert call(word).stdout.splitlines()[0] == first
    (told,) = [json.loads(call(word, "-o", "json").stdout)]
    assert (told["code"], told["where"] in set(Where)) == (first, True)


@pytest.mark.parametrize("word", ["app_dir", "name", "import_path", "host"])
def test_a_word_that_is_a_field_too_means_the_field_and_names_the_code(word: str) -> None:
    shown = call(word)
    if shown.exit_code == 0 and "cause" not in shown.stdout:
        assert f"serveconf explain '[{word}]'" in shown.stdout


def test_codes_are_listed() -> None:
    assert len(call("codes").stdout.splitlines()) == len(ANSWERS)
    assert len(json.loads(call("codes", "-o", "json").stdout)) == len(ANSWERS)
