"""Our own log lines: a fixed phrase plus keys, whatever the keys are called."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from serveconf.cluster import own_log
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


@pytest.mark.parametrize("written", ["new\n", "new\nand much more than the old one held\n"])
@pytest.mark.parametrize("how", ["renamed", "emptied"])
def test_who_follows_a_log_goes_on_with_the_file_that_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, written: str
) -> None:
    file = tmp_path / "worker.out"
    monkeypatch.setattr(own_log, "_own_file", lambda descriptor: file if descriptor == 1 else None)
    file.write_text("old one\nold two\n")
    part = own_log.read_own_log(None, 1)
    assert part.lines == ("old two",)
    assert own_log.read_own_log(part.position, 0).lines == ()
    if how == "renamed":
        file.rename(tmp_path / "worker.out.1")
    else:  # in place: what has grown past where we were by then can't be told from what was added
        written = "new\n"
    file.write_text(written)
    part = own_log.read_own_log(part.position, 0)
    assert part.lines == tuple(written.splitlines())
    with file.open("a") as more:
        more.write("later\nhalf a li")
    assert own_log.read_own_log(part.position, 0).lines == ("later",)


def test_a_controller_of_an_older_version_asks_by_a_position_that_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worker.out"
    monkeypatch.setattr(own_log, "_own_file", lambda descriptor: file if descriptor == 1 else None)
    file.write_text("one\ntwo\n")
    assert own_log.read_own_log({"out": 4, "err": 0}, 0).lines == ("two",)
