"""Tokens and proofs: what follows from the token follows from that one alone, and says nothing of it."""

from __future__ import annotations

import hashlib
import hmac
import string

from hypothesis import assume, given
from hypothesis import strategies as st

from serveconf.credentials import (
    Role,
    fingerprint,
    is_from_webhook,
    is_proof,
    prove,
    read_only,
    role_of,
    webhook_secret,
)

LETTERS = string.ascii_letters + string.digits + "-_"  # as token_urlsafe has them
TOKENS = st.text(LETTERS, min_size=1, max_size=20).map("t{}".format)


@given(TOKENS)
def test_the_token_that_may_look_may_look_and_says_nothing_of_the_one_that_may_write(token: str) -> None:
    looks = read_only(token)
    assert (role_of(token), role_of(looks)) == (Role.WRITE, Role.READ)
    assert read_only(looks) == looks
    assert len(looks) == 67  # as long for each, so that not even the length is told


@given(TOKENS, TOKENS, st.text(st.characters(codec="utf-8"), max_size=10), st.text(LETTERS, min_size=1))
def test_only_who_knows_the_token_proves_it_and_only_for_this_challenge(
    token: str, another: str, challenge: str, more: str
) -> None:
    assume(token != another)
    proof = prove(token, challenge)
    assert is_proof(proof, token, challenge)
    assert not is_proof(proof, another, challenge)
    assert not is_proof(proof, token, challenge + more)
    assert not is_proof(proof + more, token, challenge)
    assert proof not in {read_only(token), webhook_secret(token, challenge), fingerprint(token)}


@given(st.text(st.characters(codec="utf-8"), max_size=70))
def test_a_guess_is_no_proof_whatever_letters_it_has(guess: str) -> None:
    assert not is_proof(guess, "secret", "challenge")


@given(TOKENS, st.binary(max_size=50), st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_webhook_is_known_by_its_signature_or_by_its_secret(token: str, body: bytes, wrong: str) -> None:
    secret = webhook_secret(token, "shop")
    signed = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    assert is_from_webhook(token, "shop", body, signature=signed, plain="")
    assert is_from_webhook(token, "shop", body, signature="", plain=secret)
    assert not is_from_webhook(token, "other", body, signature=signed, plain="")
    assert not is_from_webhook(token, "shop", body + b"\n", signature=signed, plain="")
    assert not is_from_webhook(token, "shop", body, signature="", plain=wrong)
    assert not is_from_webhook(token, "shop", body, signature="", plain="")


def test_a_wrong_signature_is_not_made_good_by_the_secret_beside_it() -> None:
    secret = webhook_secret("t", "shop")
    assert not is_from_webhook("t", "shop", b"{}", signature="sha256=00", plain=secret)
    assert not is_from_webhook("t", "shop", b"{}", signature=secret, plain="")
    assert secret != webhook_secret("u", "shop")


@given(TOKENS)
def test_a_fingerprint_names_a_secret_in_eight_letters(token: str) -> None:
    assert len(fingerprint(token)) == 8
    assert fingerprint(token) == fingerprint(token) != fingerprint(token + "x")
