"""How long the quickstart takes from nothing, what the light commands take, and what the processes weigh.

    python benchmarks/startup.py [--rounds N]

Each round starts Ray alone (for its own figure) and then the quickstart by ``apply`` and by ``run``, each from nothing, in
turn. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from serveconf.home import home_folder
from serveconf.local_ray import READY, free_port, start_local_ray, stop_local_ray

ROOT = Path(__file__).parent.parent
SERVECONF = str(Path(sys.executable).parent / "serveconf")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for measure in (time_ray, measure_apply, measure_run):
            with tempfile.TemporaryDirectory(prefix="sc") as folder:
                os.environ |= {"SERVECONF_HOME": f"{folder}/h", "RAY_TMPDIR": folder}
                os.environ["SERVECONF_ADDRESS"] = f"http://127.0.0.1:{free_port()}"
                for name, value in measure(Path(folder)).items():
                    figures.setdefault(name, []).append(value)
    for name, values in figures.items():
        print(f"{name:48} {statistics.median(values):8.2f}")


def time_ray(_: Path) -> dict[str, float]:
    """What Ray itself takes."""
    began = time.monotonic()
    ray = start_local_ray(lambda message: None)
    took = time.monotonic() - began
    stop_local_ray(ray)
    return {"Ray alone, started (s)": took}


def measure_apply(folder: Path) -> dict[str, float]:
    """One quickstart from nothing, and what the commands take beside it."""
    try:
        apply, file, figures = start("apply", folder)
        apply.wait()
        for command in (["validate", str(file)], ["status"], ["--help"], ["apply", str(file)]):
            figures[f"{command[0]}, the whole command (s)"] = time_command(command)
        return figures | weigh()
    finally:
        subprocess.run([SERVECONF, "shutdown"], check=True, capture_output=True)


def measure_run(folder: Path) -> dict[str, float]:
    """The same by the command of the README; and what it takes to end."""
    run, _, figures = start("run", folder)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    run.wait()
    return figures | {"run, from the signal to its end (s)": time.monotonic() - began}


def start(verb: str, folder: Path) -> tuple[subprocess.Popen[bytes], Path, dict[str, float]]:
    """The command, at work or at its end, the spec that it was given, and when it served."""
    port = free_port()
    spec = folder / "quickstart"
    subprocess.run(["cp", "-r", str(ROOT / "examples/configs/quickstart"), str(spec)], check=True)
    file = spec / "serve.yaml"
    file.write_text(file.read_text().replace("8000", str(port)))
    began = time.monotonic()
    command = subprocess.Popen([SERVECONF, verb, str(file)], stderr=subprocess.DEVNULL)
    try:
        wait_for_ray(home_folder() / "ray.log")
        ray_is_up = time.monotonic()
        wait_for(f"http://127.0.0.1:{port}/hello")
    except BaseException:
        command.terminate()
        command.wait()
        raise
    served = time.monotonic()
    figures = {
        f"{verb}, to the first 200 (s)": served - began,
        f"{verb}, from Ray's being up to the first 200 (s)": served - ray_is_up,
    }
    return command, file, figures


def wait_for_ray(log: Path) -> None:
    """Return when it says that it runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and READY in log.read_text(errors="replace"):
            return
        time.sleep(0.02)
    raise TimeoutError(log)


def wait_for(address: str) -> None:
    """Return at the first 200."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise TimeoutError(address)


def time_command(command: list[str]) -> float:
    """Seconds of one run of serveconf, after one that is not counted."""
    for _ in range(2):
        began = time.monotonic()
        subprocess.run([SERVECONF, *command], check=True, capture_output=True)
        took = time.monotonic() - began
    return took


def weigh() -> dict[str, float]:
    """Resident memory of each kind of process, in MB; of several the largest."""
    told = subprocess.run([SERVECONF, "status", "-o", "json"], check=True, capture_output=True)
    status = json.loads(told.stdout)
    processes = {
        "controller": [status["controller"]],
        "proxy": status["proxies"],
        "replica": [r for stack in status["stacks"] for d in stack["deployments"] for r in d["replicas"]],
        "standby": status["standbys"],
    }
    return {
        f"{kind}, resident (MB)": max(psutil.Process(one["pid"]).memory_info().rss for one in found) / 1e6
        for kind, found in processes.items()
        if found
    }


if __name__ == "__main__":
    main()
