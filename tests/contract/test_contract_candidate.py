"""A controller is to make way for what is installed: it is tried out first, and where it would not come up the old one stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serveconf import __version__
from serveconf.cluster import candidate
from serveconf.cluster.candidate import try_out
from serveconf.errors import OperatorError

Child = Callable[[str], None]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """What the child does instead of coming up."""
    real = sys.executable

    def does(what: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!{real}\nimport json, sys, time\nsys.stdin.buffer.read()\n{what}\n")
        script.chmod(0o755)
        monkeypatch.setattr(candidate.sys, "executable", str(script))

    return does


def test_what_is_installed_reads_the_records_and_says_its_version() -> None:
    """Of another version than was asked for it is said which one it is: so it had come up."""
    with pytest.raises(OperatorError) as refused:
        try_out({}, version="9.0.0")
    assert refused.value.code == "not_installed"
    assert refused.value.message == f"serveconf {__version__} is installed where the controller runs, not 9.0.0"
    assert "pip install 'serveconf==9.0.0'" in (refused.value.hint or "")


def test_records_that_it_can_not_read_keep_the_old_one() -> None:
    with pytest.raises(OperatorError, match="would not start, so the old one goes on") as refused:
        try_out({"stacks/shop/head": b"\xff"}, version=__version__)
    assert refused.value.code == "upgrade_failed"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("sys.exit('ImportError: no module named msgspec')", "ImportError: no module named msgspec"),
        ("sys.exit(7)", "it ended with 7"),
        ("print('no json')", "it ended with 0"),
        ("print(json.dumps({'version': '9.0.0'}))", "it ended with 0"),
        ("print('noise'); print(json.dumps({'version': '9.0.0', 'error': 'KeyError: 1'}))", "KeyError: 1"),
    ],
)
def test_one_that_does_not_come_up_says_why(child: Child, what: str, said: str) -> None:
    child(what)
    with pytest.raises(OperatorError) as refused:
        try_out({}, version="9.0.0")
    assert refused.value.code == "upgrade_failed" and said in refused.value.message


def test_one_that_takes_too_long_is_given_up(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "TRY_S", 0.1)
    child("time.sleep(600)")
    with pytest.raises(OperatorError, match=r"does not start within 0\.1 s"):
        try_out({}, version="9.0.0")


def test_noise_before_its_word_is_passed_over(child: Child) -> None:
    child("print('noise'); print(json.dumps({'version': '9.0.0', 'error': ''}))")
    try_out({}, version="9.0.0")
