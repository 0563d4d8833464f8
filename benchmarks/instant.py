"""How soon everything is there: edits, healing, scaling, many apps, commands; each beside starting Python with Ray and FastAPI.

    python benchmarks/instant.py [--rounds N] [--only NAME,…]

serveconf's modules are compiled beforehand, as pip does it: in a checkout PYTHONDONTWRITEBYTECODE would have each process do it.
One cluster for all of it, beside Ray Serve's figures where ``ray[serve]`` is installed. Medians over the rounds; the ratio is
to ``python -c "import ray, fastapi"``, timed between the others.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import instant_on_ray_serve
import psutil
from apply import Load

import serveconf
from serveconf.local_ray import free_port

SERVECONF = str(Path(sys.executable).parent / "serveconf")
APP = """import os
from fastapi import FastAPI
{more}
app = FastAPI()

@app.get("/")
def answer() -> dict:
    return {{"said": "{word}", "pid": os.getpid()}}
"""
SMALL_APPS, EDITED_OF, LOAD = 40, 30, 64
SMALL = "defaults: {ray_actor_options: {num_cpus: 0.02}}"  # so that all of them fit on two cores
PAUSE_S = 4.0  # for standbys to be there again


class Bench:
    """A folder, a cluster, and what is measured in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.words = iter(range(10**9))
        os.environ |= {"SERVECONF_HOME": str(folder / "h"), "RAY_TMPDIR": str(folder)}
        os.environ["SERVECONF_ADDRESS"] = f"http://127.0.0.1:{free_port()}"
        slow = folder / "site-packages"  # what lies in a folder of that name is installed
        slow.mkdir()
        (slow / "takes_two_seconds.py").write_text("import time\ntime.sleep(2)\n")
        os.environ["PYTHONPATH"] = str(slow)

    def stack(self, name: str, *deployments: str, more: str = "") -> Path:
        """Write a spec in a folder of its own; each deployment is the inside of a flow mapping."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        lines = [f"name: {name}", f"http_options: {{port: {self.port}}}", more, "deployments:"]
        (folder / "serve.yaml").write_text("\n".join([*lines, *(f"  - {{{one}}}" for one in deployments)]) + "\n")
        return folder / "serve.yaml"

    def code(self, stack: str, module: str, *, more: str = "") -> str:
        """Write a module that answers with a new word; the word."""
        word = f"w{next(self.words)}"
        (self.folder / stack / f"{module}.py").write_text(APP.format(word=word, more=more))
        return word

    def get(self, path: str, timeout_s: float = 10.0, port: int | None = None) -> Any:
        """The answer, or None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=timeout_s) as response:
                return json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            return None

    def until(self, path: str, what: Callable[[Any], object], limit_s: float = 120.0, port: int | None = None) -> float:
        """Seconds until the answer is such."""
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            answer = self.get(path, port=port)
            if answer is not None and what(answer):
                return time.monotonic() - began
            time.sleep(0.005)
        raise TimeoutError(path)

    def command(self, *args: str) -> float:
        """Seconds of one command."""
        began = time.monotonic()
        done = subprocess.run([SERVECONF, *args], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{args}: {done.stderr[-2000:]}")
        return time.monotonic() - began

    def status(self, stack: str) -> dict[str, Any]:
        """The stack's status."""
        done = subprocess.run([SERVECONF, "status", "-o", "json"], capture_output=True, text=True, check=True)
        whole = json.loads(done.stdout)
        stack_status = next(s for s in whole["stacks"] if s["name"] == stack)
        return {**stack_status, "proxies": whole["proxies"], "standbys": whole["standbys"]}

    def rest(self, stack: str) -> None:
        """Return when a standby of each sort has been there for two looks."""
        looks = 0
        while looks < 2:
            time.sleep(0.5)
            standbys = self.status(stack)["standbys"]
            ready = {s["kind"] for s in standbys if s["state"] == "Ready"}
            looks = looks + 1 if len(ready) >= 2 and all(s["state"] == "Ready" for s in standbys) else 0

    @contextlib.contextmanager
    def watching(self, file: Path) -> Iterator[None]:
        """While ``serveconf watch`` runs."""
        ready = file.parent / "ready"
        ready.unlink(missing_ok=True)
        watch = subprocess.Popen(
            [SERVECONF, "watch", str(file), "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not ready.exists():
                time.sleep(0.05)
            yield
        finally:
            watch.send_signal(signal.SIGINT)
            watch.wait()


def python_start(_: Bench) -> dict[str, float]:
    """What everything is compared with."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import ray, fastapi"], check=True)
    return {'python -c "import ray, fastapi"': time.monotonic() - began}


def edits(bench: Bench) -> dict[str, float]:
    """From the save of a module to the first answer of the new code."""
    found = {}
    for name, more in (("edit", ""), ("slowly", "import takes_two_seconds")):
        file = bench.stack(name, f"name: {name}, import_path: 'web:app'")
        bench.code(name, "web", more=more)
        bench.command("apply", str(file))
        with bench.watching(file):
            bench.rest(name)
            time.sleep(PAUSE_S + (4 if more else 0))
            word = bench.code(name, "web", more=more)
            took = bench.until(f"/{name}/", lambda answer, word=word: answer["said"] == word)
        found["edit to its answer" if not more else "... of an app that imports for two seconds"] = took
    return found


def edit_under_load(bench: Bench) -> dict[str, float]:
    """A saved edit while 64 connections ask: to the first answer of the new code, and the longest time without any answer."""
    file = bench.stack("loaded", "name: loaded, import_path: 'web:app'")
    bench.code("loaded", "web")
    bench.command("apply", str(file))
    with bench.watching(file):
        bench.rest("loaded")
        with Load(bench.port, "/loaded/", LOAD) as load:
            time.sleep(PAUSE_S)
            word = bench.code("loaded", "web")
            took = bench.until("/loaded/", lambda answer: answer["said"] == word)
            time.sleep(PAUSE_S)
    if load.failed:
        raise RuntimeError(f"{load.failed} of {load.answers} requests failed")
    return {f"edit under {LOAD} connections to its answer": took, "... the longest gap between answers": load.gap_s}


def edit_of_many(bench: Bench) -> dict[str, float]:
    """One of thirty deployments that share no module is edited: apply, the whole command."""
    names = [f"m{number}" for number in range(EDITED_OF)]
    file = bench.stack("thirty", *(f"name: {name}, import_path: '{name}:app'" for name in names), more=SMALL)
    for name in names:
        bench.code("thirty", name)
    bench.command("apply", str(file))
    time.sleep(PAUSE_S)
    with bench.watching(file):
        time.sleep(PAUSE_S)
        word = bench.code("thirty", "m7")
        took = bench.until("/m7/", lambda answer: answer["said"] == word)
    bench.command("delete", "--stack", "thirty")
    return {f"edit of one of {EDITED_OF} deployments to its answer": took}


def kills(bench: Bench) -> dict[str, float]:
    """The only replica, then the only proxy."""
    name = f"killed{next(bench.words)}"  # one that is killed again and again waits longer and longer
    file = bench.stack("killed", f"name: {name}, import_path: 'web:app'")
    bench.code("killed", "web")
    bench.command("apply", str(file))
    bench.rest("killed")
    pid = bench.get(f"/{name}/")["pid"]
    os.kill(pid, signal.SIGKILL)
    healed = bench.until(f"/{name}/", lambda answer: answer["pid"] != pid)
    bench.rest("killed")
    status = bench.status("killed")
    (proxy,), (spare,) = status["proxies"], [s for s in status["standbys"] if s["kind"] == "proxy"]
    memory = psutil.Process(spare["pid"]).memory_full_info().uss / 1e6
    os.kill(proxy["pid"], signal.SIGKILL)
    refused = bench.until(f"/{name}/", lambda _: True)
    return {
        "killed replica to the next answer": healed,
        "killed proxy to the next answer": refused,
        "a proxy that stands by: memory (MB, USS)": memory,
    }


def scaling(bench: Bench) -> dict[str, float]:
    """From one replica to three: when the first additional one answers."""
    file = bench.stack("scaled", "name: scaled, import_path: 'web:app'")
    bench.code("scaled", "web")
    bench.command("apply", str(file))
    bench.command("scale", "scaled", "1", "--stack", "scaled")
    bench.rest("scaled")
    pid = bench.get("/scaled/")["pid"]
    began = time.monotonic()
    command = threading.Thread(target=bench.command, args=("scale", "scaled", "3", "--stack", "scaled"))
    command.start()
    bench.until("/scaled/", lambda answer: answer["pid"] != pid)
    took = time.monotonic() - began
    command.join()
    bench.command("scale", "scaled", "1", "--stack", "scaled")
    return {"scale 1 to 3: the first additional answer": took}


def small_apps(bench: Bench) -> dict[str, float]:
    """Forty small apps in one stack, as processes of their own and in one that they share."""
    found = {}
    for name, more in (
        ("shared", "defaults: {process: all}"),
        ("own", SMALL),
    ):
        apps = [f"{name}{number}" for number in range(SMALL_APPS)]
        file = bench.stack(name, *(f"name: {app}, import_path: '{app}:app'" for app in apps), more=more)
        for app in apps:
            bench.code(name, app)
        time.sleep(PAUSE_S)
        took = bench.command("apply", str(file))
        pids = {bench.get(f"/{app}/")["pid"] for app in apps}
        found[f"{SMALL_APPS} small apps, {name}: apply"] = took
        print(f"# {name}: {took:.2f}", file=sys.stderr)
        memory = sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / 1e6
        found[f"{SMALL_APPS} small apps, {name}: memory (MB, USS)"] = memory
        if name == "shared":
            found["... resident (MB)"] = sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6
        bench.command("delete", "--stack", name)
    return found


def commands(bench: Bench) -> dict[str, float]:
    """Whole commands."""
    file = bench.stack("said", "name: said, import_path: 'web:app'")
    bench.code("said", "web")
    bench.command("apply", str(file))
    time.sleep(1)
    found = {"apply, nothing to do": bench.command("apply", str(file))}
    route = f"name: said, import_path: 'web:app', route_prefix: /r{next(bench.words)}"
    bench.stack("said", route)
    found["apply, a route"] = bench.command("apply", str(file))
    found["status"] = bench.command("status")
    found["validate"] = bench.command("validate", str(file))
    found["--help"] = bench.command("--help")
    return found


def on_ray_serve(bench: Bench) -> dict[str, float]:
    """The same, where it is installed."""
    if not instant_on_ray_serve.is_installed():
        print("# Ray Serve: ray[serve] is not installed, nothing to compare with", file=sys.stderr)
        return {}
    port = free_port()
    return instant_on_ray_serve.measure(
        bench.folder,
        port,
        until=lambda what: bench.until("/app/", what, port=port),
        get=lambda: bench.get("/app/", port=port),
    )


PARTS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "python": python_start,
    "edits": edits,
    "load": edit_under_load,
    "many": edit_of_many,
    "kills": kills,
    "scaling": scaling,
    "apps": small_apps,
    "commands": commands,
    "ray_serve": on_ray_serve,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    parts = ["python", *(name for name in arguments.only.split(",") if name != "python")]
    figures: dict[str, list[float]] = {}
    compileall.compile_dir(Path(serveconf.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory(prefix="sc", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder))
        try:
            file = bench.stack("first", "name: first, import_path: 'web:app'")
            bench.code("first", "web")
            bench.command("apply", str(file))
            for _ in range(arguments.rounds):
                for part in parts:
                    for name, value in PARTS[part](bench).items():
                        figures.setdefault(name, []).append(value)
                        print(f"# {name}: {value:.2f}", file=sys.stderr, flush=True)
        finally:
            subprocess.run([SERVECONF, "shutdown"], capture_output=True)
    base = statistics.median(figures['python -c "import ray, fastapi"'])
    for name, values in figures.items():
        middle = statistics.median(values)
        ratio = "" if "MB" in name else f"{middle / base:8.2f}"
        print(f"{name:52} {middle:8.2f} {ratio}   {min(values):.2f}–{max(values):.2f}")


if __name__ == "__main__":
    main()
