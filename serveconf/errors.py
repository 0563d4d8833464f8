"""The errors that serveconf raises on purpose, split by who must act on them.

``AuthorError``: the spec or the served code is wrong; its author mends it.
``OperatorError``: the environment stands in the way (a port, a cluster, a lock); whoever runs it mends that.
``InternalError``: serveconf is wrong; we mend it.
Every one carries a stable ``code``, a message, and where one can be given a hint.
"""

from __future__ import annotations


class ServeconfError(Exception):
    """Root of the tree. ``code`` is stable and machine-readable; ``hint`` says what to do next."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def as_json(self) -> dict[str, str | None]:
        """The contract's ``error`` object."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class AuthorError(ServeconfError):
    """The spec or the user's code must change."""

    code = "author"


class CodeFailed(AuthorError):
    """The user's code raised while it was imported, built or started. ``traceback`` holds the user's frames only."""

    code = "code_failed"

    def __init__(self, message: str, *, traceback: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.traceback = traceback


class OperatorError(ServeconfError):
    """The environment must change."""

    code = "operator"


class PortInUse(OperatorError):
    """Another program listens on a port that serveconf was told to take."""

    code = "port_in_use"


class Unreachable(OperatorError):
    """No control API, or no Ray cluster, answers."""

    code = "unreachable"


class Silent(Unreachable):
    """Something listens where the control API should be, and says nothing: it may be busy, so nobody can say that nothing runs."""


class EngineSilent(OperatorError):
    """Ray's GCS does not answer, for so many seconds (None: that is not known yet)."""

    code = "store_silent"

    def __init__(self, seconds: float | None) -> None:
        since = f" for {seconds:.0f} s" if seconds is not None else ""
        super().__init__(
            f"Ray's GCS has not answered{since}: nothing can be applied, started or replaced until it does",
            hint="see that the head node's GCS runs; what serves goes on serving meanwhile",
        )


class Unauthorized(OperatorError):
    """The control API does not know the token."""

    code = "unauthorized"


class Conflict(OperatorError):
    """Someone else changed, or is changing, the same stack; or two stacks claim one thing."""

    code = "conflict"


class NoRoom(OperatorError):
    """A budget of bytes is used up."""

    code = "no_room"


class NotFound(OperatorError):
    """No such stack, deployment or revision."""

    code = "not_found"


class InternalError(ServeconfError):
    """A fault of serveconf itself."""

    code = "internal"
