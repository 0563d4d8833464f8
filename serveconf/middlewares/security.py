"""``SecurityHeaders``: the fields that a browser should hear from every site, where the app does not say them itself."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serveconf.middlewares.answers import token


class SecurityHeaders:
    """Adds what the app's answer lacks; None leaves a field out. ``hsts_s`` is only said over HTTPS (RFC 6797 §7.2)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hsts_s: int | None = 31_536_000,
        frame_options: str | None = "DENY",
        content_type_options: str | None = "nosniff",
        referrer_policy: str | None = "strict-origin-when-cross-origin",
        content_security_policy: str | None = None,
        permissions_policy: str | None = None,
        cross_origin_opener_policy: str | None = "same-origin",
    ) -> None:
        self.app = app
        said = {
            "x-frame-options": frame_options,
            "x-content-type-options": content_type_options,
            "referrer-policy": referrer_policy,
            "content-security-policy": content_security_policy,
            "permissions-policy": permissions_policy,
            "cross-origin-opener-policy": cross_origin_opener_policy,
        }
        self._plain = [(token(name), value.encode("latin-1")) for name, value in said.items() if value is not None]
        hsts = [] if hsts_s is None else [(b"strict-transport-security", b"max-age=%d; includeSubDomains" % hsts_s)]
        self._secure = self._plain + hsts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fields = self._secure if scope["scheme"] == "https" else self._plain

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                said = {name.lower() for name, _ in headers}
                message["headers"] = headers + [field for field in fields if field[0] not in said]
            await send(message)

        await self.app(scope, receive, adding)
