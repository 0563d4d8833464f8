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

ROOT = Path(__file__).parent.parent
SETUP_S = 900


def main(command: str) -> None:
    """Clone, run, ask, stop, look."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a script's background ignores it, and what that starts too
    addresses = re.findall(r"curl (http://127\.0\.0\.1:\S+)", (ROOT / "README.md").read_text())
    assert addresses, "the README names no address to ask"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "serveconf"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {**os.environ, "SERVECONF_HOME": str(Path(folder) / "home")}
        process = subprocess.Popen(["bash", "-c", command], cwd=clone, env=environment, start_new_session=True)
        try:
            for address in addresses:
                print(address, "->", wait_for(address, process))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            code = process.wait(timeout=60)
        assert code == 0, f"the command ended with {code} after Ctrl-C"
        left = [line for line in processes() if folder in line]
        assert not left, "left running:\n" + "\n".join(left)
    print("the README's first command works and leaves nothing")


def wait_for(address: str, process: subprocess.Popen[bytes]) -> int:
    """The status of the first answer that is no 5xx."""
    deadline = time.monotonic() + SETUP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the command ended with {process.returncode}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.status
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer")


def processes() -> list[str]:
    """Command lines of all processes."""
    return subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main(sys.argv[1])
