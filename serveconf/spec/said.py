"""A valid spec, as those who send it see it: ``load.Loaded`` read it here; or the controller did (``read_there.ReadThere``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from serveconf.spec.problems import Problem


class Said(Protocol):
    """What the file says, and what is known of how it was written."""

    @property
    def name(self) -> str:
        """The stack's."""

    @property
    def front(self) -> tuple[str, int] | None:
        """Host and port that the proxies will listen on; None where there are to be none."""

    @property
    def file(self) -> Path: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """All that were read."""

    @property
    def app_dir(self) -> Path: ...

    @property
    def masks(self) -> Mapping[str, str]: ...

    def as_said(self) -> dict[str, Any]:
        """The spec as plain data with only the keys that were said."""

    def problem(self, path: str, message: str, code: str, hint: str | None = None) -> Problem:
        """One that was found later, at the value's place."""
