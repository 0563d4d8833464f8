"""An ASGI application at the other end of a socket.

A replica runs a ``WireServer``; a proxy has one ``WireClient`` per replica. Requests and answers are frames on one
connection (``frames.py`` draws them), many at a time.
"""

from serveconf.wire.buffers import raw_buffer
from serveconf.wire.client import WireClient
from serveconf.wire.client_stream import LENT, ClientStream, StreamCut, StreamLost, StreamRefused
from serveconf.wire.frames import FrameTooLarge, Limits, ProtocolError
from serveconf.wire.held import HeldModels
from serveconf.wire.lent import SENDS_FILES, LentFile
from serveconf.wire.opening import GENERATION, GENERATION_HEADER, BodyMode, body_mode
from serveconf.wire.requests import BODY_FOLLOWS, CLIENT_LEFT
from serveconf.wire.server import WireServer
from serveconf.wire.strand import Strand, need_task, park, running
from serveconf.wire.websockets import checked_close, checked_subprotocol

__all__ = [
    "BODY_FOLLOWS",
    "CLIENT_LEFT",
    "GENERATION",
    "GENERATION_HEADER",
    "LENT",
    "SENDS_FILES",
    "BodyMode",
    "ClientStream",
    "FrameTooLarge",
    "HeldModels",
    "LentFile",
    "Limits",
    "ProtocolError",
    "Strand",
    "StreamCut",
    "StreamLost",
    "StreamRefused",
    "WireClient",
    "WireServer",
    "body_mode",
    "checked_close",
    "checked_subprotocol",
    "need_task",
    "park",
    "raw_buffer",
    "running",
]
