"""Have code looked at in a throw-away process (``serveconf.ingress.inspect``): import it there, and only there.

The preflight, ``validate --import`` and the plan without a cluster ask through here. Imports nothing heavy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SPARE_S = 15.0  # for the child's own start and end

Asked = dict[str, Any]


def look_at_code(
    *, code_dir: str | None, cwd: str | None, targets: list[Asked], middlewares: list[Asked], timeout_s: float
) -> dict[str, list[dict[str, Any]]]:
    """``{"targets": […], "middlewares": […]}``: a report for each, in the given order. ``timeout_s``: for each of them.

    A child that ends without a readable answer, or not in time, is reported for all of them.
    """
    number = len(targets) + len(middlewares)
    question = {
        "code_dir": code_dir, "cwd": cwd, "targets": targets, "middlewares": middlewares, "timeout_s": timeout_s,
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "serveconf.ingress.inspect"],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=timeout_s * number + SPARE_S,
            cwd="/",
            check=False,
        )
        found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
        return found
    except subprocess.TimeoutExpired:
        reason = f"the import took longer than {timeout_s:g} s"
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        reason = f"the process that imports ended with code {done.returncode}: {last[0]}"
    failed = {"ok": False, "error": reason}
    return {"targets": [failed for _ in targets], "middlewares": [failed for _ in middlewares]}
