"""This process's tie to the control API: found or started once, and what has to go when the process ends.

Where the process is connected to Ray, the controller of that cluster is meant; else the one that the commands find.
"""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serveconf.client import Client, author
from serveconf.cluster.here import connected_to, control_api
from serveconf.errors import AuthorError, CodeFailed, Conflict, InternalError, OperatorError, ServeconfError
from serveconf.home import Record, read_record, write_record
from serveconf.ingress.importing import is_importing
from serveconf.launch import Found, find_or_start, shut_down, start
from serveconf.submit import follow

if TYPE_CHECKING:
    from serveconf.spec.load import Loaded

STACK = "default"  # the one that Python deployments are in


@dataclass(kw_only=True)
class Session:
    """A connection. What is in ``deployed`` goes with this process unless it is ``detached``."""

    client: Client
    ray: str | None  # the cluster that this process was connected to
    started: bool = False  # by this process
    detached: bool = True
    deployed: set[str] = field(default_factory=set)
    applications: set[str] = field(default_factory=set)  # names of stacks


_session: Session | None = None


def session(http: tuple[str, int] | None = None) -> Session:
    """The session; one that has gone is made again. ``http``: host and port that proxies will want, looked at before a start."""
    global _session
    if is_importing():  # an apply that waits for an apply of the same stack would wait for ever
        raise AuthorError(
            "the module calls serve.start() or .deploy() while it is imported to be served",
            hint='put those calls below if __name__ == "__main__":',
        )
    known = _session
    ray = connected_to()
    if known is None or known.ray != ray or not known.client.healthy():
        if known is not None:
            known.client.close()
        found = _find(ray, http)
        _session = known = Session(client=found.client, ray=ray, started=found.started)
    return known


def _find(ray: str | None, http: tuple[str, int] | None) -> Found:
    address, token = os.environ.get("SERVECONF_ADDRESS") or None, os.environ.get("SERVECONF_TOKEN") or None
    if ray is None:
        return find_or_start(address, token, http=http, tell=tell)
    api = control_api()
    if api is None:
        return start(address, ray, http=http, tell=tell)
    url, token = api
    record = read_record()
    if (record.address, record.token) != api:
        write_record(Record(address=url, token=token, ray=record.ray))  # so that the commands find it too
    return Found(client=Client(url, token))


def stop() -> bool:
    """Stop everything, as the command does. False where nothing was running."""
    global _session
    known, _session = _session, None
    address = os.environ.get("SERVECONF_ADDRESS") or None
    token = os.environ.get("SERVECONF_TOKEN") or None
    if known is not None:
        address, token = known.client.address, known.client.token
        known.client.close()
    return shut_down(address, token, tell)


def change(verb: str, body: dict[str, Any], stack: str = STACK) -> dict[str, Any]:
    """Begin a change and wait for its end; its result. Raises what went wrong."""
    client = session().client
    operation = client.begin(stack, verb, {"author": author(), "source": source(), **body})
    return finished(client, operation)


def finished(client: Client, operation: str, loaded: Loaded | None = None) -> dict[str, Any]:
    """The result of what was begun, at its end. A Ctrl-C takes it back, where it has not switched yet."""
    try:
        return checked(follow(client, operation, lambda event: None, loaded))
    except KeyboardInterrupt:
        try:
            message = client.cancel(operation)["message"]
        except ServeconfError as error:
            message = error.message
        tell(f"interrupted: {message}")
        raise


def checked(result: dict[str, Any]) -> dict[str, Any]:
    """The result of an apply that came to a good end; else the error that it tells of, the user's traceback as its note."""
    if result["outcome"] in ("applied", "unchanged"):
        return result
    first = next(iter(result["problems"]), {"message": f"the change ended: {result['outcome']}", "code": "internal"})
    message, hint = "\n".join(p["message"] for p in result["problems"]) or first["message"], first.get("hint")
    error = _error(result["outcome"], first, message, hint)
    for problem in result["problems"]:
        if problem.get("traceback"):
            error.add_note(f"\n{problem.get('deployment') or problem['path']}:\n{problem['traceback'].rstrip()}")
    raise error


def _error(outcome: str, first: dict[str, Any], message: str, hint: str | None) -> ServeconfError:
    if outcome == "conflict":
        return Conflict(message, hint=hint, code=first["code"])
    if outcome == "timeout":
        return OperatorError(message, hint=hint, code=first["code"])
    if first["code"] == "internal":
        return InternalError(message, hint=hint)
    if first.get("traceback") or first["code"] == "code_failed":
        return CodeFailed(message, traceback=first.get("traceback", ""), hint=hint)
    return AuthorError(message, hint=hint, code=first["code"])


def source() -> str:
    """What applies: the script's file."""
    return getattr(sys.modules["__main__"], "__file__", None) or "<python>"


def tell(message: str) -> None:
    """Progress: to stderr."""
    print(f"serveconf: {message}", file=sys.stderr, flush=True)


@atexit.register
def _end() -> None:
    """What was not to outlive this process goes with it."""
    known = _session
    if known is None or known.detached or not (known.started or known.deployed or known.applications):
        return
    try:
        if known.started:
            stop()
            return
        for name in sorted(known.applications):
            change("delete", {}, name)
        if known.deployed and STACK not in known.applications:
            change("delete", {"deployments": sorted(known.deployed)})
    except ServeconfError as error:
        tell(f"could not clean up: {error.message}")
