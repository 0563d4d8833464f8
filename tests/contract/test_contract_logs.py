"""Our own log lines: a fixed phrase plus keys, whatever the keys are called."""

from __future__ import annotations

import logging

import pytest

from serveconf.cluster.logs import KeyFormatter, get_logger


@pytest.mark.parametrize("key", ["name", "module", "args", "message", "replica"])
@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_any_key_may_be_said(caplog: pytest.LogCaptureFixture, key: str, level: str) -> None:
    caplog.set_level(logging.INFO, logger="serveconf")
    logging.getLogger("serveconf").propagate = True
    getattr(get_logger("test"), level)("a phrase", **{key: "two\nlines"})
    line = KeyFormatter().format(caplog.records[-1])
    assert "a phrase" in line
    assert "=two\\nlines" in line
