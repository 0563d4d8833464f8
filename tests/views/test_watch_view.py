"""What a watcher tells: lines for people, objects for machines."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

from serveconf.cli.watch_view import JsonView, TextView
from serveconf.errors import Unreachable
from serveconf.spec.problems import Problem, SpecInvalid
from serveconf.watch.ports import Said

FILE = Path("/srv/serve.yaml")


def test_each_deployment_has_its_colour_whatever_it_is_called() -> None:
    stream = io.StringIO()
    names = [f"{letter}pp" for letter in "abcdefgh"]  # of each colour one
    with TextView(stream, color=True) as view:
        for name in names:
            view.app_line("shop", name, "a line")
    styles = {line.partition(name)[0] for line, name in zip(stream.getvalue().splitlines(), names, strict=True)}
    assert len(styles) == 8 and all(style.startswith("\x1b[") for style in styles)


def test_lines_for_people_name_the_stack_where_there_are_several() -> None:
    stream = io.StringIO()
    with TextView(stream, color=False) as view:
        view.tell(Said(kind="changed", message="changed: web.py", file=FILE, stack="shop"))
        view.tell(Said(kind="changed", message="changed: web.py", file=FILE, stack="other"))
        view.app_line("shop", "web", "hello \x1b[2J")
        view.rest("watching")
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert lines[:2] == ["changed: web.py", "other: changed: web.py"]
    assert "shop/web | hello \\x1b[2J" in stream.getvalue()
    assert stream.getvalue().endswith("watching\n")


def test_addresses_are_said_the_first_time_and_when_they_change() -> None:
    stream = io.StringIO()
    with TextView(stream, color=False) as view:
        for address in ("http://h/a", "http://h/a", "http://h/b"):
            said = Said(kind="served", message="", file=FILE, stack="shop", data={"addresses": {"web": address}})
            view.tell(said)
    assert stream.getvalue() == "  web: http://h/a\n  web: http://h/b\n"


def test_an_apply_is_shown_as_apply_shows_it() -> None:
    stream = io.StringIO()
    with TextView(stream, color=False) as view:
        for event in ({"event": "phase", "phase": "preflight", "message": "looking"},):
            view.tell(Said(kind="event", message=event["event"], file=FILE, stack="shop", data=event))
        assert "preflight" in "\n".join(view.lines())
    assert "preflight: looking" in stream.getvalue()


def test_a_picture_that_changes_and_lines_that_are_written_never_wait_for_each_other() -> None:
    """As on a terminal: rich asks for the picture while it holds the lock that writing a line needs."""
    terminal, held, writing = threading.Lock(), threading.Event(), threading.Event()
    view = TextView(io.StringIO(), color=False)

    class Terminal:
        def write_above(self, text: str) -> None:
            writing.set()
            with terminal:
                pass

        def stop(self) -> None:
            pass

    view._live = Terminal()

    def refresh() -> None:
        with terminal:
            held.set()
            writing.wait(10)
            view.lines()

    def write() -> None:
        held.wait(10)
        view.app_line("shop", "web", "a line")

    threads = [threading.Thread(target=work, daemon=True) for work in (refresh, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_objects_for_machines_have_a_level_and_the_errors_problems() -> None:
    stream = io.StringIO()
    view = JsonView(stream)
    problem = Problem(file="serve.yaml", line=3, column=1, path="x", message="is wrong", code="unknown_key")
    view.tell(Said(kind="invalid", message="nothing is changed", file=FILE, error=SpecInvalid([problem])))
    view.tell(Said(kind="waiting", message="…", file=FILE, stack="shop", error=Unreachable("nobody answers")))
    view.tell(Said(kind="event", message="phase", file=FILE, stack="shop", data={"event": "phase", "phase": "switch"}))
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["kind"], first["error"]["problems"][0]["line"]) == ("error", "invalid", 3)
    assert (second["level"], second["error"]["code"]) == ("warning", "unreachable")
    assert (third["level"], third["kind"], third["phase"]) == ("info", "apply", "switch")
