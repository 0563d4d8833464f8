"""What this process has written to stdout and stderr, read back from the files that Ray sends them to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from serveconf.errors import OperatorError
from serveconf.reconcile.log_lines import merged, timed
from serveconf.reconcile.ports import LogPart
from serveconf.runtime.shared_output import lines_of

LARGEST_BYTES = 1_000_000  # read at once
STREAMS = {"out": 1, "err": 2}
RAY_MARKS = (":job_id:", ":actor_name:", ":task_name:")  # Ray's own lines in these files


def read_own_log(position: Mapping[str, int] | None, tail: int, deployment: str | None = None) -> LogPart:
    """The lines written since ``position``, or the last ``tail`` lines; and the position to go on from.

    ``deployment``: of a process that several share, only what that one has written, and what nobody can be named for.
    """
    found = {stream: _own_file(descriptor) for stream, descriptor in STREAMS.items()}
    return _read_files(found, position, tail, deployment)


def read_log_of(pid: int, tail: int) -> LogPart:
    """The last lines of another process of this node, also of one that has ended. Raises OperatorError where there are none."""
    own = _own_file(STREAMS["out"])
    if own is None:
        raise OperatorError("this node keeps no logs", code="no_answer")
    found: dict[str, Path | None] = {}
    for stream in STREAMS:
        files = sorted(own.parent.glob(f"*-{pid}.{stream}"), key=lambda file: file.stat().st_mtime)
        found[stream] = files[-1] if files else None
    if not any(found.values()):
        raise OperatorError(f"the log of process {pid} is not there any more", code="no_answer")
    return _read_files(found, None, tail)


def _read_files(
    files: Mapping[str, Path | None],
    position: Mapping[str, int] | None,
    tail: int,
    deployment: str | None = None,
) -> LogPart:
    logs = []
    reached: dict[str, int] = {}
    for stream, file in files.items():
        data, reached[stream], reached[f"{stream} file"] = _read(file, position, stream)
        text = data.decode(errors="replace").splitlines()
        text = [line for line in text if not line.startswith(RAY_MARKS)]
        logs.append(list(timed(stream, text if deployment is None else lines_of(deployment, text))))
    lines = tuple(line.text for line in merged(logs))
    return LogPart(
        lines=lines if position is not None else lines[len(lines) - min(tail, len(lines)) :], position=reached
    )


def _own_file(descriptor: int) -> Path | None:
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:  # no such link on this system
        return None


def _read(path: Path | None, position: Mapping[str, int] | None, stream: str) -> tuple[bytes, int, int]:
    """Whole lines from the position (None: from near the end), where the last of them ends, and in which file."""
    start = None if position is None else position.get(stream, 0)
    before = 0 if position is None else position.get(f"{stream} file", 0)
    try:
        if path is None:
            return b"", start or 0, before
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if start is not None and (start > found.st_size or before not in (0, found.st_ino)):
                start = 0  # rotated: another file, or the same begun anew
            begin = max(0, found.st_size - LARGEST_BYTES) if start is None else start
            file.seek(begin)
            data = file.read(LARGEST_BYTES)
    except OSError:  # no file behind it
        return b"", start or 0, before
    end = data.rfind(b"\n") + 1
    return data[:end], begin + end, found.st_ino
