"""``python -m serveconf.ingress.policy CODE_DIR MODULE:FUNCTION``: a scaling policy of the user's, in a process of its own.

One JSON object on a line of stdin (``ScalingContext``'s fields), one on a line of stdout: ``{"number": 3}``, or
``{"error": "…"}``. The function's own output goes to stderr. The process ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from serveconf.errors import AuthorError, CodeFailed
from serveconf.ingress.failures import describe
from serveconf.ingress.importing import import_target
from serveconf.runtime.scaling import ScalingContext


def answer(policy: Callable[[ScalingContext], Any], context: ScalingContext) -> dict[str, Any]:
    """What the policy says of this load, or what it failed of."""
    try:
        number = policy(context)
        if inspect.iscoroutine(number):
            number = asyncio.run(number)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return {"error": describe(error)}
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        return {"error": f"it answered {number!r}, which is no number of replicas"}
    return {"number": number}


def main() -> None:
    code_dir, import_path = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the user prints is no answer
    policy: Any = None
    failure = ""
    try:
        policy = import_target(import_path, Path(code_dir) if code_dir else None)
        if not callable(policy):
            failure = f"{import_path} is not callable"
    except (AuthorError, CodeFailed) as error:
        failure = error.message
    for line in sys.stdin:
        context = msgspec.json.decode(line, type=ScalingContext)
        said = {"error": failure} if failure else answer(policy, context)
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
