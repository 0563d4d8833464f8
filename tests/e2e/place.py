"""A place of one's own to run the product in: its home, its Ray, its ports; the ``serveconf`` command as a user types it.

Everything that is started here carries a marker in its environment, so that what is left at the end can be told apart.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serveconf.cli.looking import is_healthy
from serveconf.local_ray import free_port

T = TypeVar("T")

COMMAND = Path(sys.executable).parent / "serveconf"
MARKER = "SERVECONF_E2E"
FOREIGN = "E2E_FOREIGN_TOKEN"
COMMAND_S = 300.0  # a guard against what hangs: however slow the machine is, a command ends before
UNTIL_S = 150.0  # likewise
ASK_S = 120.0
GOING = ("Draining", "Failed")  # an apply waits only so long until what it has replaced is gone


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


class Place:
    """Folders, ports and the environment of one installation."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="e2e"))  # short: Ray keeps unix sockets below it
        self.mark = uuid.uuid4().hex
        self.control_port, self.http_port = free_port(), free_port()
        ours = ("SERVECONF_", "RAY_", "COVERAGE_", "PYTEST_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self.env = {
            **kept,
            MARKER: self.mark,
            "SERVECONF_PASS_ENV": MARKER,
            FOREIGN: "of the shell and of no app",
            "SERVECONF_HOME": str(self.root / "home"),
            "SERVECONF_ADDRESS": f"http://127.0.0.1:{self.control_port}",
            "RAY_TMPDIR": str(self.root),
        }

    @property
    def url(self) -> str:
        """Where the deployments answer."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self, *args: str | Path, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """The command, begun."""
        return subprocess.Popen(
            [str(COMMAND), *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, **env},
            cwd=cwd,
        )

    def run(self, *args: str | Path, **env: str) -> Done:
        """The command, ended."""
        return end(self.start(*args, **env))

    def ok(self, *args: str | Path) -> Done:
        """The command, ended with 0."""
        done = self.run(*args)
        assert done.code == 0, f"{args}: {done.code}\n{done.out}\n{done.err}"
        return done

    def record(self) -> Any:
        """What the commands remember of it."""
        return json.loads((self.root / "home" / "cluster.json").read_text())

    def status(self) -> Any:
        """What the control API tells, asked directly: the command takes its time, and tests look often."""
        record = self.record()
        code, text = ask(f"{record['address']}/api/v1/status", authorization=f"Bearer {record['token']}")
        assert code == 200, text
        return json.loads(text)

    def is_whole(self) -> bool:
        """Everything is up, at the same generation."""
        return is_healthy(self.status())

    def stack(self, name: str) -> dict[str, Any]:
        """One stack of the status."""
        found: dict[str, Any] = next(stack for stack in self.status()["stacks"] if stack["name"] == name)
        return found

    def pids(self, stack: str, deployment: str) -> set[int]:
        """The processes of a deployment, less those that go."""
        found = next(d for d in self.stack(stack)["deployments"] if d["name"] == deployment)
        return {replica["pid"] for replica in found["replicas"] if replica["state"] not in GOING}

    def processes(self) -> list[str]:
        """What was started here and still runs."""
        return [line for pid in Path("/proc").iterdir() if (line := self._mine(pid))]

    def _mine(self, folder: Path) -> str | None:
        if not folder.name.isdigit():
            return None
        try:
            marked = f"{MARKER}={self.mark}".encode() in (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            return None
        return f"{folder.name} {command}" if marked else None

    def close(self) -> None:
        """Forget the folders."""
        shutil.rmtree(self.root, ignore_errors=True)


def end(process: subprocess.Popen[str], timeout: float = COMMAND_S) -> Done:
    """Wait for a command."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} did not end:\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


def ask(url: str, *, data: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer, whatever the status."""
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ASK_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(look: Callable[[], T], what: str, seconds: float = UNTIL_S) -> T:
    """The first truth that ``look`` comes to; an answer that fails, or lacks what is looked for, is no truth yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except (
            OSError,
            AssertionError,
            LookupError,
            StopIteration,
            subprocess.SubprocessError,
            http.client.HTTPException,
        ) as error:
            found, seen = None, repr(error)
        else:
            seen = str(found)
        if found:
            return found
        assert time.monotonic() < deadline, f"never: {what}; last: {seen}"
        time.sleep(0.1)
