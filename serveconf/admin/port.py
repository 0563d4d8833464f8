"""What to say when the control API's port is taken. Apart from the server, so that the commands can say it too."""

from __future__ import annotations

from serveconf.errors import PortInUse
from serveconf.proxy.ports import find_listener


def control_port_in_use(host: str, port: int) -> PortInUse:
    """The error that names the control API's port, who has it, and how to choose another."""
    who = find_listener(port)
    by = f" by {who}" if who else ""
    return PortInUse(
        f"port {port} on {host} (control API) is taken{by}",
        hint="stop that program, or choose another port with --address http://127.0.0.1:PORT or SERVECONF_ADDRESS",
    )
