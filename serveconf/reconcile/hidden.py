"""A failure as it may be recorded and shown: without what the stack's variables held."""

from __future__ import annotations

from msgspec.structs import replace

from serveconf.plan.hiding import hide, secrets_of_stack
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.records import Failure


def without_secrets(failure: Failure, stack: DesiredStack) -> Failure:
    """The failure of a stack whose code, or whose proxies' middlewares, may say what they were given."""
    secrets = secrets_of_stack(stack)
    return replace(failure, message=hide(failure.message, secrets), traceback=hide(failure.traceback, secrets))
