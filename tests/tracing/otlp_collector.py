"""A small collector: takes OTLP over HTTP on a real port, and gives the spans as dicts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """``endpoint`` for what is watched; ``wait_for(count)`` returns when so many spans have come."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                collector._take(self.path, data)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _take(self, path: str, data: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(data)
        found = [
            as_dict(span, resource.resource)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._came:
            self.paths.add(path)
            self.spans += found
            self._came.notify_all()

    def wait_for(self, count: int, timeout_s: float = 30) -> list[dict[str, Any]]:
        until = time.monotonic() + timeout_s
        with self._came:
            while len(self.spans) < count:
                left = until - time.monotonic()
                if left <= 0 or not self._came.wait(left):
                    raise AssertionError(f"{len(self.spans)} of {count} spans came: {self.spans}")
            return list(self.spans)

    def find(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        (found,) = [span for span in self.spans if is_it(span)]
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def as_dict(span: Any, resource: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": {2: "server", 3: "client"}[span.kind],
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "ns": span.end_time_unix_nano - span.start_time_unix_nano,
        "failed": span.status.code == 2,
        "attributes": plain(span.attributes),
        "events": {event.name: plain(event.attributes) | {"at": event.time_unix_nano} for event in span.events},
        "resource": plain(resource.attributes),
    }


def plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
