"""Run the README's first command word for word in a fresh clone with no virtual environment, ask what it serves, stop it.

Fails where an address that the README names does not answer, where Ctrl-C does not end it with 0, or where a process
of it is left.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
SETUP_S = 1800  # a guard against what hangs, as are the others
END_S = 300
CLONE = ["git", "-c", "safe.directory=*", "clone", "--quiet"]  # whoever has checked it out
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever stands between here and pip's index


def main(command: str) -> None:
    """Clone, run, ask, stop, look."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a script's background ignores it, and what that starts too
    addresses = re.findall(r"curl (http://127\.0\.0\.1:\S+)", (ROOT / "README.md").read_text())
    assert addresses, "the README names no address to ask"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "serveconf"
        subprocess.run([*CLONE, str(ROOT), str(clone)], check=True)
        environment = {**os.environ, "SERVECONF_HOME": str(Path(folder) / "home")}
        process = subprocess.Popen(["bash", "-c", command], cwd=clone, env=environment, start_new_session=True)
        try:
            for address in addresses:
                print(address, "->", wait_for(address, process))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            code = process.wait(timeout=END_S)
        assert code == 0, f"the command ended with {code} after Ctrl-C"
        deadline = time.monotonic() + END_S
        while (left := [line for line in processes() if folder in line]) and time.monotonic() < deadline:
            time.sleep(0.5)  # who was killed is there for a moment
        assert not left, "left running:\n" + "\n".join(left)
    print("the README's first command works and leaves nothing")


def wait_for(address: str, process: subprocess.Popen[bytes]) -> int:
    """The status of the first answer that is no 5xx."""
    deadline = time.monotonic() + SETUP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the command ended with {process.returncode}"
        try:
            with DIRECTLY.open(address, timeout=30) as answer:
                return answer.status
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer")


def processes() -> list[str]:
    """Command lines of all processes."""
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]


if __name__ == "__main__":
    main(sys.argv[1])
