"""What every actor of one cluster is told at its start, and the names under which Ray knows them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from serveconf.private import ours_in, own_folder

NAMESPACE = "serveconf"
CONTROLLER = "controller"
REPLICA_PREFIX = "replica:"
PROXY_PREFIX = "proxy:"
STANDBY_PREFIX = "standby:"
HEAD_RESOURCE = "node:__internal_head__"


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's identity. ``secret`` is what proxies and replicas prove to each other that they know."""

    cluster_id: str
    secret: bytes


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control API listens, and what the controller may keep."""

    host: str = "127.0.0.1"
    port: int = 8001
    code_bytes: int | None = None  # of code packages; None: as ``Packages`` has it


class ControllerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control API is, or why there is none."""

    url: str = ""
    token: str = ""
    pid: int = 0
    error: str = ""


def node_folder(cluster_id: str) -> Path:
    """This node's folder for sockets and unpacked code, ours alone (0700). Short, because a socket's path holds 107 bytes."""
    root = own_folder(ours_in(Path(tempfile.gettempdir())))
    return own_folder(root / cluster_id)
