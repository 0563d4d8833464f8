"""The door of the Ray that the product starts: who is refused, what listens where, and what its apps see of the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Stack
from place import COMMAND_S, FOREIGN, MARKER, Place, ask

from serveconf.ray_env import MARK

SEES = """
    import os
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    def see() -> dict:
        return dict(os.environ)
    """
# asks the cluster's store for all that serveconf keeps in it
ASKS = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", b"serveconf", timeout=10)), "keys")
"""


@pytest.fixture(scope="module")
def ray(place: Place) -> str:
    """The address of its Ray."""
    record = json.loads((place.root / "home/cluster.json").read_text())
    return str(record["ray"]["address"])


def ask_ray(address: str, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", ASKS, address], env=env, capture_output=True, text=True, timeout=COMMAND_S
    )
    return done.returncode, done.stdout + done.stderr


def test_a_process_with_an_empty_environment_is_refused_and_one_of_ours_is_not(place: Place, ray: str) -> None:
    refused, said = ask_ray(ray, {})
    assert (refused, "token" in said.splitlines()[-1]) == (1, True), said
    token = str(place.root / "home/ray_token")
    taken, said = ask_ray(ray, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token})
    assert (taken, said.split()[-1]) == (0, "keys")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_listens_but_on_loopback(place: Place, keeper: Path) -> None:
    sockets = {inode for line in place.processes() for inode in inodes(line.split()[0])}
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [line.split() for table in tables for line in table]
    ours = {row[1].rpartition(":")[0] for row in rows if row[9] in sockets and row[3] in ("0A", "07")}
    assert ours  # the proxy, the control API, Ray's own
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert ours <= loopback


def inodes(pid: str) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # closed by now
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def test_an_app_sees_nothing_of_the_shell_that_is_none_of_its_business(stack: Stack) -> None:
    stack.code("sees", SEES)
    stack.spec("name: sees, import_path: 'sees:app', route_prefix: /$/sees")
    stack.apply()
    status, text = ask(f"{stack.url}/sees/")
    seen = json.loads(text)
    assert status == 200
    assert FOREIGN not in seen
    assert {name for name in seen if name.startswith("SERVECONF_")} == {MARK, MARKER}
    assert "RAY_AUTH_TOKEN" not in seen


def test_a_private_folder_holds_rays_sockets_and_logs(place: Place) -> None:
    (folder,) = place.root.glob("serveconf-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ray/session_latest").exists()
    assert not (place.root / "ray").exists()
