"""The control API's client: what the commands and the Python API speak through. Imports no Ray."""

from __future__ import annotations

import getpass
import json
import secrets
import socket
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from serveconf.credentials import AUTHOR_HEADER, is_proof
from serveconf.errors import (
    AuthorError,
    Conflict,
    InternalError,
    NotFound,
    OperatorError,
    ServeconfError,
    Unauthorized,
    Unreachable,
)
from serveconf.http_calls import Answer, AnswerLate, AnswerLost, CallFailed, HttpCalls
from serveconf.versions import THIS, Speaker, compare

if TYPE_CHECKING:
    from serveconf.backup_file import Backup, SavedStack

ANSWER_S = 30.0
HEALTH_S = 5.0
GONE_S = 5.0  # for a controller that has had its last word
LOOK_S = 0.05
SHOWN = 300  # characters of an answer that nobody understands
BETWEEN = "what stands between here and the controller may have answered in its place"
Json = Any  # the shapes are the contract's; admin.models draws them

CODE_S = 600.0  # plans and applies import user code before they answer


class CodeRejected(AuthorError):
    """The served code can't be taken; ``problems`` are the contract's problem objects with ``deployment`` and ``traceback``."""

    code = "code_failed"

    def __init__(self, message: str, problems: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.problems = problems


class Client:
    """One control API. Every call raises Unreachable where nobody answers, and the ServeconfError that the answer tells of."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address.rstrip("/")
        self.token = token
        self.speaker = Speaker()  # what it has said of itself at ``healthy``
        self.proved = False  # whether what answers there has shown, at ``healthy``, that it knows the token
        self.silent = False  # whether something listens there that has not answered, at ``healthy``
        headers = {"authorization": f"Bearer {token}", AUTHOR_HEADER: quote(author(), safe="@")}
        self._http = HttpCalls(f"{self.address}/api/v1", headers, timeout_s=ANSWER_S)
        self._end = weakref.finalize(self, self._http.close)  # a command holds it for as long as it runs
        self._end.atexit = False  # a script's last calls are made at its exit

    def close(self) -> None:
        """Close its connections, as happens when nobody holds it any more."""
        self._end()

    def healthy(self, patience_s: float = HEALTH_S) -> bool:
        """Whether a serveconf controller answers there. It is not told the token: somebody else may have the port by now.

        ``patience_s``: with what listens there; where nothing listens that is known sooner.
        """
        challenge = secrets.token_hex(16)
        self.silent = False
        try:
            answer = self._http.call(
                "GET",
                "/health",
                params={"challenge": challenge},
                timeout_s=patience_s,
                connect_s=HEALTH_S,
                without="authorization",
            )
            said = answer.json() if answer.status == 200 else {}
            self.proved = any(is_proof(str(one), self.token, challenge) for one in said.get("proofs", ()))
            if said.get("service") != "serveconf":
                return False
            self.speaker = Speaker.of(said)
            return True
        except (CallFailed, ValueError, AttributeError, TypeError) as error:
            self.silent = isinstance(error, AnswerLate)
            return False

    def comes_back(self, seconds: float) -> bool:
        """Whether it answers within that time."""
        deadline = time.monotonic() + seconds
        while not self.healthy():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
        return True

    def status(self, *, load: bool = True) -> Json:
        """The contract's status; without ``load`` no replica is asked how many requests it has, and none is waited for."""
        return self._json("GET", "/status", params={} if load else {"load": "false"})

    def routes(self) -> Json:
        """The live table."""
        return self._json("GET", "/routes")

    def test_route(self, method: str, url: str, headers: Sequence[str]) -> Json:
        """Who would take a request, and why; headers as ``name: value``."""
        return self._json("GET", "/routes/test", params={"method": method, "url": url, "header": list(headers)})

    def history(self, stack: str) -> list[Json]:
        """The kept revisions."""
        found: list[Json] = self._json("GET", f"/stacks/{stack}/revisions")
        return found

    def revision(self, stack: str, number: int) -> Json:
        """One revision in full."""
        return self._json("GET", f"/stacks/{stack}/revisions/{number}")

    def handles(self, seen: str = "", body: Json | None = None) -> Json:
        """What calls by handle from this process need: the frames' secret, and a routing table of another digest than ``seen``.

        ``body``: what the calls of this process come to.
        """
        return self._json("POST", "/handles", params={"seen": seen}, json=body)

    def read_spec(self, text: str, variables: Mapping[str, str]) -> Json | None:
        """What a spec file says: ``spec``, ``masks``, ``front``; None where there is more to say of it than that."""
        found = self._json("POST", "/spec/read", json={"text": text, "variables": variables})
        return found if found["spec"] is not None else None

    def has_code(self, digest: str) -> bool:
        """Whether the package is there."""
        return bool(self._json("GET", f"/code/{digest}")["present"])

    def put_code(self, digest: str, data: bytes) -> None:
        """Upload a package."""
        self._json("PUT", f"/code/{digest}", content=data, timeout_s=CODE_S)

    def plan(self, stack: str, body: Json) -> Json:
        """What an apply would do."""
        return self._json("POST", f"/stacks/{stack}/plan", json=body, timeout_s=CODE_S)

    def data(self, stack: str) -> frozenset[str]:
        """What the stack's replicas were seen to write below app_dir; nothing where the controller does not know of it."""
        try:
            return frozenset(self._json("GET", f"/stacks/{stack}/data")["paths"])
        except NotFound:
            return frozenset()

    def drift(self, stack: str) -> Json:
        """What is not as it was applied."""
        return self._json("GET", f"/stacks/{stack}/drift")

    def begin(self, stack: str, verb: str, body: dict[str, Any], *, base: int | None = None) -> str:
        """Begin an ``apply``, ``rollback`` or ``delete``, or ``promote`` or ``abort`` a canary; returns the operation's id."""
        headers = {} if base is None else {"if-match": str(base)}
        return str(
            self._json("POST", f"/stacks/{stack}/{verb}", json=body, headers=headers, timeout_s=CODE_S)["operation"]
        )

    def events(self, operation: str) -> Iterator[dict[str, Any]]:
        """What an operation tells, to its end."""
        return self._lines(f"/operations/{operation}/events")

    def invite(self) -> str:
        """An address that signs a browser in to the dashboard, once."""
        return str(self._json("POST", "/sign-in")["address"])

    def recent_events(self, *, stack: str | None = None, since: str | None = None) -> list[Json]:
        """The log of events, the oldest first; from a time (ISO 8601) on."""
        found: list[Json] = self._json("GET", "/events", params=_given(stack=stack, since=since))
        return found

    def follow_events(self, *, stack: str | None = None, since: str | None = None) -> Iterator[dict[str, Any]]:
        """The same, then each event as it comes; ends where the controller does."""
        return self._lines("/events", params=_given(stack=stack, since=since, follow="true"))

    def tell(self, stack: str, kind: str, message: str, data: Json) -> None:
        """Add what a watcher has seen to the log of events: ``drift``, ``heal`` or ``quarantine``."""
        self._json("POST", f"/stacks/{stack}/events", json={"kind": kind, "message": message, "data": data})

    def webhook_calls(self, name: str) -> int:
        """How often a webhook was called since the controller began."""
        return int(self._json("GET", f"/sync/{name}")["calls"])

    def rotate_token(self) -> str:
        """Have the token replaced; the new one, which this client goes on with."""
        self.token = str(self._json("POST", "/token")["token"])
        self._http.headers["authorization"] = f"Bearer {self.token}"
        return self.token

    def live(self) -> Iterator[tuple[str, Any]]:
        """Status and figures as they change: ``status``, ``curves``, ``points`` with their data. Ends with the controller."""
        kind = ""
        for line in self._texts("/live"):
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, _parsed(value)

    def _lines(self, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """An answer of one JSON object a line."""
        return (_parsed(line) for line in self._texts(path, **options))

    def _texts(self, path: str, **options: Any) -> Iterator[str]:
        """The lines of an answer, as they come."""
        try:
            with self._http.stream("GET", path, **options) as (answer, lines):
                if answer.status != 200:
                    raise _error(answer)
                for line in lines:
                    yield line.decode(errors="replace")
        except CallFailed as error:
            raise self._unreachable(error) from error

    def logs(
        self, stack: str, deployment: str, *, tail: int, follow: bool, previous: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Lines of a deployment's replicas, or of the one that died last; with ``follow`` without end."""
        path = f"/stacks/{stack}/deployments/{deployment}/logs"
        return self._lines(path, params={"tail": tail, "follow": follow, "previous": previous})

    def own_logs(self, whose: str, *, tail: int, follow: bool) -> Iterator[dict[str, Any]]:
        """Lines of the ``proxies`` or of the ``controller``."""
        return self._lines(f"/logs/{whose}", params={"tail": tail, "follow": follow})

    def cancel(self, operation: str) -> Json:
        """Stop an operation."""
        return self._json("DELETE", f"/operations/{operation}")

    def resume(self, stack: str) -> None:
        """End a rollback's pin."""
        self._json("POST", f"/stacks/{stack}/resume")

    def scale(self, stack: str, deployment: str, replicas: int) -> Json:
        """Set a number of replicas until the next apply."""
        path = f"/stacks/{stack}/deployments/{deployment}/scale"
        found: Json = self._json("POST", path, json={"replicas": replicas})
        return found

    def backup(self) -> Backup:
        """All stacks with their revisions and code."""
        import msgspec  # what only looks or applies does without

        from serveconf.backup_file import Backup

        try:
            answer = self._http.call("POST", "/backup", timeout_s=CODE_S)
        except CallFailed as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._misunderstood(_error(answer), "POST")
        try:
            return msgspec.msgpack.decode(answer.content, type=Backup)
        except msgspec.MsgspecError as error:
            raise _strange(answer) from error

    def restore(self, saved: SavedStack, *, replaces: bool) -> str:
        """Begin to serve what a backup says of a stack; returns the operation's id."""
        import msgspec

        body, params = msgspec.msgpack.encode(saved), {"replace": replaces}
        path = f"/stacks/{saved.name}/restore"
        return str(self._json("POST", path, content=body, params=params, timeout_s=CODE_S)["operation"])

    def upgrade_controller(self, version: str) -> None:
        """Have the controller make way for the version that is installed by now; it comes back as that."""
        with _last_word():
            self._json("POST", "/upgrade/controller", json={"version": version}, timeout_s=120.0)

    def upgrade(self, version: str) -> str:
        """Begin to replace proxies and replicas of other versions; returns the operation's id."""
        return str(self._json("POST", "/upgrade", json={"version": version})["operation"])

    def shutdown(self) -> None:
        """Stop everything; when this returns the controller has gone too."""
        with _last_word():
            self._json("POST", "/shutdown", timeout_s=120.0)
        deadline = time.monotonic() + GONE_S
        while self.healthy() and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.call(method, path, **options)
        except CallFailed as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._misunderstood(_error(answer), method)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            raise _strange(answer) from error

    def _misunderstood(self, error: ServeconfError, method: str) -> ServeconfError:
        """What a controller of another version does not know is no mistake of the caller's: it says which version it is."""
        unknown = error.code == "bad_request" or error.message.startswith(f"{method} /api/")
        if unknown and self.speaker.version != THIS.version and self.speaker != Speaker():
            error.hint = compare(self.speaker)
        return error

    def _unreachable(self, error: CallFailed) -> Unreachable:
        return Unreachable(
            f"the control API at {self.address} does not answer: {error}", hint="'serveconf status' tells more"
        )


@contextmanager
def _last_word() -> Iterator[None]:
    """A process that ends has heard what it was asked, although its answer may be lost with it."""
    try:
        yield
    except Unreachable as error:
        if not isinstance(error.__cause__, AnswerLost):
            raise


def author() -> str:
    """Who applies: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under an id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _given(**params: str | None) -> dict[str, str]:
    return {key: value for key, value in params.items() if value is not None}


def _strange(answer: Answer) -> InternalError:
    """What no controller says: a gateway's page for who is not signed in, or for a controller that it does not reach."""
    return InternalError(f"the control API answered {answer.status}: {answer.text[:SHOWN]}", hint=BETWEEN)


def _parsed(line: str) -> Any:
    """One JSON value of those that an answer tells one after the other."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise InternalError(f"the control API told what is no JSON: {line[:SHOWN]}", hint=BETWEEN) from error


def _error(answer: Answer) -> ServeconfError:
    """The error that an answer tells of."""
    try:
        told = answer.json()["error"]
        code, message, hint, problems = told["code"], told["message"], told.get("hint"), told.get("problems") or []
    except (ValueError, KeyError, TypeError):
        return _strange(answer)
    said = isinstance(code, str) and isinstance(message, str) and isinstance(hint, str | None)
    if not said or not isinstance(problems, list) or not all(isinstance(problem, dict) for problem in problems):
        return _strange(answer)
    if problems:
        return CodeRejected(message, problems)
    kinds: dict[int, type[ServeconfError]] = {
        401: Unauthorized,
        404: NotFound,
        409: Conflict,
        412: Conflict,
        422: AuthorError,
    }
    return kinds.get(answer.status, OperatorError)(message, hint=hint, code=code)
