"""``python -m serveconf.cluster.bootstrap HOST PORT``: connect to Ray, find or start the controller.

The commands run it as a child, so that they need not import Ray. It imports while Ray may still be starting, then reads
one JSON line, Ray's address and the port that the proxies will want, and prints one: address and token, or error. Who has
read that need not wait for its end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, TextIO

from serveconf.cluster.controller import find_controller, start_controller
from serveconf.cluster.ray_session import asks_for_no_token, connect, disconnect, take_token
from serveconf.cluster.settings import ControllerSettings
from serveconf.errors import OperatorError, ServeconfError
from serveconf.proxy.ports import port_in_use, port_is_free

LET_GO_S = 10.0  # for Ray, which may be ending itself
TOKEN_HINT = "if the cluster asks for a token, set RAY_AUTH_MODE=token as it was set where the cluster was started"


def _code_bytes() -> int | None:
    """What ``SERVECONF_CODE_MB`` says of the store's budget for code packages."""
    said = os.environ.get("SERVECONF_CODE_MB", "")
    if said and not said.isdecimal():
        raise OperatorError(f"SERVECONF_CODE_MB is a number of megabytes, not '{said}'")
    return int(said) * 1_000_000 or None if said else None


def main(answer: TextIO) -> None:
    """Write there where the control API is."""
    host, port = sys.argv[1:3]
    line = sys.stdin.readline()
    if not line:  # whoever started it has given up
        return
    asked = json.loads(line)
    ray_address, http = asked["ray"], asked["http"]
    told: dict[str, Any]
    take_token()
    try:
        connect(ray_address, hint=TOKEN_HINT)
        started = find_controller() is None
        if started and http is not None and not port_is_free(*http):
            raise port_in_use(*http)
        address = start_controller(ControllerSettings(host=host, port=int(port), code_bytes=_code_bytes()))
        told = {"address": address.url, "token": address.token, "started": started, "open": asks_for_no_token()}
    except ServeconfError as error:
        told = {"error": error.message, "hint": error.hint or "", "code": error.code}
    print(json.dumps(told), file=answer, flush=True)
    limit = threading.Timer(LET_GO_S, os._exit, (0,))  # nobody may be there any more who would end it
    limit.daemon = True
    limit.start()
    disconnect()
    limit.cancel()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # whatever else is printed here is no answer
        main(answer)
