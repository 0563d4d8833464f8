"""The ``serveconf`` command: the names of its commands, a line of each, and where it begins and ends.

Nothing of a command is imported before it is called, nor typer, which parses, before there is anything to parse.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from serveconf.cli.common import Output, chosen, of_the_system, show_error, tell
from serveconf.errors import InternalError

# name -> its module in serveconf.cli, where a function has the same name, and the first line of that function's help
COMMANDS: dict[str, tuple[str, str]] = {
    "validate": ("validate", "Check spec files and report all their problems."),
    "plan": ("apply", "Show what apply would do, each line with its cost and its reason."),
    "apply": ("apply", "Make the spec so, and wait until it is."),
    "run": ("run", "Start what is missing, apply, watch file and code, show what happens."),
    "watch": ("watch", "Apply to a running cluster, and again whenever a spec or its code has changed."),
    "sync": ("sync", "Apply what a git branch says, and again whenever it says something else."),
    "status": ("look", "Show stacks, deployments, replicas and proxies, their states and the generation."),
    "events": ("events", "Show what was done and what the system did by itself, with why."),
    "dashboard": (
        "token",
        "Print an address that signs a browser in to the dashboard; it works once, within five minutes.",
    ),
    "token": ("token", "Print the control API's token."),
    "routes": ("look", "Show the live routing table, or who would take a request."),
    "logs": ("logs", "Show what the replicas of a deployment write, or the proxies, or the controller."),
    "history": ("look", "Show the revisions of a stack, or one of them with its spec."),
    "dump": ("dump", "Print a live stack as a spec file, or write all of them to a folder."),
    "scale": ("change", "Set a deployment's number of replicas until the next apply."),
    "rollback": ("change", "Go back to an earlier revision and pin it."),
    "promote": ("change", "End a canary at once: all of the requests to the new version."),
    "abort": ("change", "End a canary at once: all of the requests back to the old version."),
    "resume": ("change", "End the pin that a rollback leaves."),
    "delete": ("change", "Take deployments, or a whole stack, away."),
    "backup": ("backup", "Write all stacks, their revisions and their code to a file that only its owner can read."),
    "restore": ("backup", "Bring the stacks of a backup up again, each as one apply."),
    "upgrade": (
        "upgrade",
        "Bring a running controller, its proxies and replicas to the version of this command, with no request lost.",
    ),
    "shutdown": ("change", "Stop proxies, replicas and the controller, and the Ray that apply or run started."),
    "doctor": (
        "doctor",
        "Look at Python, packages, memory, limits, ports, folders and what former runs have left, and say what to do.",
    ),
    "init": (
        "init",
        "Write a commented spec for the given import paths, or for the FastAPI apps found below the folder.",
    ),
    "convert": ("convert", "Print a Ray Serve config, or the one in a RayService manifest, as a serveconf spec."),
    "explain": (
        "explain",
        "Explain a field of the spec (its default, its meaning, what changing it costs) or the code of a problem.",
    ),
    "schema": ("explain", "Print the JSON Schema of spec files, for editors and other tools."),
}


def _number(word: str) -> int:
    """A number as it mostly is. Raises ValueError; typer says what is wrong with one that is none, or that is too large."""
    if len(word) > 5:
        raise ValueError
    return int(word)


STRAIGHT: dict[str, tuple[str, tuple[Callable[[str], object], ...]]] = {
    # command -> its module in serveconf.cli, and what its arguments are read as where nothing else is said
    "apply": ("applying", (Path,)),
    "plan": ("applying", (Path,)),
    "status": ("looking", ()),
    "scale": ("scaling", (str, _number)),
}


def straight(words: list[str]) -> bool:
    """Do a command that is given as it mostly is, without an option but perhaps the stack that ``scale`` is about. typer builds a
    parser of models for each command; where there is nothing to parse that takes longer than all else before the first request.
    False: it is for typer.
    """
    if not words or words[0] not in STRAIGHT:
        return False
    module, kinds = STRAIGHT[words[0]]
    stack = {"stack": words[-1]} if words[0] == "scale" and words[-2:-1] == ["--stack"] else {}
    given = words[1 : -2 if stack else None]
    if len(given) != len(kinds) or any(not word or word.startswith("-") for word in (*given, *stack.values())):
        return False
    try:
        arguments = [kind(word) for kind, word in zip(kinds, given, strict=True)]
    except ValueError:  # typer says what is wrong with it
        return False
    if (token := os.environ.get("SERVECONF_TOKEN")) == "-":  # to be read, and perhaps refused
        return False
    chosen.address = os.environ.get("SERVECONF_ADDRESS") or None
    chosen.token = token or None
    imported = importlib.import_module(f"serveconf.cli.{module}")
    collect_again()
    try:
        getattr(imported, words[0])(*arguments, **stack)
    except KeyboardInterrupt:  # from here on as typer does it
        sys.exit(130)
    except EOFError:
        tell("Aborted!")
        sys.exit(1)
    except BrokenPipeError:
        nobody = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nobody, stream.fileno())
        sys.exit(1)
    return True


def collect_again() -> None:
    """Garbage is looked for from here on, among what is made from here on."""
    gc.freeze()
    gc.enable()


def main() -> None:
    """The console script. A fault of serveconf itself is one line, too; SERVECONF_DEBUG=1 shows where it is."""
    gc.disable()  # until the command is imported: of what imports make nothing is garbage, and looking takes a tenth of a short command
    try:
        if not straight(sys.argv[1:]):
            from serveconf.cli.parser import app

            app()
    except Exception as error:  # the last edge: nobody is left to tell it to but the user
        if os.environ.get("SERVECONF_DEBUG"):
            raise
        if isinstance(error, OSError) and (said := of_the_system(error)) is not None:
            show_error(said, Output.TEXT)
            sys.exit(1)
        hint = "this is a fault of serveconf; with SERVECONF_DEBUG=1 it shows where"
        show_error(InternalError(f"{type(error).__name__}: {error}", hint=hint), Output.TEXT)
        sys.exit(1)
    finally:
        gc.freeze()  # the interpreter looks for garbage three more times as it ends, which takes as long as a request
