"""A copy of the package in a folder of its own, exchanged for other versions as ``pip install -U`` exchanges an installation."""

from __future__ import annotations

import shutil
from pathlib import Path

import serveconf

PACKAGE = Path(serveconf.__file__).parent


class Installed:
    """``env``: what has a process import it."""

    def __init__(self, folder: Path) -> None:
        self._package = folder / "serveconf"
        shutil.copytree(PACKAGE, self._package, ignore=shutil.ignore_patterns("__pycache__"))
        self.env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def install(self, version: str, *, broken: str = "") -> None:
        """Exchange it. ``broken``: what of the new one, proxy or replica, does not get ready."""
        (self._package / "__init__.py").write_text(f'"""Installed."""\n\n__version__ = "{version}"\n')
        for name in ("proxy", "replica"):
            text = (PACKAGE / "cluster" / f"{name}.py").read_text()
            if name == broken:
                text = text.replace("        try:\n", '        try:\n            raise RuntimeError("broken")\n', 1)
            (self._package / "cluster" / f"{name}.py").write_text(text)
