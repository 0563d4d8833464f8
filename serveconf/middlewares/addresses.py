"""``IpAllowList``: only some addresses may come in. The client is whom the server believes it is (``forwarded_allow_ips``)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from serveconf.middlewares.answers import KINDS, answer, client_of

_MEMORY = 4096


class IpAllowList:
    """403 for whoever is in none of ``allow``, or in one of ``deny``: addresses and networks, IPv4 and IPv6."""

    def __init__(self, app: ASGIApp, allow: Iterable[str], *, deny: Iterable[str] = ()) -> None:
        self.app = app
        self._allowed = [ip_network(text, strict=False) for text in _texts(allow)]
        self._denied = [ip_network(text, strict=False) for text in _texts(deny)]
        self._verdicts: dict[str, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in KINDS and not self._may_enter(client_of(scope)):
            await answer(scope, receive, send, 403, "Not from this address")
            return
        await self.app(scope, receive, send)

    def _may_enter(self, client: str) -> bool:
        verdict = self._verdicts.get(client)
        if verdict is None:
            if len(self._verdicts) >= _MEMORY:
                self._verdicts.clear()
            verdict = self._verdicts[client] = self._judge(client)
        return verdict

    def _judge(self, client: str) -> bool:
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:  # no address at all, such as a unix socket's peer
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        return any(address in one for one in self._allowed) and not any(address in one for one in self._denied)


def _texts(values: Iterable[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)
