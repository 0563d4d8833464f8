"""The command itself: every command is listed, says what the list says, and imports only what it needs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from serveconf.cli.main import COMMANDS
from serveconf.cli.parser import app
from serveconf.local_ray import free_port

NEVER = ("ray", "fastapi", "starlette", "uvicorn")


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules, and serveconf's own, that a command has imported when it ends."""
    code = (
        "import sys; sys.argv = ['serveconf', *sys.argv[1:]]\n"
        "from serveconf.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n@' + ' '.join(name for name, module in sys.modules.items() if module))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    names = done.stdout.rpartition("@")[2].split()
    return {name if name.startswith("serveconf") else name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    module, line = COMMANDS[name]
    function = getattr(importlib.import_module(f"serveconf.cli.{module}"), name)
    sentence = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    assert sentence.startswith(line.removesuffix("."))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_a_name_that_is_almost_right_is_suggested() -> None:
    result = CliRunner().invoke(app, ["stats"])
    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.stderr


def test_help_imports_no_command() -> None:
    found = imported_by("--help")
    assert not found & {*NEVER, "pydantic", "httpx", "yaml", "msgspec", "rich"}
    assert {name for name in found if name.startswith("serveconf.cli.")} == {
        "serveconf.cli.main",
        "serveconf.cli.parser",
        "serveconf.cli.common",
    }


def test_what_asks_a_running_controller_reads_no_spec() -> None:
    found = imported_by("--address", f"http://127.0.0.1:{free_port()}", "status")
    assert "serveconf.http_calls" in found
    assert not found & {*NEVER, "httpx", "yaml", "rich", "click", "serveconf.spec.models"}


@pytest.mark.parametrize(
    "command", [["resume"], ["shutdown"], ["delete", "a"], ["rollback"], ["promote"], ["logs", "a"]]
)
def test_what_changes_a_running_stack_reads_no_spec_either(command: list[str]) -> None:
    assert "serveconf.spec.models" not in imported_by("--address", f"http://127.0.0.1:{free_port()}", *command)


def test_validate_knows_no_network(tmp_path: object) -> None:
    assert not imported_by("validate", str(tmp_path)) & {*NEVER, "httpx", "rich"}
