"""What ``instant.py`` measures, done by Ray Serve on the same Ray: a change of code, a kill, another replica."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serveconf.home import read_record
from serveconf.ray_env import access

SCRIPT = """
import os, sys
from fastapi import FastAPI
from ray import serve
port, word, replicas = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
app = FastAPI()
@serve.deployment(num_replicas=replicas, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Root:
    @app.get("/")
    def root(self):
        return {"said": word, "pid": os.getpid()}
serve.start(http_options={"port": port})
serve.run(Root.bind(), route_prefix="/app")
"""
END = "from ray import serve; serve.shutdown()"
Until = Callable[[Callable[[Any], object]], float]


def is_installed() -> bool:
    """Whether Ray Serve is."""
    return all(importlib.util.find_spec(name) for name in ("aiohttp_cors", "ray.serve"))


def measure(folder: Path, port: int, until: Until, get: Callable[[], Any]) -> dict[str, float]:
    """Seconds each. ``until`` waits for an answer of the app below /app, ``get`` asks it once."""
    script = folder / "on_ray_serve.py"
    script.write_text(SCRIPT)
    ray = read_record().ray
    assert ray is not None
    env = {**os.environ, **access(), "RAY_ADDRESS": ray.address}

    def run(*command: str) -> None:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=180, env=env)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])

    def deploy(word: str, replicas: int) -> Callable[[], None]:
        thread = threading.Thread(target=run, args=(str(script), str(port), word, str(replicas)))
        thread.start()
        return thread.join

    def seen(what: Callable[[Any], object], begun: Callable[[], None]) -> float:
        took = until(what)
        begun()
        time.sleep(2)
        return took

    found = {}
    try:
        found["started"] = seen(lambda answer: answer["said"] == "one", deploy("one", 1))
        found["edit to its answer"] = seen(lambda answer: answer["said"] == "two", deploy("two", 1))
        pid = get()["pid"]
        os.kill(pid, signal.SIGKILL)
        found["killed replica to the next answer"] = until(lambda answer: answer["pid"] != pid)
        pid = get()["pid"]
        found["scale 1 to 3: the first additional answer"] = seen(lambda answer: answer["pid"] != pid, deploy("two", 3))
    finally:
        run("-c", END)
    return {f"Ray Serve: {name}": took for name, took in found.items()}
