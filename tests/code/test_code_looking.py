"""A warm inspector answers as a fresh process does, keeps nothing from one question to the next, and outlives its failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
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


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed modules; each counts how often it is imported, in a file beside it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (tmp_path / "app").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def app(installed: Path, tmp_path: Path) -> Path:
    """The user's folder."""
    return tmp_path / "app"


COUNTS = "with open(__file__ + '.count', 'a') as file: file.write('x')\n"


def imports_of(installed: Path, name: str) -> int:
    count = installed / f"{name}.py.count"
    return len(count.read_text()) if count.exists() else 0


@pytest.fixture
def learning() -> Iterator[WarmInspector]:
    inspector = WarmInspector(settle_s=0.05, worth_s=0.0)
    yield inspector
    inspector.close()


def until(inspector: WarmInspector, what: Callable[[], object]) -> None:
    """Under its lock: who asks while it is held (by the timer that has just learned) gets a process of their own."""
    end = time.monotonic() + 120
    while True:
        with inspector._lock:
            if what():
                return
        assert time.monotonic() < end
        time.sleep(0.01)


def test_installed_modules_are_imported_beforehand_once_they_are_known_and_told_as_ever(
    learning: WarmInspector, installed: Path, app: Path
) -> None:
    (installed / "large.py").write_text(COUNTS)
    (installed / "larger.py").write_text(COUNTS + "import large\n")
    (app / "web.py").write_text("import larger\nasync def app(s, r, d): ...\n")
    (report,) = learning.look_at_code(**question(app, "web:app"))["targets"]
    assert {"larger", "large"} <= set(report["installed"])
    until(learning, lambda: "larger" in learning._beforehand)
    before = imports_of(installed, "large")
    (report,) = learning.look_at_code(**question(app, "web:app"))["targets"]
    assert report["ok"] and "larger" in report["installed"] and report["modules"] == ["web.py"]
    (app / "web.py").write_text(
        "import importlib\nlarge = importlib.import_module('large')\nasync def app(s, r, d): ...\n"
    )
    (report,) = learning.look_at_code(**question(app, "web:app"))["targets"]
    assert "large" in report["installed"] and "larger" not in report["installed"]
    assert imports_of(installed, "large") == before


def test_a_file_of_the_users_comes_before_what_was_imported_beforehand(
    learning: WarmInspector, installed: Path, app: Path
) -> None:
    (installed / "name.py").write_text("")
    (app / "web.py").write_text("import name\nasync def app(s, r, d): ...\n")
    learning.look_at_code(**question(app, "web:app"))
    until(learning, lambda: "name" in learning._beforehand)
    (app / "name.py").write_text("")
    (report,) = learning.look_at_code(**question(app, "web:app"))["targets"]
    assert report["modules"] == ["name.py", "web.py"] and "name" not in report["installed"]


def test_what_cannot_be_imported_beforehand_is_left_to_who_needs_it(
    learning: WarmInspector, installed: Path, app: Path
) -> None:
    (installed / "odd.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (app / "web.py").write_text("import odd\nasync def app(s, r, d): ...\n")
    assert learning.look_at_code(**question(app, "web:app"))["targets"][0]["ok"]
    until(learning, lambda: "odd" in learning._refused)
    assert learning.look_at_code(**question(app, "web:app"))["targets"][0]["ok"]


def test_what_fails_only_because_of_them_is_looked_at_without(
    learning: WarmInspector, installed: Path, app: Path
) -> None:
    (installed / "once.py").write_text("import os\nPID = os.getpid()\n")
    (app / "web.py").write_text("import os, once\nassert once.PID == os.getpid()\nasync def app(s, r, d): ...\n")
    assert learning.look_at_code(**question(app, "web:app"))["targets"][0]["ok"]
    until(learning, lambda: "once" in learning._beforehand)
    assert learning.look_at_code(**question(app, "web:app"))["targets"][0]["ok"]
    assert "once" in learning._refused


def test_what_nobody_asks_for_any_more_does_not_stay_in_memory(installed: Path, app: Path) -> None:
    inspector = WarmInspector(settle_s=0.05, worth_s=0.0, idle_s=0.2)
    (installed / "large.py").write_text(COUNTS)
    (app / "web.py").write_text("import large\nasync def app(s, r, d): ...\n")
    inspector.look_at_code(**question(app, "web:app"))
    until(inspector, lambda: imports_of(installed, "large") == 2)
    until(inspector, lambda: not inspector._learned and not inspector._beforehand)
    inspector.close()
