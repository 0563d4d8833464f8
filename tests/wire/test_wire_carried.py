"""Session and state on their way over the wire."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.wire.carried import give_back, pack_extras, unpack_extras
from serveconf.wire.frames import ProtocolError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
sessions = st.dictionaries(st.text(), values, max_size=4)


def carry(scope):
    there = {"state": {}}
    session = unpack_extras(pack_extras(scope), there)
    return there, session


@given(sessions, sessions, sessions)
def test_session_arrives_whole_and_so_does_its_change(before, state, after):
    here = {"session": dict(before), "state": state}
    there, session = carry(here)
    assert there["session"] is session
    assert session == before
    assert there["state"] == state
    assert session.news() == b""
    session.clear()
    session.update(after)
    give_back(session.news(), here)
    assert here["session"] == after


@given(st.binary(max_size=40))
def test_garbage_is_a_protocol_error(packed):
    with contextlib.suppress(ProtocolError):
        unpack_extras(packed, {"state": {}})


@pytest.mark.parametrize("packed", [b"", b"[", b"[1]", b"[3,{}]", b"[{},3]", b"[" * 100_000])
def test_known_garbage_is_a_protocol_error(packed):
    with pytest.raises(ProtocolError):
        unpack_extras(packed, {"state": {}})


def test_scope_without_extras_costs_no_byte():
    assert pack_extras({}) == b""
    assert pack_extras({"state": {}}) == b""


def test_empty_session_is_a_session():
    assert carry({"session": {}})[1] == {}


def test_plain_dict_as_session_is_changed_by_its_own_methods():
    class Noting(dict):
        noted = False

        def update(self, *args, **kwargs):
            self.noted = True
            super().update(*args, **kwargs)

    here = {"session": Noting(a=1)}
    session = carry(here)[1]
    session["b"] = [2]
    give_back(session.news(), here)
    assert here["session"] == {"a": 1, "b": [2]}
    assert here["session"].noted


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.pop("a"),
        lambda session: session.popitem(),
        lambda session: session.setdefault("b", 1),
        lambda session: session.__delitem__("a"),
        lambda session: session.__ior__({"b": 1}),
        lambda session: session.__setitem__("a", 1),
    ],
)
def test_every_way_to_change_it_is_noted(change):
    session = carry({"session": {"a": 1}})[1]
    assert not session.modified
    change(session)
    assert session.modified
    assert session.news() != b""


def test_looking_for_what_is_not_there_changes_nothing():
    session = carry({"session": {"a": 1}})[1]
    session.pop("b", None)
    session.setdefault("a", 2)
    assert not session.modified
