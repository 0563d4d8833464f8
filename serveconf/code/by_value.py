"""Objects that travel by value: a file of the code package holds them, because no module on the other side does.

The Python API writes them for what is defined in a script, a notebook or inside a function; replicas and proxies read
them where an import path says ``__main__:name``. Read with plain pickle: what wrote it is imported from there.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = ".serveconf"
_PREFIX = "__main__:"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A target with arguments that JSON does not know. Called, it is a middleware: the next app comes first."""

    target: Any
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, app: Any) -> Any:
        return self.target(app, *self.args, **self.kwargs)


def by_value_path(name: str) -> str:
    """The import path for what is called ``name``."""
    return _PREFIX + re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)


def by_value_file(import_path: str) -> str | None:
    """The file of the package that an import path means; None where it means a module."""
    return f"{FOLDER}/{import_path.removeprefix(_PREFIX)}.pkl" if import_path.startswith(_PREFIX) else None


def read_by_value(folder: Path, file: str) -> object:
    """The object in a file of the package in ``folder``. Raises whatever its unpickling raises."""
    return pickle.loads((folder / file).read_bytes())
