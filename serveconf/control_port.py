"""Where the control API is, and that no spec's proxies want the same port: said at the line, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serveconf.errors import AuthorError
from serveconf.local_ray import Tell
from serveconf.proxy.ports import port_is_free
from serveconf.spec.problems import SpecInvalid

if TYPE_CHECKING:
    from serveconf.spec.said import Said

DEFAULT_PORT = 8001
DEFAULT_ADDRESS = f"http://127.0.0.1:{DEFAULT_PORT}"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_TRIED = 20  # ports, the default among them


def control_place(address: str) -> tuple[str, int]:
    """Host and port of the control API at that address. Raises AuthorError where it is none."""
    try:
        url = urlsplit(address)
        return url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else DEFAULT_PORT)
    except ValueError as error:
        raise AuthorError(
            f"{address} is no address of a control API: {error}", hint=f"such as {DEFAULT_ADDRESS}"
        ) from error


def choose_control_place(http: tuple[str, int] | None, tell: Tell) -> tuple[str, int]:
    """Where the control API may start when nobody said where: at the default port, or at the next one that is free and
    that the proxies (``http``: their host and port) do not want.
    """
    host, default = control_place(DEFAULT_ADDRESS)
    wanted = None if http is None else http[1]
    near = (port for port in range(default, default + MOST_TRIED) if port != wanted and port_is_free(host, port))
    port = next(near, default)
    if port != default:
        why = "is the spec's own (http_options.port)" if default == wanted else "is taken"
        tell(f"port {default} {why}: the control API starts at port {port}")
    return host, port


def check_apart(loaded: Said, address: str) -> None:
    """Raises SpecInvalid where the spec's proxies would want the port of the control API at ``address``."""
    host, port = control_place(address)
    if host not in LOOPBACK or loaded.front is None or loaded.front[1] != port:
        return
    hint = "choose another one here, or start the control API elsewhere: serveconf --address http://127.0.0.1:PORT"
    problem = loaded.problem("http_options.port", f"port {port} is the control API's", "port_conflict", hint)
    raise SpecInvalid((problem,), loaded.files)
