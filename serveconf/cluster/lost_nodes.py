"""What runs on nodes that are out of reach, as handles: ``ActorCluster`` says of which nodes.

Replicas are lost: others take their place. A proxy has its place there and nowhere else; while nobody reaches it, it is adrift: neither
shown nor ended, and when its node answers again it is there again, with its listener, its table and its connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from serveconf.cluster.handle import Handle
from serveconf.plan.state import ProxyState

NODE_LOST = "its node is out of reach"


def lose(handles: Iterable[Handle[Any]], lost: Collection[str]) -> None:
    """Nobody waits for the engine to say that what ran on a lost node is dead."""
    for handle in handles:
        if handle.state.node_id in lost and handle.state.message != NODE_LOST:
            handle.lose(NODE_LOST)


def is_adrift(proxy: ProxyState, lost: Collection[str]) -> bool:
    """Whether it may serve on where we do not reach it."""
    return proxy.message == NODE_LOST and proxy.node_id in lost


def find_again(proxies: Iterable[Handle[ProxyState]], there: Collection[str]) -> None:
    """Those whose node is among those that are ``there`` are looked after again."""
    for proxy in proxies:
        if proxy.state.message == NODE_LOST and proxy.state.node_id in there:
            proxy.find_again()


async def end_adrift(proxies: Iterable[Handle[ProxyState]], lost: Collection[str]) -> None:
    """When the cluster ends: they end as soon as they are reached."""
    ends = [proxy.end_now() for proxy in proxies if is_adrift(proxy.state, lost)]
    await asyncio.gather(*ends, return_exceptions=True)
