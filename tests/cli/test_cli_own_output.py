"""What a command says may lie below app_dir: it is told from code, whatever it is called and through however many pipes it goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serveconf.code.snapshot import take_snapshot
from serveconf.private import MOST_OWN_FILES, note_own_file, own_files

TELLS = """
import sys, time
from serveconf.cli.own_output import note_own_output, output_files
time.sleep(float(sys.argv[1]))
print("said", flush=True)
with open(sys.argv[2], "w") as file:
    file.write("\\n".join(sorted(map(str, output_files()))))
note_own_output()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
@pytest.mark.parametrize(
    ("where", "files"),
    [
        ("> out.txt", ["out.txt"]),
        ("> out.txt 2> problems", ["out.txt", "problems"]),
        ("2>&1 | tee log > /dev/null", ["log"]),
        ("2>&1 | cat | tee log more > last", ["last", "log", "more"]),
        ("2> /dev/null | cat > /dev/null", []),
        ("< given > /dev/null 2>&1", []),
    ],
)
def test_where_it_ends_up_is_found_and_is_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, files: list[str]
) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    app = tmp_path / "app"
    app.mkdir()
    (app / "given").write_text("")
    command = f"{sys.executable} -c '{TELLS}' 0.5 {tmp_path / 'told'} {where}"
    subprocess.run(["bash", "-c", command], cwd=app, check=True, timeout=60)
    assert (tmp_path / "told").read_text().splitlines() == [str(app / name) for name in files]
    assert {*files} <= {one.name for one in app.iterdir()}
    assert sorted(take_snapshot(app).files) == ["given"]


def test_of_many_such_files_the_last_ones_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    for number in range(MOST_OWN_FILES + 1):
        note_own_file(tmp_path / f"out{number}")
        note_own_file(tmp_path / "kept")
    known = own_files()
    assert len(known) == MOST_OWN_FILES and known[-1] == tmp_path / "kept" and tmp_path / "out0" not in known
