"""Spans: what was done for one request, where and for how long, in a form that OpenTelemetry's tools read.

``span`` is a span while its request runs, with the W3C headers that chain processes, ``http`` the names of
OpenTelemetry's HTTP conventions, ``outlet`` the way out. None of them imports OpenTelemetry before there is a span to send.
"""

from serveconf.tracing.http import NO_METHOD, method_of, request_attributes
from serveconf.tracing.outlet import MISSING, MISSING_HINT, Outlet, is_installed
from serveconf.tracing.span import CARRIED, Kind, Parent, Span, chained, new_span, parent_of
from serveconf.tracing.users import enter, within_users

__all__ = [
    "CARRIED",
    "MISSING",
    "MISSING_HINT",
    "NO_METHOD",
    "Kind",
    "Outlet",
    "Parent",
    "Span",
    "chained",
    "enter",
    "is_installed",
    "method_of",
    "new_span",
    "parent_of",
    "request_attributes",
    "within_users",
]
