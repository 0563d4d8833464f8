"""This process's own connection to Ray, where it has one: the Python API uses it and makes none of its own."""

from __future__ import annotations

import sys
from typing import Any, cast

from serveconf.cluster.settings import CONTROLLER

ADDRESS_S = 60.0  # a controller that Ray restarts just now


def connected_to() -> str | None:
    """The address of the cluster that this process is connected to. Does not import Ray: who is connected has."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return cast(str, ray.get_runtime_context().gcs_address)


def control_api() -> tuple[str, str] | None:
    """URL and token of the control API of that cluster; None where no controller runs on it."""
    from serveconf.cluster.ray_engine import call_actor, find_actor

    controller = find_actor(CONTROLLER)
    if controller is None:
        return None
    address = call_actor(controller, "address", timeout_s=ADDRESS_S)
    return None if address.error else (address.url, address.token)
