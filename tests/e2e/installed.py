"""A copy of the package in a folder of its own, exchanged for other versions as ``pip install -U`` exchanges an installation.

With the bytecode, as pip leaves it: without it each process that starts compiles everything.
"""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

import serveconf

PACKAGE = Path(serveconf.__file__).parent


class Installed:
    """``env``: what has a process import it."""

    def __init__(self, folder: Path) -> None:
        self._package = folder / "serveconf"
        shutil.copytree(PACKAGE, self._package, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self._package, quiet=1)
        self.env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def install(self, version: str, *, broken: str = "") -> None:
        """Exchange it. ``broken``: what of the new one, proxy or replica, does not get ready."""
        self._write("__init__.py", f'"""Installed."""\n\n__version__ = "{version}"\n')
        for name in ("proxy", "replica"):
            text = (PACKAGE / "cluster" / f"{name}.py").read_text()
            if name == broken:
                text = text.replace("        try:\n", '        try:\n            raise RuntimeError("broken")\n', 1)
            self._write(f"cluster/{name}.py", text)

    def _write(self, path: str, text: str) -> None:
        file = self._package / path
        file.write_text(text)
        compileall.compile_file(file, quiet=1, force=True)
