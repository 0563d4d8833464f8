"""The progress of an apply, from the events that the control API sends: all of it on stderr.

On a terminal a few lines that keep changing (what is started, what is waited for, for how long); elsewhere one plain
line for each event. At the end the result, in either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TextIO

from serveconf.cli.columns import Cell, Color, columns, count, paint, visible
from serveconf.cli.common import width
from serveconf.cli.plan_view import render_plan
from serveconf.cli.result_view import indented, render_result

Event = Mapping[str, Any]

_LOG_COLORS: dict[str, Color] = {"warning": "yellow", "error": "red", "critical": "red"}
_WAITING_NAMED = 6
WORTH_TELLING_S = 0.05


class Live(Protocol):
    """Lines at the bottom of a terminal that change by themselves."""

    def write_above(self, text: str) -> None: ...
    def stop(self) -> None: ...


class ApplyView:
    """Shows one apply. A context manager, so that the terminal is as it was when anything ends it."""

    def __init__(
        self,
        stream: TextIO,
        *,
        live: bool = False,
        color: bool = False,
        clock: Callable[[], float] = time.monotonic,
        screen: Live | None = None,
    ) -> None:
        """``live``: ``stream`` is a terminal on which lines may change. ``clock`` gives seconds. ``screen``: changing lines
        that somebody else has, who shows ``lines`` there.
        """
        self._screen = screen
        self._stream = stream
        self._wants_live = live
        self._color = color
        self._clock = clock
        self._began = clock()
        self._phase = "starting"
        self._entered: list[tuple[str, float]] = []  # phases, and since when
        self._message = ""
        self._waits_for = ""
        self._replicas: dict[str, tuple[str, str, float]] = {}  # id -> deployment, state, since when
        self._live: Live | None = screen

    def __enter__(self) -> ApplyView:
        if self._wants_live and self._screen is None:
            self._live = start_live(self._stream, self.lines, self._color)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_live()

    def handle(self, event: Event) -> None:
        """Show one event. A kind that is not known, from a newer controller, is passed over."""
        match event["event"]:
            case "plan":
                self._plan(event)
            case "phase":
                self._entered.append((event["phase"], self._clock()))
                self._phase, self._message, self._waits_for = event["phase"], event.get("message", ""), ""
                self._progress(f"{self._phase}: {self._message}" if self._message else self._phase)
            case "replica":
                self._replica(event)
            case "wait":
                self._waits_for = event["message"]
                self._progress(f"waiting: {self._waits_for}")
            case "log":
                self._log(event)
            case "result":
                self._stop_live()
                if spent := self.spent():
                    self._print(paint(f"Time: {spent}", dim=True, on=self._color))
                self._print(render_result(event, color=self._color))

    def lines(self) -> list[str]:
        """What the changing lines say at this moment."""
        now = self._clock()
        head = f"{self._phase} {paint(f'{now - self._began:.1f} s', dim=True, on=self._color)}"
        lines = [f"{head}  {visible(self._message)}".rstrip()]
        by_deployment: dict[str, list[str]] = {}
        for deployment, state, _ in self._replicas.values():
            by_deployment.setdefault(deployment, []).append(state)
        rows = [
            [Cell(name), Cell(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))]
            for name, states in sorted(by_deployment.items())
        ]
        lines += columns(rows, color=self._color) if rows else []
        waiting = [(name, since) for name, (_, state, since) in self._replicas.items() if state == "Starting"]
        named = [f"  waiting for {visible(name)} {now - since:.1f} s" for name, since in waiting[:_WAITING_NAMED]]
        more = [f"  and for {count(len(waiting) - len(named), 'more replica')}"] if len(waiting) > len(named) else []
        said = [f"  waiting: {visible(self._waits_for)}"] if self._waits_for else []
        return [*lines, *named, *more, *said]

    def spent(self) -> str:
        """``preflight 0.8 s, starting 2.1 s``: where the time has gone; empty where it was none worth to be told."""
        ends = [since for _, since in [*self._entered, ("", self._clock())]][1:]
        seconds: dict[str, float] = {}
        for (phase, since), end in zip(self._entered, ends, strict=True):
            seconds[phase] = seconds.get(phase, 0.0) + end - since
        return ", ".join(f"{phase} {took:.1f} s" for phase, took in seconds.items() if took >= WORTH_TELLING_S)

    def _plan(self, event: Event) -> None:
        if event.get("actions"):
            warnings, wide = event.get("warnings", ()), width(self._stream)
            self._print(render_plan(event, color=self._color, warnings=warnings, width=wide))

    def _replica(self, event: Event) -> None:
        name, state = event["replica"], event["state"]
        began = self._clock() - float(event.get("seconds") or 0)
        # a new mapping, because the terminal's own thread reads the old one
        self._replicas = {**self._replicas, name: (event["deployment"], state, began)}
        seconds = f" ({event['seconds']:.1f} s)" if event.get("seconds") else ""
        message, _, traceback = str(event.get("message") or "").partition("\n")
        line = visible(f"{event['deployment']}: {name} {state}{seconds}{': ' if message else ''}{message}")
        if state == "Failed":
            self._print(paint(line, "red", on=self._color))
            if traceback:
                self._print(indented(traceback))
        else:
            self._progress(line)

    def _log(self, event: Event) -> None:
        about = f"{event['deployment']}: " if event.get("deployment") else ""
        level = paint(event["level"], _LOG_COLORS.get(event["level"]), on=self._color)
        self._print(f"{level}: {visible(about + event['message'])}")
        if event.get("traceback"):
            self._print(indented(event["traceback"]))

    def _progress(self, line: str) -> None:
        """A step that the changing lines show by themselves."""
        if self._live is None:
            self._print(f"[{self._clock() - self._began:6.1f} s] {visible(line)}")

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.write_above(text)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _stop_live(self) -> None:
        if self._live is not None and self._screen is None:
            self._live.stop()
            self._live = None


def start_live(stream: TextIO, lines: Callable[[], list[str]], color: bool) -> Live:
    """Lines at the bottom of a terminal, asked for eight times a second; the first has something that moves before it."""
    from rich.console import Console, Group, RenderableType  # takes too long to import for a command that shows nothing
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console = Console(file=stream, no_color=not color, highlight=False, markup=False)
    spinner = Spinner("dots")

    def picture() -> RenderableType:
        first, *rest = [Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in lines()]
        spinner.text = first
        return Group(spinner, *rest)

    class RichLive:
        def __init__(self) -> None:
            # stdout is for the command's result alone
            self._live = Live(
                get_renderable=picture,
                console=console,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
            )
            self._live.start(refresh=True)  # what is written above must find lines that it may clear

        def write_above(self, text: str) -> None:
            console.print(Text.from_ansi(text), soft_wrap=True)

        def stop(self) -> None:
            self._live.stop()

    return RichLive()
