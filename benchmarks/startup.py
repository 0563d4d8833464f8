"""How long the quickstart takes from nothing, what the light commands take, and what the processes weigh.

    python benchmarks/startup.py [--rounds N]

Each round starts Ray alone (for its own figure) and then the quickstart, both from nothing, in turn. Medians.
"""

from __future__ import annotations

import argparse
import os
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
        with tempfile.TemporaryDirectory(prefix="sc") as folder:
            os.environ |= {"SERVECONF_HOME": f"{folder}/h", "RAY_TMPDIR": folder}
            os.environ["SERVECONF_ADDRESS"] = f"http://127.0.0.1:{free_port()}"
            figures.setdefault("Ray alone, started (s)", []).append(time_ray())
            for name, value in measure(Path(folder)).items():
                figures.setdefault(name, []).append(value)
    for name, values in figures.items():
        print(f"{name:48} {statistics.median(values):8.2f}")
    beyond = [
        a - r for a, r in zip(figures["apply, to the first 200 (s)"], figures["Ray alone, started (s)"], strict=True)
    ]
    print(f"{'beyond Ray, apply to the first 200 (s)':48} {statistics.median(beyond):8.2f}")


def time_ray() -> float:
    """Seconds that Ray itself takes."""
    began = time.monotonic()
    ray = start_local_ray(lambda message: None)
    took = time.monotonic() - began
    stop_local_ray(ray)
    (home_folder() / "ray.log").unlink()
    return took


def measure(folder: Path) -> dict[str, float]:
    """One quickstart from nothing."""
    port = free_port()
    spec = folder / "quickstart"
    subprocess.run(["cp", "-r", str(ROOT / "examples/configs/quickstart"), str(spec)], check=True)
    file = spec / "serve.yaml"
    file.write_text(file.read_text().replace("8000", str(port)))
    before = {process.pid for process in psutil.process_iter()}
    began = time.monotonic()
    apply = subprocess.Popen([SERVECONF, "apply", str(file)], stderr=subprocess.DEVNULL)
    figures = {}
    try:
        wait_for_ray(home_folder() / "ray.log")
        ray_is_up = time.monotonic()
        wait_for(f"http://127.0.0.1:{port}/hello")
        figures["apply, to the first 200 (s)"] = time.monotonic() - began
        figures["Ray up to the first 200 (s)"] = time.monotonic() - ray_is_up
        apply.wait()
        for command in (["validate", str(file)], ["status"], ["--help"], ["apply", str(file)]):
            figures[f"{command[0]}, the whole command (s)"] = time_command(command)
        figures |= weigh(before)
    finally:
        apply.wait()
        subprocess.run([SERVECONF, "shutdown"], check=True, capture_output=True)
    return figures


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


def weigh(before: set[int]) -> dict[str, float]:
    """Resident memory of each kind of process that has come since, in MB; of several the largest."""
    weights: dict[str, float] = {}
    for process in psutil.process_iter(["pid", "cmdline", "memory_info"]):
        title = " ".join(process.info["cmdline"] or [])
        if process.pid in before or not title.startswith("ray::"):
            continue
        for kind in ("Replica", "Proxy", "Controller"):
            if title.startswith(f"ray::{kind}Actor"):
                name = f"{kind.lower()}, resident (MB)"
                weights[name] = max(weights.get(name, 0.0), process.info["memory_info"].rss / 1e6)
    return weights


if __name__ == "__main__":
    main()
