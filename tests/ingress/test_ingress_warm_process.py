"""Code that is imported in a process that had imported installed modules beforehand sees what it would see in a new one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serveconf.ingress import beforehand, importing

# modules that stand installed, each with those that it imports; "d" is a package with a part
INSTALLED = {"wa": (), "wb": ("wa",), "wc": ("wb", "wd.part"), "wd": ("wa",), "wd.part": ()}
FILE = "where = 'installed {name}'\n{imports}def said():\n    return [where{calls}]\n"
APP = """
import asyncio, logging, os, signal, sys
{imports}
WANTED = {wanted}
def seen():
    return {{name: sys.modules[name].said() for name in WANTED}}
app = seen
"""


def write_installed(folder: Path) -> None:
    for name, imported in INSTALLED.items():
        path = folder / ("wd/__init__.py" if name == "wd" else f"{name.replace('.', '/')}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        imports = "".join(f"import {one}\n" for one in imported)
        calls = "".join(f", *{one}.said()" for one in imported)
        path.write_text(FILE.format(name=name, imports=imports, calls=calls))


def in_a_child(work: Callable[[], Any]) -> Any:
    """What it comes to in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, json.dumps(work()).encode())
        except BaseException as error:
            os.write(writing, json.dumps({"raised": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def look(mine: Path, wanted: list[str]) -> dict[str, Any]:
    """Import the app, and tell all that it can see."""
    app = importing.import_target("web:app", mine)
    assert callable(app)
    loggers = logging.root.manager.loggerDict
    return {
        "said": app(),
        "of the app": sorted(n for n, m in sys.modules.items() if str(mine) in (getattr(m, "__file__", None) or "")),
        "path": sys.path,
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "umask": os.umask(os.umask(0o22)),
        "signals": {one.name: str(signal.getsignal(one)) for one in signal.Signals},
        "logging": [
            str(logging.root.handlers),
            logging.root.level,
            sorted(n for n in loggers if n[:2] in ("wa", "wb")),
        ],
        "policy": type(asyncio.get_event_loop_policy()).__qualname__,
        "files": sorted(
            os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) < 3 or is_file(n)
        ),
    }


def is_file(number: str) -> bool:
    try:
        return os.path.isfile(os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        return False


names = st.sampled_from(sorted(INSTALLED))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is forked is as the one before was")
@settings(max_examples=40, deadline=None)
@given(
    warm=st.lists(names, unique=True), wanted=st.lists(names, unique=True), own=st.sets(st.sampled_from(["wa", "wb"]))
)
@example(warm=["wc"], wanted=["wc"], own={"wa"})  # what it is built on is the user's own
@example(warm=["wb", "wd.part"], wanted=["wb"], own={"wb"})
def test_code_sees_the_same_in_a_warm_process_as_in_a_new_one(
    warm: list[str], wanted: list[str], own: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        installed, mine = Path(root, "installed"), Path(root, "mine")
        write_installed(installed)
        mine.mkdir()
        for name in own:
            (mine / f"{name}.py").write_text(f"def said():\n    return ['own {name}']\n")
        imports = "".join(f"import {name}\n" for name in wanted)
        (mine / "web.py").write_text(APP.format(imports=imports, wanted=wanted))

        def start(beforehand_names: list[str]) -> dict[str, Any]:
            sys.path.append(str(installed))
            sys.dont_write_bytecode = True
            beforehand._names.clear()
            failed: list[str] = []
            beforehand.import_beforehand(beforehand_names, failed=lambda name, error: failed.append(name))
            assert not failed
            return look(mine, wanted)

        scratch, from_warm = (in_a_child(lambda names=names: start(names)) for names in ([], warm))
        assert "raised" not in scratch, scratch
        assert from_warm == scratch
