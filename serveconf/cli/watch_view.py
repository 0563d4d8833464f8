"""What a watcher tells, on stderr: on a terminal lines that scroll above a picture of what is served, elsewhere plain lines,
and for machines one JSON object a line."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from serveconf.cli.apply_view import ApplyView, Live, start_live
from serveconf.cli.columns import Cell, Color, columns, paint, visible
from serveconf.cli.follow import shown_error
from serveconf.cli.status_view import COLORS
from serveconf.errors import ServeconfError
from serveconf.spec.problems import SpecInvalid

if TYPE_CHECKING:
    from serveconf.watch.ports import Said

_COLORS: dict[str, Color] = {
    "changed": "cyan",
    "served": "green",
    "agreed": "green",
    "invalid": "red",
    "error": "red",
    "quarantine": "red",
    "waiting": "yellow",
    "drift": "yellow",
    "gone": "yellow",
    "restless": "yellow",
    "warned": "yellow",
    "pinned": "magenta",
}
_LEVELS = {
    **dict.fromkeys(("invalid", "error", "quarantine"), "error"),
    **dict.fromkeys(("waiting", "drift", "gone", "restless", "warned", "pinned"), "warning"),
}
_NAMES: tuple[Color, ...] = (
    "green",
    "cyan",
    "magenta",
    "yellow",
    "blue",
    "bright_green",
    "bright_cyan",
    "bright_magenta",
)


class JsonView:
    """One JSON object a line."""

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, said: Said) -> None:
        """Write it."""
        line: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(said.kind, said.data.get("level", "info")),
            "kind": "apply" if said.kind == "event" else said.kind,
            "message": said.message,
            "stack": said.stack,
            "file": str(said.file) if said.file else None,
            **said.data,
        }
        if "warnings" in line and said.kind == "warned":
            line["warnings"] = [problem.as_json() for problem in line["warnings"]]
        if said.error is not None:
            line["error"] = shown_error(said.error)
        with self._lock:
            self._stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._stream.flush()


class TextView:
    """For people. A context manager, so that the terminal is as it was when anything ends it."""

    def __init__(self, stream: TextIO, *, color: bool, live: bool = False) -> None:
        """``live``: lines may change."""
        self._stream = stream
        self._color = color
        self._terminal = live
        self._footer = "looking at the files"
        self._lock = threading.RLock()
        self._shown = [self._footer]
        self._live: Live | None = None
        self._applies: dict[Path | None, ApplyView] = {}
        self._stacks: list[str] = []
        self._addresses: dict[str, dict[str, str]] = {}
        self._status: Mapping[str, Any] = {}

    def __enter__(self) -> TextView:
        if self._terminal:
            self._live = start_live(self._stream, self.lines, self._color)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, said: Said) -> None:
        """Show it; from any thread."""
        with self._lock:
            if said.stack and said.stack not in self._stacks:
                self._stacks.append(said.stack)
            if said.kind == "event":
                self._event(said)
                return
            self._applies.pop(said.file, None)
            if said.error is not None:
                self._print(_error_text(said.error, self._color))
            match said.kind:
                case "served":
                    self._served(said)
                case "warned":
                    from serveconf.cli.problems_view import text

                    self._print(text(said.data["warnings"], color=self._color))
                case "invalid":
                    self._line(said, f"{said.message}: what was applied before goes on serving")
                case _:
                    self._line(said, said.message)

    def rest(self, footer: str) -> None:
        """The first tries are over: from now on this stands where nothing is being done."""
        with self._lock:
            self._footer = footer
            if self._live is None:
                self._print(footer)

    def say(self, message: str) -> None:
        """A line of the command's own."""
        with self._lock:
            self._print(message)

    def app_line(self, stack: str, deployment: str, line: str) -> None:
        """A line that an app has written."""
        with self._lock:
            name = f"{stack}/{deployment}" if len(self._stacks) > 1 else deployment
            color = _NAMES[sum(map(ord, name)) % len(_NAMES)]
            self._print(f"{paint(visible(name), color, on=self._color)} | {visible(line)}")

    def status(self, found: Mapping[str, Any]) -> None:
        """What is served just now."""
        self._status = found

    def lines(self) -> list[str]:
        """The picture at the bottom of the terminal.

        The terminal's own thread asks, holding a lock that who writes a line waits for, holding ours: it must never wait.
        """
        if self._lock.acquire(blocking=False):
            try:
                applying = [line for view in self._applies.values() for line in view.lines()]
                head = applying[:1] or [paint(self._footer, dim=True, on=self._color)]
                self._shown = [*head, *applying[1:], *self._picture()]
            finally:
                self._lock.release()
        return self._shown

    def _picture(self) -> list[str]:
        rows = []
        for stack in self._status.get("stacks", ()):
            if stack["name"] not in self._stacks:
                continue
            for deployment in stack["deployments"]:
                name = deployment["name"]
                address = self._addresses.get(stack["name"], {}).get(name) or deployment["route_prefix"] or ""
                ready = sum(replica["state"] == "Ready" for replica in deployment["replicas"])
                where = f"{stack['name']}/{name}" if len(self._stacks) > 1 else name
                state = Cell(deployment["state"], COLORS.get(deployment["state"]))
                rows.append([Cell(where), state, Cell(f"{ready} ready"), Cell(address)])
        return columns(rows, color=self._color) if rows else []

    def _event(self, said: Said) -> None:
        view = self._applies.get(said.file)
        if view is None:
            view = ApplyView(self._stream, color=self._color, screen=self._live)
            self._applies[said.file] = view
        if said.data["event"] == "result":
            del self._applies[said.file]
        view.handle(said.data)

    def _served(self, said: Said) -> None:
        """Where it answers: the first time, and when that is another place."""
        addresses = said.data["addresses"]
        if said.stack and self._addresses.get(said.stack) != addresses:
            self._addresses[said.stack] = addresses
            for name, address in addresses.items():
                self._print(f"  {visible(name)}: {address}")

    def _line(self, said: Said, message: str) -> None:
        when = datetime.datetime.now().astimezone().strftime("%H:%M:%S")
        about = said.stack or (said.file.name if said.file else "")
        if len(self._stacks) <= 1 and about == said.stack:
            about = ""
        text = paint(visible(message), _COLORS.get(said.kind), on=self._color)
        self._print(f"{paint(when, dim=True, on=self._color)} {visible(about)}{': ' if about else ''}{text}")

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.write_above(text)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()


def _error_text(error: ServeconfError, color: bool) -> str:
    if isinstance(error, SpecInvalid):
        from serveconf.cli.problems_view import text

        return text(error.problems, color=color)
    if problems := getattr(error, "problems", None):
        from serveconf.cli.result_view import render_problems

        return render_problems(problems, color=color)
    hint = f"\n  hint: {error.hint}" if error.hint else ""
    return f"{paint('error:', 'red', bold=True, on=color)} {visible(error.message)}{hint}"
