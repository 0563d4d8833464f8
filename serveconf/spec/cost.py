"""What a change costs: each field of the spec says it, and each line of a plan. Who shows a plan needs no models for that."""

from __future__ import annotations

from enum import StrEnum


class Cost(StrEnum):
    """What a change costs the traffic, cheapest first."""

    NONE = "none"  # nothing that runs is touched
    ROUTE = "route"  # a new generation of the routing table; no replica restarts
    RECONFIGURE = "reconfigure"  # reconfigure(user_config) on live replicas
    SCALE = "scale"  # replicas are added or drained
    ROLL = "roll"  # replicas are replaced, new before old
    PROXY = "proxy"  # listeners are replaced, new before old
    REMOVE = "remove"  # a deployment is drained and taken away
