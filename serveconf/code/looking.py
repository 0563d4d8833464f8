"""Have code looked at in a throw-away process (``serveconf.ingress.inspect``): import it there, and only there.

The preflight, ``validate --import`` and the plan without a cluster ask through here. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from typing import Any

SPARE_S = 15.0  # for the child's own start and end

Asked = dict[str, Any]
Reports = dict[str, list[dict[str, Any]]]

COMMAND = [sys.executable, "-m", "serveconf.ingress.inspect"]


class WarmInspector:
    """A process that has imported what looking needs, and forks for each question: it answers without starting Python.

    One question at a time; who comes meanwhile starts a process of his own. It ends with the process that has it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def warm_up(self) -> None:
        """Start it, so that the first question need not wait."""
        with self._lock:
            self._running()

    def look_at_code(
        self,
        *,
        code_dir: str | None,
        cwd: str | None,
        targets: list[Asked],
        middlewares: list[Asked],
        timeout_s: float,
    ) -> Reports:
        """See the function."""
        question = _question(code_dir, cwd, targets, middlewares, timeout_s)
        if self._lock.acquire(blocking=False):
            try:
                answer = self._ask(question, _limit_s(question))
            finally:
                self._lock.release()
            if answer is not None:
                return answer
        return _look(question)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _ask(self, question: Asked, limit_s: float) -> Reports | None:
        """None where it gives no answer: it is ended, and the next question starts another."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process, limit_s)
            answer: Reports | None = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self._end()
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [*COMMAND, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what could not be written any more
                        pipe.close()


def look_at_code(
    *, code_dir: str | None, cwd: str | None, targets: list[Asked], middlewares: list[Asked], timeout_s: float
) -> Reports:
    """``{"targets": […], "middlewares": […]}``: a report for each, in the given order. ``timeout_s``: for each of them.

    A child that ends without a readable answer, or not in time, is reported for all of them.
    """
    return _look(_question(code_dir, cwd, targets, middlewares, timeout_s))


def _question(
    code_dir: str | None, cwd: str | None, targets: list[Asked], middlewares: list[Asked], timeout_s: float
) -> Asked:
    return {"code_dir": code_dir, "cwd": cwd, "targets": targets, "middlewares": middlewares, "timeout_s": timeout_s}


def _limit_s(question: Asked) -> float:
    number = len(question["targets"]) + len(question["middlewares"])
    return float(question["timeout_s"] * number + SPARE_S)


def _look(question: Asked) -> Reports:
    try:
        done = subprocess.run(
            COMMAND,
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=_limit_s(question),
            cwd="/",
            check=False,
        )
        found: Reports = json.loads(done.stdout)
        return found
    except subprocess.TimeoutExpired:
        reason = f"the import took longer than {question['timeout_s']:g} s"
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        reason = f"the process that imports ended with code {done.returncode}: {last[0]}"
    failed = {"ok": False, "error": reason}
    return {kind: [failed for _ in question[kind]] for kind in ("targets", "middlewares")}


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """What it says up to a line's end; less where it ends, or takes longer."""
    assert process.stdout is not None
    data, until = b"", time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not data.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                break
            more = os.read(process.stdout.fileno(), 1 << 16)
            if not more:
                break
            data += more
    return data
