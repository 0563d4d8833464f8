"""Variables of a runtime environment: replicas and looks at code set them themselves, so that Ray need not be told."""

from __future__ import annotations

import pytest

from serveconf.cluster.variables import expanded, split


def test_a_process_sets_its_variables_itself_but_for_what_is_read_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUTER", "/lib")
    monkeypatch.delenv("NONE", raising=False)
    said = {"pip": ["x"], "env_vars": {"KEY": "a$b", "PLACE": "${OUTER}:/x:${NONE}", "LD_LIBRARY_PATH": "/y"}}
    told, own = split(said)
    assert told == {"pip": ["x"], "env_vars": {"LD_LIBRARY_PATH": "/y"}}
    assert expanded(own) == {"KEY": "a$b", "PLACE": "/lib:/x:"}
    assert split({"env_vars": {"KEY": "k"}}) == ({}, {"KEY": "k"})
