"""``python -m serveconf.cluster.bootstrap HOST PORT``: connect to Ray, find or start the controller.

The commands run it as a child, so that they need not import Ray. It imports while Ray may still be starting, then reads
one JSON line, Ray's address and the port that the proxies will want, and prints one: address and token, or error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import ray

from serveconf.cluster.controller import find_controller, start_controller
from serveconf.cluster.settings import NAMESPACE, ControllerSettings
from serveconf.errors import ServeconfError
from serveconf.proxy.ports import port_in_use, port_is_free

TOKEN_HINT = "if the cluster asks for a token, set RAY_AUTH_MODE=token as it was set where the cluster was started"


def main() -> None:
    """Print where the control API is."""
    host, port = sys.argv[1:3]
    line = sys.stdin.readline()
    if not line:  # whoever started it has given up
        return
    asked = json.loads(line)
    ray_address, http = asked["ray"], asked["http"]
    told: dict[str, Any]
    _take_token()
    try:
        ray.init(address=ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        started = find_controller() is None
        if started and http is not None and not port_is_free(*http):
            raise port_in_use(*http)
        address = start_controller(ControllerSettings(host=host, port=int(port)))
        told = {"address": address.url, "token": address.token, "started": started, "open": _is_open()}
    except ServeconfError as error:
        told = {"error": error.message, "hint": error.hint or "", "code": error.code}
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        told = {"error": f"Ray at {ray_address} can't be used: {error}", "code": "ray_unreachable", "hint": TOKEN_HINT}
    print(json.dumps(told), flush=True)


def _is_open() -> bool:
    """Whether the cluster that we are connected to has asked for no token."""
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:  # a Ray that knows no tokens
        return True
    return not is_token_auth_enabled()


def _take_token() -> None:
    """A cluster of this machine asks for a token where its user has one: take it, as ray.init(address="auto") does.

    For a cluster that RAY_ADDRESS names Ray leaves that to RAY_AUTH_MODE, and so do we.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # a Ray from before tokens were taken by default
        return
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


if __name__ == "__main__":
    main()
