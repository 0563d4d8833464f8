"""One Ray for the whole module of the seed page, with ports and folders of its own; nothing of it is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from serveconf.local_ray import free_port, start_local_ray, stop_local_ray


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
        done = subprocess.run([sys.executable, "main.py"], cwd=place, capture_output=True, text=True, timeout=100)
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
        ray = start_local_ray(lambda message: None)
        patch.setenv("RAY_ADDRESS", ray.address)
        port = free_port()
        patch.setenv("SEED_PAGE_PORT", str(port))
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)
        try:
            yield Cluster(folder, port, http)
        finally:
            http.close()
            stop_local_ray(ray)
            shutil.rmtree(folder, ignore_errors=True)
