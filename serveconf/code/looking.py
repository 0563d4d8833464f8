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
from collections.abc import Callable, Sequence
from typing import Any

SPARE_S = 15.0  # for the child's own start and end
BEFOREHAND_S = 60.0  # for everything that is imported beforehand

Asked = dict[str, Any]
Reports = dict[str, list[dict[str, Any]]]

COMMAND = [sys.executable, "-m", "serveconf.ingress.inspect"]


class WarmInspector:
    """A process that has imported what looking needs, and forks for each question: it answers without starting Python.

    Where imports have taken their time, another one takes its place that has the installed part of them behind it.

    One question at a time; who comes meanwhile starts a process of his own. It ends with the process that has it.
    """

    def __init__(self, *, settle_s: float = 2.0, idle_s: float = 600.0, worth_s: float = 0.5) -> None:
        """``worth_s``: what imports must take for them to be made beforehand; ``settle_s``: how long nothing may be asked
        before that is done; ``idle_s``: … before they are given up again."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._settle_s, self._idle_s, self._worth_s = settle_s, idle_s, worth_s
        self._learned: dict[str, None] = {}  # installed modules that what was looked at imports, in that order
        self._beforehand: frozenset[str] = frozenset()  # those that the process has imported already
        self._refused: set[str] = set()  # those with which it went wrong
        self._timer: threading.Timer | None = None
        self._closed = False

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
        if not self._lock.acquire(blocking=False):
            return _look(question)
        try:
            began, beforehand = time.monotonic(), self._beforehand
            answer = self._ask(question, _limit_s(question))
            if answer is not None and _all_well(answer):
                self._learn(answer, time.monotonic() - began)
                return answer
            if answer is not None and not beforehand:
                return answer
        finally:
            self._lock.release()
        answer = _look(question)
        if beforehand and _all_well(answer):  # it was what had been imported before
            with self._lock:
                self._refused |= beforehand
                self._start_anew()
        return answer

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closed = True
            self._put_off()
            self._end()

    # -- what is imported beforehand --------------------------------------------------------------------------------

    def _learn(self, answer: Reports, seconds: float) -> None:
        """The lock is held."""
        if seconds >= self._worth_s * max(1, len(answer["targets"])):
            self._learned |= {name: None for report in answer["targets"] for name in report["installed"]}
        self._put_off()
        if self._missing():
            self._call_later(self._settle_s, self._go_further)
        elif self._beforehand:
            self._call_later(self._idle_s, self._go_back)

    def _missing(self) -> bool:
        return not self._learned.keys() - self._refused <= self._beforehand

    def _go_further(self) -> None:
        """Another process that has imported more takes the place of this one; questions are answered meanwhile."""
        with self._lock:
            names = [name for name in self._learned if name not in self._refused]
        process = _start()
        can = _imports(process, names)
        with self._lock:
            if not can or self._closed:
                _kill(process)
                self._refused |= set(names) - self._beforehand
                return
            self._end()
            self._process, self._beforehand = process, frozenset(names)
            self._call_later(self._idle_s, self._go_back)

    def _go_back(self) -> None:
        """Nobody has asked for long: what was imported for those who did need not lie in memory."""
        with self._lock:
            self._learned.clear()
            if not self._closed:
                self._start_anew()

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self._timer = threading.Timer(seconds, what)
        self._timer.daemon = True
        self._timer.start()

    def _put_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # -- the process ------------------------------------------------------------------------------------------------

    def _ask(self, question: Asked, limit_s: float) -> Reports | None:
        """None where it gives no answer: it is ended, and the next question starts another."""
        answer: Reports | None = _answer_of(self._running(), question, limit_s)
        if answer is None:
            self._end()
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = _start()
        return self._process

    def _start_anew(self) -> None:
        self._end()
        self._running()

    def _end(self) -> None:
        process, self._process, self._beforehand = self._process, None, frozenset()
        if process is not None:
            _kill(process)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what could not be written any more
                pipe.close()


def _imports(process: subprocess.Popen[bytes], names: Sequence[str]) -> bool:
    """Have it import them, and whether it can be forked then: the threads that a module has started are in no fork."""
    return bool(_answer_of(process, {"beforehand": list(names)}, BEFOREHAND_S) == {"threads": 1})


def _answer_of(process: subprocess.Popen[bytes], question: Asked, limit_s: float) -> Any:
    """None where it gives none in time."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        line = _read_line(process, limit_s)
        return json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None


def _all_well(answer: Reports) -> bool:
    return all(report["ok"] for reports in answer.values() for report in reports)


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
