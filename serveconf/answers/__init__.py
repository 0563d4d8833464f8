"""What stands behind each code of a problem, an error, or an answer of the proxy: its cause, and what cures it.

For ``serveconf explain CODE`` and the docs page "Errors". Pure data: every code that the project can show is here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from serveconf.answers.of_commands import COMMAND
from serveconf.answers.of_files import FILE


class Where(StrEnum):
    """Where a code is met."""

    FILE = "problems of spec files"
    COMMAND = "errors of commands and applies"
    ANSWER = "answers that the proxy makes itself"
    CALL = "calls by handle"


class Answer(NamedTuple):
    """One code in words."""

    where: Where
    cause: str
    cure: str


_ANSWER: dict[str, tuple[str, str]] = {
    "400": ("The request is malformed HTTP.", "Mend the client; the text says what is wrong."),
    "404": (
        "No route takes the path (the text names it), or the app itself has no such route.",
        "`serveconf routes --test 'GET /path'` says who would take it; the app sees the full path with its prefix as root_path.",
    ),
    "405": (
        "A route takes the path, but not the method.",
        "`Allow` lists the methods; `serveconf routes --test` explains.",
    ),
    "408": ("The client sent too slowly.", "Raise http_options.body_timeout_s for slow uploads."),
    "413": ("The body is larger than http_options.max_request_body_bytes.", "Raise it, or send less."),
    "414": (
        "Path and query are longer than http_options.max_request_target_bytes.",
        "Raise it, or send the data in a body.",
    ),
    "417": ("Only `Expect: 100-continue` is known.", "Mend the client."),
    "431": (
        "The header fields are too large or too many.",
        "Often cookies; else raise max_request_field_bytes, max_request_fields or max_request_head_bytes.",
    ),
    "500": ("The app raised.", "`serveconf logs DEPLOYMENT` shows the traceback."),
    "501": ("A method or transfer coding that is not spoken here.", "Mend the client."),
    "502": (
        "The replica died before it answered.",
        "`serveconf events` tells why; memory is the most frequent reason.",
    ),
    "503": (
        "The queue is full (max_queued_requests), no replica is there yet, or too many connections are open.",
        "`Retry-After` says when to try again; more replicas, or autoscaling_config, take more requests.",
    ),
    "504": ("The app did not answer within request_timeout_s.", "Raise it, or make the handler faster."),
    "505": ("Only HTTP/1.1 and 1.0 are spoken in clear.", "HTTP/2 works over TLS: http_options.http2."),
}

_CALL: dict[str, tuple[str, str]] = {
    "call": ("A call by handle went wrong.", "The message says how."),
    "call_failed": ("The called method raised.", "The exception carries the traceback of the other side."),
    "no_replica": ("The called deployment has no replica that is ready.", "`serveconf status DEPLOYMENT` tells why."),
    "queue_full": ("Too many calls wait already.", "Raise max_queued_requests or the number of replicas."),
    "replica_lost": (
        "The replica ended while it worked on the call.",
        "Call again if that does no harm; `serveconf events` tells why it ended.",
    ),
}

ANSWERS: dict[str, Answer] = {
    code: Answer(where, cause, cure)
    for where, part in ((Where.FILE, FILE), (Where.COMMAND, COMMAND), (Where.ANSWER, _ANSWER), (Where.CALL, _CALL))
    for code, (cause, cure) in part.items()
}


def answer_text(code: str) -> str:
    """One code as text."""
    where, cause, cure = ANSWERS[code]
    return f"{code}\n\n  met in    {where}\n  cause     {cause}\n  cure      {cure}"


def answers_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors", "", "<!-- Written by `serveconf explain codes -o markdown`; do not edit. -->", "",
        "Every problem, every error and every answer that the proxy makes itself has a code or a status. "
        "`serveconf explain CODE` prints what is written here.",
    ]  # fmt: skip
    for where in Where:
        lines += ["", f"## {where[0].upper()}{where[1:]}"]
        for code, answer in ANSWERS.items():
            if answer.where is where:
                lines += ["", f"### `{code}`", "", answer.cause, "", f"**Cure:** {answer.cure}"]
    return "\n".join(lines) + "\n"
