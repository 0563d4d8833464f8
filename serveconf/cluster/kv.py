"""The store on Ray's GCS key-value store: it lives as long as the cluster, whatever dies in it."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.experimental import internal_kv

from serveconf.cluster.settings import NAMESPACE

_SPACE = NAMESPACE.encode()


class RayStore:
    """Implements ``reconcile.ports.Store``. Calls block for about a millisecond, so they run in a thread."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        found: bytes | None = await _call(internal_kv._internal_kv_get, key.encode(), namespace=_SPACE)
        return found

    async def put(self, key: str, value: bytes) -> None:
        """Write the value."""
        await _call(internal_kv._internal_kv_put, key.encode(), value, overwrite=True, namespace=_SPACE)

    async def delete(self, key: str) -> None:
        """Forget the key."""
        await _call(internal_kv._internal_kv_del, key.encode(), namespace=_SPACE)

    async def keys(self, prefix: str) -> list[str]:
        """All keys that start so."""
        found: list[bytes] = await _call(internal_kv._internal_kv_list, prefix.encode(), namespace=_SPACE)
        return sorted(key.decode() for key in found)


async def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(function, *args, **kwargs)
