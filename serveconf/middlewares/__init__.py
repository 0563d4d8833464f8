"""Guards at the door: ready-made middlewares, named in YAML by ``serveconf.middlewares:NAME`` like any other.

Pure ASGI; nothing here knows of proxies or Ray, so they work around any ASGI app. What they count and remember lives in
the process that runs them. Each is imported when it is asked for: some need an extra (``pip install 'serveconf[guards]'``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serveconf.middlewares.addresses import IpAllowList
    from serveconf.middlewares.breaker import CircuitBreaker
    from serveconf.middlewares.compress import Compress
    from serveconf.middlewares.keys import ApiKey, BasicAuth
    from serveconf.middlewares.paths import Redirect, StripPrefix
    from serveconf.middlewares.rate import RateLimit
    from serveconf.middlewares.repeat import Retry
    from serveconf.middlewares.security import SecurityHeaders
    from serveconf.middlewares.size import RequestSizeAndTime
    from serveconf.middlewares.tokens import JWT

__all__ = [
    "JWT",
    "ApiKey",
    "BasicAuth",
    "CircuitBreaker",
    "Compress",
    "IpAllowList",
    "RateLimit",
    "Redirect",
    "RequestSizeAndTime",
    "Retry",
    "SecurityHeaders",
    "StripPrefix",
]

_MODULES = {
    "ApiKey": "keys",
    "BasicAuth": "keys",
    "CircuitBreaker": "breaker",
    "Compress": "compress",
    "IpAllowList": "addresses",
    "JWT": "tokens",
    "RateLimit": "rate",
    "Redirect": "paths",
    "RequestSizeAndTime": "size",
    "Retry": "repeat",
    "SecurityHeaders": "security",
    "StripPrefix": "paths",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
