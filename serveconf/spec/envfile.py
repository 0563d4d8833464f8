"""An env file as variables: ``NAME=value`` lines, ``export`` allowed, ``#`` comments, values optionally in quotes.

Values are literal: nothing is expanded in them, and only ``\\n``, ``\\"`` and ``\\\\`` are escapes, in double quotes.
"""

from __future__ import annotations

import re
from pathlib import Path

from serveconf.spec.problems import Problem

_MAX_BYTES = 1024 * 1024
_LINE = r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*"
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def read_env_file(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a file, and the problems of lines that are none."""
    file = str(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "it is not a regular file")
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            return {}, [_problem(file, 0, f"the file is larger than {_MAX_BYTES} bytes", "too_large")]
        text = data.decode("utf-8-sig")
    except OSError as error:
        return {}, [_problem(file, 0, f"cannot be read: {error.strerror or error}", "file")]
    except UnicodeDecodeError:
        return {}, [_problem(file, 1, "the file is not UTF-8 text", "encoding")]
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(_LINE, line)
        value = _value(match[2]) if match else None
        if match is None or value is None:
            problems.append(_problem(file, number, "this line is not NAME=value", "env_file"))
        else:
            values[match[1]] = value
    return values, problems


def _value(text: str) -> str | None:
    """The value of what stands behind the '='; None where its quotes do not close."""
    if text[:1] in ("'", '"'):
        inner = re.fullmatch(r"'([^']*)'(?:\s+#.*)?|\"((?:[^\"\\]|\\.)*)\"(?:\s+#.*)?", text)
        if inner is None:
            return None
        if inner[1] is not None:
            return inner[1]
        return re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), inner[2])
    return re.split(r"\s+#|^#", text, maxsplit=1)[0]


def _problem(file: str, line: int, message: str, code: str) -> Problem:
    return Problem(file=file, line=line, column=1 if line else 0, path="", message=message, code=code)
