"""This process as a driver of a Ray cluster: it connects, and lets go."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError

from serveconf.cluster.settings import NAMESPACE
from serveconf.errors import OperatorError


def connect(address: str, *, hint: str) -> None:
    """Connect this process to a cluster. Raises OperatorError, with ``hint``, where that can't be done."""
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise OperatorError(f"Ray at {address} can't be used: {error}", hint=hint, code="ray_unreachable") from error


def disconnect() -> None:
    """Let go of the cluster: sooner than Ray does at the end of a process, where it waits for what its workers may yet print."""
    ray.shutdown()


def asks_for_no_token() -> bool:
    """Whether the cluster that we are connected to has asked for no token."""
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:  # a Ray that knows no tokens
        return True
    return not is_token_auth_enabled()


def take_token() -> None:
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
