"""Who keeps an HTTP/1.1 connection waiting for too long: looked at about once a second, for all connections in turn.

``HttpProtocol`` says on what it waits; ``clocks`` says for how long. A client that takes nothing is cut, whatever else the
connection waits for: bytes that never leave hold an answer, a request's slot, and a connection that is to be closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serveconf.proxy.clocks import Stall, Wait, is_gone, seconds_for, taken_by
from serveconf.proxy.rules import Refused
from serveconf.proxy.tally import Reason

if TYPE_CHECKING:
    from serveconf.proxy.protocol import HttpProtocol


class Clocks:
    """Of one connection. Made when it is looked at for the first time: most of them are gone by then."""

    __slots__ = ("_body", "_taken")

    def __init__(self) -> None:
        self._taken = Stall()
        self._body = Stall()

    def sweep(self, connection: HttpProtocol, now: float) -> None:
        """End what has come to its deadline."""
        edge = connection.edge
        taken = taken_by(connection.transport, connection.writable is not None)
        if taken is not None and self._taken.seconds(taken, now) >= seconds_for(Wait.TAKE, edge):
            connection.give_up(Reason.TOO_SLOW)
        elif connection.is_read_paused and is_gone(connection.transport):
            connection.transport.abort()
        elif connection.awaits is not None:
            if now - connection.since >= seconds_for(connection.awaits, edge):
                if connection.awaits is Wait.HEAD and connection.head.is_open:
                    connection.refuse(Refused(408, "The request did not come in time"))
                else:
                    connection.transport.close()
        elif connection.reading is not None:
            self._sweep_body(connection, now)

    def _sweep_body(self, connection: HttpProtocol, now: float) -> None:
        exchange = connection.reading
        assert exchange is not None
        is_our_turn = connection.is_read_paused or exchange.expects_continue  # the app has not asked for more
        progress = (exchange.trail.began, None if is_our_turn else exchange.body_total)
        stalled_s = self._body.seconds(progress, now)
        if not is_our_turn and stalled_s >= seconds_for(Wait.BODY, connection.edge):
            exchange.trail.reason = Reason.TOO_SLOW
            connection.refuse(Refused(408, "The request body did not come in time"))
