"""A warm inspector answers as a fresh process does, keeps nothing from one question to the next, and outlives its failures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serveconf.code.looking import WarmInspector, look_at_code

APP = "import os\nfrom fastapi import FastAPI\napp = FastAPI()\nos.environ['LEFT'] = 'behind'\n"
SEES = (
    "import os\nassert 'LEFT' not in os.environ and os.getcwd() == {cwd!r}, os.getcwd()\nasync def app(s, r, d): ...\n"
)


@pytest.fixture
def warm() -> Iterator[WarmInspector]:
    inspector = WarmInspector()
    yield inspector
    inspector.close()


def question(folder: Path, *paths: str, timeout_s: float = 20) -> dict[str, Any]:
    return {
        "code_dir": str(folder),
        "cwd": str(folder),
        "targets": [{"import_path": path} for path in paths],
        "middlewares": [],
        "timeout_s": timeout_s,
    }


def test_it_answers_as_a_fresh_process_does(warm: WarmInspector, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(APP)
    (tmp_path / "bad.py").write_text("raise LookupError('no such thing')\n")
    asked = question(tmp_path, "good:app", "bad:app", "missing:app")
    assert warm.look_at_code(**asked) == look_at_code(**asked)


def test_nothing_stays_from_one_question_to_the_next(warm: WarmInspector, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(APP)
    assert warm.look_at_code(**question(tmp_path, "one:app"))["targets"][0]["ok"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.py").write_text(SEES.format(cwd=str(other)))
    (report,) = warm.look_at_code(**question(other, "one:app"))["targets"]
    assert report["ok"], report


@pytest.mark.parametrize(
    "ends", ["import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n", "import os\nos._exit(3)\n"]
)
def test_code_that_ends_the_process_is_reported_and_the_next_question_is_answered(
    warm: WarmInspector, tmp_path: Path, ends: str
) -> None:
    (tmp_path / "ends.py").write_text(ends)
    (tmp_path / "good.py").write_text(APP)
    (report,) = warm.look_at_code(**question(tmp_path, "ends:app"))["targets"]
    assert not report["ok"]
    (report,) = warm.look_at_code(**question(tmp_path, "good:app"))["targets"]
    assert report["ok"], report


def test_an_import_that_hangs_takes_its_time_and_no_more(warm: WarmInspector, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    began = time.monotonic()
    (report,) = warm.look_at_code(**question(tmp_path, "hangs:app", timeout_s=1))["targets"]
    assert not report["ok"]
    assert time.monotonic() - began < 30


def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    inspector = WarmInspector()
    inspector.warm_up()
    process = inspector._process
    assert process is not None and process.stdin is not None
    process.stdin.close()  # what the system does when the owner is killed
    assert process.wait(timeout=20) == 0
    inspector.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
