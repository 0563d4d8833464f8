"""A few of the edits of ``month.py``, with a controller and a watcher that are killed in between."""

from __future__ import annotations

from pathlib import Path

from month import month, run
from place import Place


def test_what_is_served_is_what_the_last_good_files_say(place: Place, tmp_path: Path) -> None:
    said: list[str] = []
    with month(place, tmp_path / "stacks", 5, tell=said.append) as here:
        done, answers, failures = run(here, 12, 2.0, 0.0)
        here.kill_controller()
        here.kill_watcher()
        more, others, failed = run(here, 6, 2.0, 0.0)
    assert done + more >= 18 and answers > 50 and others > 50
    assert failures + failed == [], said
