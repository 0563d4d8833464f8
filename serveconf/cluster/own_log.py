"""What this process has written to stdout and stderr, read back from the files that Ray sends them to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from serveconf.reconcile.ports import LogPart

LARGEST_BYTES = 1_000_000  # read at once
STREAMS = {"out": 1, "err": 2}
RAY_MARKS = (":job_id:", ":actor_name:", ":task_name:")  # Ray's own lines in these files


def read_own_log(position: Mapping[str, int] | None, tail: int) -> LogPart:
    """The lines written since ``position``, or the last ``tail`` lines; and the position to go on from."""
    lines: list[str] = []
    reached: dict[str, int] = {}
    for stream, descriptor in STREAMS.items():
        data, reached[stream] = _read(descriptor, None if position is None else position.get(stream, 0))
        text = data.decode(errors="replace").splitlines()
        lines += [line for line in text if not line.startswith(RAY_MARKS)]
    return LogPart(
        lines=tuple(lines if position is not None else lines[len(lines) - min(tail, len(lines)) :]), position=reached
    )


def _read(descriptor: int, start: int | None) -> tuple[bytes, int]:
    """Whole lines from ``start`` (None: from near the end), and where the last of them ends."""
    try:
        with open(os.readlink(f"/proc/self/fd/{descriptor}"), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = max(0, size - LARGEST_BYTES) if start is None else start
            file.seek(begin)
            data = file.read(LARGEST_BYTES)
    except OSError:  # no such link on this system, or no file behind it
        return b"", start or 0
    end = data.rfind(b"\n") + 1
    return data[:end], begin + end
