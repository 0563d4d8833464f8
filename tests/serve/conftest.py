"""One Ray for the whole module of the seed page, with ports and folders of its own; nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from serveconf.local_ray import free_port
from serveconf.processes import session


@dataclass
class Cluster:
    """A cluster that scripts run against, and the HTTP front that they are answered by."""

    folder: Path
    port: int
    http: httpx.Client = field(repr=False)

    def run(self, source: str, **modules: str) -> str:
        """Run ``python main.py`` to its end; what it printed."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        for name, content in {"main": source, **modules}.items():
            (place / f"{name}.py").write_text(textwrap.dedent(content))
        done = subprocess.run([sys.executable, "main.py"], cwd=place, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str) -> Any:
        """What ``GET path`` answers, which is to be JSON."""
        answer = self.http.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="sc-"))  # short: Ray's sockets lie below it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("SERVECONF_HOME", str(folder / "home"))
        patch.setenv("SERVECONF_ADDRESS", f"http://127.0.0.1:{free_port()}")
        patch.delenv("SERVECONF_TOKEN", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token lies in the home of who runs the tests
        ray_port, port = free_port(), free_port()
        patch.setenv("RAY_ADDRESS", f"127.0.0.1:{ray_port}")
        patch.setenv("SEED_PAGE_PORT", str(port))
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)
        with _ray(ray_port, folder / "ray.log"):
            try:
                yield Cluster(folder, port, http)
            finally:
                http.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _ray(port: int, log: Path) -> Iterator[None]:
    """A Ray as its user starts it; what is started is one session of processes."""
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
    with open(log, "wb") as out:
        options = ["--include-dashboard=false", "--disable-usage-stats"]
        ray = subprocess.Popen([*command, *options], stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline and ray.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
        yield
    finally:
        ray.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ray.wait(30)
        for process in list(session(ray.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        ray.wait()
