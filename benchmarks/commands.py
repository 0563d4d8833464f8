"""How long commands take that only look or check: CPU and wall time of the whole process, medians, beside a bare import.

``python benchmarks/commands.py [ROUNDS]``. The rounds are interleaved, so that a machine that slows down slows all of them.
Nothing is started; ``status`` asks where nobody answers. serveconf's modules are compiled beforehand, as pip does it.
"""

from __future__ import annotations

import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import serveconf

SPEC = "deployments:\n  - {name: web, import_path: 'web:app'}\n"
COMMAND = [str(Path(sys.executable).parent / "serveconf")]


def main(rounds: int) -> None:
    """Run, and print a table."""
    compileall.compile_dir(Path(serveconf.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "serve.yaml"
        spec.write_text(SPEC)
        commands = {
            "python -c 'import pydantic, yaml, httpx'": [sys.executable, "-c", "import pydantic, yaml, httpx"],
            "serveconf --help": [*COMMAND, "--help"],
            "serveconf validate FILE": [*COMMAND, "validate", str(spec)],
            "serveconf status": [*COMMAND, "status"],
            "serveconf explain num_replicas": [*COMMAND, "explain", "num_replicas"],
        }
        env = {**os.environ, "SERVECONF_HOME": folder, "SERVECONF_ADDRESS": "http://127.0.0.1:1"}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(rounds + 1):  # the first fills the caches and does not count
            for name, command in commands.items():
                took = timed(command, env)
                if number:
                    times[name].append(took)
    base = statistics.median(cpu for cpu, _ in next(iter(times.values())))
    print(f"{'':<42} CPU s  wall s  CPU ÷ import")
    for name, found in times.items():
        cpu, wall = (statistics.median(one) for one in zip(*found, strict=True))
        print(f"{name:<42} {cpu:5.3f}  {wall:6.3f}  {cpu / base:5.2f}")


def timed(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a process, its own children included."""
    before, began = children(), time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - began
    return children() - before, wall


def children() -> float:
    """CPU seconds of all processes that have ended, to the microsecond."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
