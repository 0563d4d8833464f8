"""A spec file read by the controller that runs: it has loaded what that takes, and a command that finds it does without.

None of this is needed to be right: whatever is unusual about the file, or the controller, is left to ``spec.load``.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveconf.client import Client
from serveconf.errors import ServeconfError
from serveconf.launch import find
from serveconf.spec.problems import Problem
from serveconf.versions import THIS

if TYPE_CHECKING:
    from serveconf.spec.load import Loaded

MOST_BYTES = 65_536  # of a file; a larger one is worth the time
_NO_VARIABLE = re.compile(r"\$\$|^\s*#.*$", re.MULTILINE)  # what is escaped, and lines that are comments
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, kw_only=True)
class ReadThere:
    """A valid spec of one file. ``said``: as ``Loaded.as_said`` has it."""

    said: Mapping[str, Any]
    front: tuple[str, int] | None
    masks: Mapping[str, str]
    file: Path
    given: Path  # the file as it was named
    app_dir: Path
    text: bytes  # as it was read

    @property
    def name(self) -> str:
        """The stack's."""
        return str(self.said.get("name", "default"))

    @property
    def files(self) -> tuple[Path, ...]:
        """All that were read."""
        return (self.file,)

    def as_said(self) -> dict[str, Any]:
        """The spec as plain data with only the keys that were said."""
        return copy.deepcopy(dict(self.said))

    def problem(self, path: str, message: str, code: str, hint: str | None = None) -> Problem:
        """One that was found later, at the value's place."""
        if self._loaded is not None:
            return self._loaded.problem(path, message, code, hint)
        return Problem(file=str(self.given), line=0, column=0, path=path, message=message, code=code, hint=hint)

    @cached_property
    def _loaded(self) -> Loaded | None:
        """None where the file is another one by now: then nobody knows the place."""
        from serveconf.spec.load import load_file

        try:
            return load_file(self.given, env=os.environ) if self.file.read_bytes() == self.text else None
        except (OSError, ServeconfError):
            return None


def read_there(file: Path, address: str | None, token: str | None) -> tuple[ReadThere, Client] | None:
    """The spec, and the controller that has read it; None where that is not as easy as that."""
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        said = file.read_bytes()
        text = said.decode()
        client = find(address, token, upgrades=True)  # of another version it is not asked, and that is told later
        if client.speaker.version != THIS.version:
            return None
        variables = {
            name: os.environ[name] for name in _VARIABLE.findall(_NO_VARIABLE.sub("", text)) if name in os.environ
        }
        read = client.read_spec(text, variables)
        if read is None or not read["spec"].get("deployments"):
            return None
        app_dir = (file.parent / read["spec"].get("app_dir", ".")).resolve()
        if not app_dir.is_dir():
            return None
    except (OSError, RuntimeError, ValueError, ServeconfError):  # whoever reads the file itself tells it better
        return None
    front = read["front"]
    return ReadThere(
        said=read["spec"],
        front=(front["host"], front["port"]) if front else None,
        masks=read["masks"],
        file=Path(os.path.abspath(file)),
        given=file,
        app_dir=app_dir,
        text=said,
    ), client
