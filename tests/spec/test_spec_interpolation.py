"""Variables and unquoted scalars, with any text."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serveconf.spec.interpolate import CannotFill, Filled, fill
from serveconf.spec.scalars import Ambiguous, resolve_plain

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}z", "xoneyonez"),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}", ""),
        ("${A:-two}", "one"),
        ("${B:-}", ""),
        ("${B:-${C:-${A}}}", "one"),
        ("${B:-a}b}", "ab}"),
        ("${A:?must be set}", "one"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$A $ $1 ^a$", "$A $ $1 ^a$"),
    ],
)
def test_variables_are_replaced(text: str, expected: str) -> None:
    assert fill(text, {"A": "one", "EMPTY": ""}).text == expected


def test_the_origin_of_what_was_put_in_is_kept() -> None:
    assert fill("${A}${B:-x${A}}", {"A": "1"}) == Filled(
        text="1x1", origins=("variable A", "the default of B", "variable A")
    )
    assert fill("$$ $x", {}) == Filled(text="$ $x", origins=())


@given(st.text(), st.dictionaries(NAMES, st.text()))
def test_any_text_is_filled_or_refused(text: str, env: dict[str, str]) -> None:
    try:
        fill(text, env)
    except CannotFill as error:
        code = error.code
    else:
        return
    assert code in ("interpolation", "unset_variable", "too_large")


@given(st.text(alphabet="${}:-?AB ", max_size=60))
def test_texts_of_braces_and_dollars_are_filled_or_refused(text: str) -> None:
    try:
        fill(text, {"A": "one", "B": "${A}"})
    except CannotFill:
        return


@given(st.text())
def test_a_text_with_its_dollars_doubled_stays_itself(text: str) -> None:
    assert fill(text.replace("$", "$$"), {}) == Filled(text=text, origins=())


@given(NAMES, st.text())
def test_what_a_variable_holds_is_never_looked_into(name: str, value: str) -> None:
    assert fill(f"<${{{name}}}>", {name: value}).text == f"<{value}>"


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_a_json_scalar_means_itself(value: object) -> None:
    assert resolve_plain(json.dumps(value)) == value


@given(st.text(alphabet="0123456789+-._:eExobaftTZ ", min_size=1, max_size=24))
def test_what_looks_like_a_number_is_a_number_for_other_readers_too_or_is_refused(text: str) -> None:
    """No unquoted text is silently something else here than it is for a YAML 1.1 reader, but for two forms of floats."""
    text = text.strip()
    try:
        ours = resolve_plain(text)
        theirs = yaml.safe_load(f"- {text}")[0]
    except (Ambiguous, yaml.YAMLError, ValueError, AttributeError):
        return
    if isinstance(ours, float) and ("e" in text.lower() or text[:2] in ("-.", "+.")):
        assert theirs in (ours, text)  # text in PyYAML: 1e3, a number in YAML 1.2 and JSON; -.5, one in both YAMLs
    elif isinstance(theirs, (str, int, float)) and not (isinstance(theirs, str) and ours is None):
        assert ours == theirs
