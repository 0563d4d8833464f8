"""An app's own data is no code: what it writes into its working directory makes no apply do anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import Stack
from place import COMMAND, COMMAND_S, Place, ask, until

WEB = "name: web, import_path: 'web:app', route_prefix: /$"
APP = """
    import os
    import sqlite3
    from pathlib import Path
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    def write() -> dict:
        with open("results.csv", "a") as results:
            results.write("x,1\\n")
        Path("uploads").mkdir(exist_ok=True)
        Path("uploads/a.png").write_bytes(os.urandom(100))
        with sqlite3.connect("data.store") as data:
            data.execute("create table if not exists t (x)")
            data.execute("insert into t values (1)")
        return {"said": "one", "pid": os.getpid()}
    """


def test_what_an_app_writes_rolls_nothing(place: Place, stack: Stack, tmp_path: Path) -> None:
    stack.code("web", APP)
    (stack.folder / "results.csv").write_text("there at first\n")
    stack.spec(WEB)
    stack.apply()
    pids = stack.pids("web")
    assert ask(stack.url)[0] == 200

    def known() -> bool:
        return (stack.folder / "uploads" / "a.png").exists() and bool(place.ok("plan", stack.file, "-o", "json").json)

    until(known, "it has written")
    written = {"data.store", "results.csv", "uploads/a.png"}
    until(
        lambda: set(place.ok("status", "web", "--stack", stack.name, "-o", "json").json["data"]) == written,
        "status tells of it",
    )
    plan = place.ok("plan", stack.file, "-o", "json").json
    assert {name for action in plan["actions"] for name in str(action["reason"]).split() if "upload" in name} == set()

    stack.apply()  # results.csv was code at first: at most this one time it rolls
    pids = stack.pids("web")
    for _ in range(3):
        assert ask(stack.url)[0] == 200
    assert place.ok("plan", stack.file, "-o", "json").json["changed"] is False
    assert stack.apply()["outcome"] == "unchanged"

    log = tmp_path.with_name(f"{tmp_path.name}.log")
    with log.open("w") as output:
        run = subprocess.Popen(
            [str(COMMAND), "run", str(stack.file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=place.env,
        )
    try:
        until(lambda: "Ctrl-C stops" in log.read_text(), "it watches")
        for _ in range(10):
            assert ask(stack.url)[0] == 200
        stack.code("other", "x = 1\n")  # nobody imports it: a change that is looked at, and is none
        until(lambda: "changed: other.py" in log.read_text(), "an edit is looked at")
        assert stack.pids("web") == pids
        assert "results.csv" not in log.read_text() and "data.store" not in log.read_text()
    finally:
        run.terminate()
        assert run.wait(timeout=COMMAND_S) == 0

    (stack.folder / ".serveconfignore").write_text("!results.csv\n")
    assert place.ok("plan", stack.file, "-o", "json").json["changed"] is True


BESIDE = """
    from pathlib import Path
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    def write() -> str:
        (Path(__file__).parent / "visits.txt").write_text("1")
        return __file__
    """


def test_what_an_app_writes_beside_its_modules_stays_and_is_told(place: Place, stack: Stack) -> None:
    stack.code("web", BESIDE)
    stack.spec(WEB)
    stack.apply()
    code = Path(ask(stack.url)[1].strip('"')).parent
    said = f"visits.txt, in {code} on "
    until(lambda: any(said in warning for warning in place.stack(stack.name)["warnings"]), "status tells of it")
    assert said in place.ok("plan", stack.file).out
    assert place.ok("plan", stack.file, "-o", "json").json["changed"] is False
    stack.code("web", BESIDE.replace('"1"', '"2"'))
    stack.apply()
    assert (code / "visits.txt").read_text() == "1"
    assert any(said in warning for warning in place.stack(stack.name)["warnings"])
