"""Our own log lines: a fixed phrase plus keys, whatever the keys are called."""

from __future__ import annotations

import json
import logging

import pytest

from serveconf.cluster.logs import KeyFormatter, get_logger, write_logs


@pytest.mark.parametrize("key", ["name", "module", "args", "message", "replica"])
@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_any_key_may_be_said(caplog: pytest.LogCaptureFixture, key: str, level: str) -> None:
    caplog.set_level(logging.INFO, logger="serveconf")
    logging.getLogger("serveconf").propagate = True
    getattr(get_logger("test"), level)("a phrase", **{key: "two\nlines"})
    line = KeyFormatter().format(caplog.records[-1])
    assert "a phrase" in line
    assert "=two\\nlines" in line


@pytest.mark.parametrize(("wanted", "as_json"), [(None, False), ("text", False), ("json", True)])
def test_lines_are_json_when_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: str | None, as_json: bool
) -> None:
    root = logging.getLogger("serveconf")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "propagate", root.propagate)
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.delenv("SERVECONF_LOG_FORMAT", raising=False)
    if wanted is not None:
        monkeypatch.setenv("SERVECONF_LOG_FORMAT", wanted)
    write_logs()
    made = logging.getLogRecordFactory()

    def as_ray_makes_them(*args: object, **kwargs: object) -> logging.LogRecord:
        record = made(*args, **kwargs)
        record._ray_timestamp_ns = 1
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", as_ray_makes_them)
    get_logger("test").warning("a phrase", replica="r1", name="x")
    line = capsys.readouterr().err
    if as_json:
        said = json.loads(line)
        assert (said["message"], said["level"], said["replica"], said["name_"]) == ("a phrase", "warning", "r1", "x")
    else:
        assert line.rstrip().endswith("WARNING serveconf.test a phrase replica=r1 name_=x")
