"""``python -m serveconf.cluster.bootstrap HOST PORT``: connect to Ray, find or start the controller.

The commands run it as a child, so that they need not import Ray. It imports while Ray may still be starting, then reads
Ray's address from stdin, and prints one JSON line: address and token, or error.
"""

from __future__ import annotations

import json
import logging
import sys

import ray

from serveconf.cluster.controller import start_controller
from serveconf.cluster.settings import NAMESPACE, ControllerSettings
from serveconf.errors import ServeconfError


def main() -> None:
    """Print where the control API is."""
    host, port = sys.argv[1:3]
    ray_address = sys.stdin.readline().strip()
    if not ray_address:  # whoever started it has given up
        return
    try:
        ray.init(address=ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        address = start_controller(ControllerSettings(host=host, port=int(port)))
        told = {"address": address.url, "token": address.token}
    except ServeconfError as error:
        told = {"error": error.message, "hint": error.hint or "", "code": error.code}
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        told = {"error": f"Ray at {ray_address} can't be used: {error}", "code": "ray_unreachable"}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
