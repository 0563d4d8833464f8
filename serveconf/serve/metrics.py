"""``serve.metrics``: metrics of an app's own, on the control API's ``/metrics`` beside ours.

from serveconf import serve

tokens = serve.metrics.Counter("tokens", description="Tokens that were made.", tag_keys=("model",))
tokens.inc(12, tags={"model": "small"})
"""

from __future__ import annotations

from serveconf.own_metrics import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
