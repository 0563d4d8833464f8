"""What a user's scaling policy is given: ``module:function(context) -> int``, named by ``autoscaling_config.policy``."""

from __future__ import annotations

import msgspec


class ScalingContext(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment's load at one moment."""

    stack: str
    deployment: str
    replicas: int
    """How many there should be by now."""
    ready: int = 0
    """How many of them take requests."""
    starting: int = 0
    ongoing: int = 0
    """Requests that run or wait."""
    queued: int = 0
    """Those of them that wait."""
    load: float = 0.0
    """Requests at a time that the target alone would be held against."""
    target_ongoing_requests: float = 2.0
    min_replicas: int = 0
    """As the schedule has it just now."""
    max_replicas: int = 1
    time: float = 0.0
    """Seconds since the epoch."""
