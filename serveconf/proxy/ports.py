"""Taking a TCP port, and saying clearly what stands in the way when that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path

from serveconf.errors import OperatorError, PortInUse

_SO_ATTACH_FILTER = 26  # linux/socket.h; Python has no name for it
_LISTEN = "0A"  # TCP_LISTEN as /proc/net/tcp writes it


def listen(host: str, port: int, *, reuse_port: bool = False, backlog: int = 2048) -> socket.socket:
    """A listening socket. Raises PortInUse, or OperatorError for a host or port that this process may not take.

    With ``reuse_port`` that succeeds beside any process of the same user that does so too, whoever that is: ask
    ``port_is_free`` first where nobody of ours should be there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise _not_ours(host, error) from error
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sends at once only on what says so
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _failed(host, port, error) from error
    sock.setblocking(False)
    return sock


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel drop every further SYN that comes to a listening socket; handshakes under way still complete.

    A client sends its SYN again a second later and meets whoever listens by then. Without this, a connection that
    completes between the last accept and the close is reset. Where the kernel has no socket filters it stays so.
    """
    flags, syn = 13, 0x02  # offset in the TCP header, RFC 9293 §3.1
    program = b"".join(
        (
            struct.pack("HBBI", 0x30, 0, 0, flags),  # load that byte
            struct.pack("HBBI", 0x45, 0, 1, syn),  # is the bit set?
            struct.pack("HBBI", 0x06, 0, 0, 0),  # drop
            struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF),  # keep
        )
    )
    import ctypes  # commands that look at a port need none of it

    buffer = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 4, ctypes.addressof(buffer)))


def port_is_free(host: str, port: int) -> bool:
    """Whether nobody listens there, not even one who would share the port. A host that is not ours raises OperatorError."""
    try:
        listen(host, port, backlog=1).close()
    except PortInUse:
        return False
    return True


def port_in_use(host: str, port: int) -> PortInUse:
    """The error that names the port, the program that has it where the system tells, and the key to change."""
    who = find_listener(port)
    by = f" by {who}" if who else ""
    return PortInUse(
        f"port {port} on {host} is taken{by}",
        hint="stop that program, or set http_options.port to a port that is free",
    )


def find_listener(port: int) -> str | None:
    """``program (pid 123)`` for whoever listens on a TCP port of this machine, as far as /proc lets us see."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(Path("/proc/net") / table, port)}
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in links for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
    return None


def _listening_inodes(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _failed(host: str, port: int, error: OSError) -> OperatorError:
    if error.errno == errno.EADDRINUSE:
        return port_in_use(host, port)
    if error.errno == errno.EACCES:
        return OperatorError(
            f"port {port} may not be taken by this user",
            hint="ports below 1024 are often kept for root: set http_options.port to a higher one",
        )
    return _not_ours(host, error)


def _not_ours(host: str, error: OSError) -> OperatorError:
    return OperatorError(
        f"{host} cannot be listened on: {error.strerror or error}",
        hint="set http_options.host to an address of this node, or to 0.0.0.0 for all of them",
    )
