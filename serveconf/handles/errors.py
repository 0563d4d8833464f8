"""What a call can end with besides what the called code raises. Names are Ray Serve's where the meaning is."""

from __future__ import annotations

from serveconf.errors import AuthorError, OperatorError


class RayServeException(OperatorError):
    """Root of what calls by handle raise by themselves."""

    code = "call"


class BackPressureError(RayServeException):
    """More calls wait for the deployment than its ``max_queued_requests`` allows."""

    code = "queue_full"


class DeploymentUnavailableError(RayServeException):
    """The deployment has no replica, or is not there at all."""

    code = "no_replica"


class ReplicaLost(RayServeException):
    """The replica died, or what it began cannot be finished. The call may have had its effect: it was not repeated."""

    code = "replica_lost"


class RequestCancelledError(RayServeException):
    """The call was cancelled by ``response.cancel()``."""

    code = "cancelled"


class CallFailed(AuthorError):
    """The called code raised what cannot be sent as it is, or gave what cannot be sent. The message says what."""

    code = "call_failed"


class RemoteTraceback(Exception):
    """The cause of an exception that a call raises: where it was raised in the other process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
