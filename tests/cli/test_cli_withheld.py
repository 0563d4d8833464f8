"""What stays behind of app_dir because it looks like a secret is named to who applies by hand."""

from __future__ import annotations

from pathlib import Path

from serveconf.spec.load import load_file
from serveconf.submit import make_submission

SPEC = "deployments: [{name: web, import_path: 'web:app'}]\n"


def notes(folder: Path, *, automatic: bool = False) -> tuple[str, ...]:
    (folder / "serve.yaml").write_text(SPEC)
    submission = make_submission(load_file(folder / "serve.yaml", env={}), automatic=automatic)
    assert ".env" not in submission.body["files"]
    return submission.notes


def test_a_file_that_stays_behind_is_named_with_the_way_to_take_it_along(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=s3cret")
    (note,) = notes(tmp_path)
    assert ".env" in note and "a line !.env takes it along" in note and "s3cret" not in note
    assert notes(tmp_path, automatic=True) == ()


def test_nothing_is_said_where_nothing_stays_behind_unasked(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=s3cret")
    (tmp_path / ".gitignore").write_text(".env\n")
    assert notes(tmp_path) == ()
