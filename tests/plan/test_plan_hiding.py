"""Text of user code shows no value that came from a variable."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.plan.hiding import hide, secrets_of


@pytest.mark.parametrize(
    ("value", "mask", "text", "shown"),
    [
        ("s3cret-1", "${KEY}", "KeyError: 's3cret-1'", "KeyError: '${KEY}'"),
        ("pg://me:s3cret-1@h", "pg://me:${PW}@h", "no pg://me:s3cret-1@h", "no pg://me:${PW}@h"),
        ("pg://me:s3cret-1@h", "pg://me:${PW}@h", "login with s3cret-1 failed", "login with ${PW} failed"),
        ("user1:s3cret-1", "${USER}:${PW}", "s3cret-1 of user1", "${PW} of user1"),
        ('a"b\nc\\d', "${KEY}", "bad " + repr('a"b\nc\\d'), "bad '${KEY}'"),
        ("schlüssel", "${KEY}", '{"key": "schl\\u00fcssel"}', '{"key": "${KEY}"}'),
        (12345678, "${PIN}", "pin 12345678", "pin ${PIN}"),
        ("prod", "${STAGE:-prod}", "production", "production"),
    ],
)
def test_a_secret_is_hidden_in_every_form_that_text_gives_it(value: Any, mask: str, text: str, shown: str) -> None:
    secrets = secrets_of({"a.b": [value]}, "init_kwargs", {'init_kwargs["a.b"][0]': mask})
    assert hide(text, secrets) == shown


def test_the_longer_of_two_secrets_is_hidden_as_a_whole() -> None:
    masks = {"k.short": "${A}", "k.long": "${B}"}
    secrets = secrets_of({"short": "abcdef", "long": "abcdef-ghi"}, "k", masks)
    assert hide("abcdef-ghi abcdef", secrets) == "${B} ${A}"


def test_what_came_from_no_variable_stays() -> None:
    assert secrets_of({"a": "not-secret", "b": True}, "k", {"k.b": "${B}", "other": "${C}"}) == {}
