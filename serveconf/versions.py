"""Who understands whom: a command and the controller that it speaks to, whichever of them is the newer one.

The controller says its versions at ``/health``, which every command asks anyway; so the comparison costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serveconf import __version__
from serveconf.errors import OperatorError

if TYPE_CHECKING:
    from packaging.version import Version

API = 1  # of the control API: one more where a command or a controller of the number before would be misunderstood
OLDEST_API = 0  # the oldest that is still understood: one version back, at least


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """What one end runs and speaks. The defaults: a controller from before versions were told."""

    version: str = ""
    api: int = 0
    oldest_api: int = 0

    def __str__(self) -> str:
        return f"serveconf {self.version}" if self.version else "an older serveconf"

    @staticmethod
    def of(said: Mapping[str, Any]) -> Speaker:
        """From what it said; what is of another type than it should be was not said."""
        version, api, oldest = (said.get(key) for key in ("version", "api", "oldest_api"))
        return Speaker(
            version=version if isinstance(version, str) else "",
            api=api if isinstance(api, int) else 0,
            oldest_api=oldest if isinstance(oldest, int) else 0,
        )


THIS = Speaker(version=__version__, api=API, oldest_api=OLDEST_API)


class OtherVersion(OperatorError):
    """Command and controller are too far apart."""

    code = "other_version"


def is_older(version: str, than: str) -> bool:
    """Whether a version comes before another (PEP 440); what is not told, or is none, is older than anything."""
    first, second = _version(version), _version(than)
    return second is not None and (first is None or first < second)


def compare(controller: Speaker, command: Speaker = THIS) -> str | None:
    """What whoever gives a command should know of the controller's version; None where it is the same.

    Raises OtherVersion where they do not understand each other, with what to do.
    """
    if controller.version == command.version:
        return None
    older = is_older(controller.version, command.version)
    cure = "'serveconf upgrade' brings it to this version" if older else _install(controller.version)
    if controller.api < command.oldest_api:
        raise OtherVersion(f"the controller runs {controller}, too old for this command ({command})", hint=cure)
    if controller.oldest_api > command.api:
        message = f"the controller runs {controller}, which does not understand this command ({command}) any more"
        raise OtherVersion(message, hint=cure)
    return f"the controller runs {controller}, this command is {command}: {cure}"


def _install(version: str) -> str:
    return f"pip install 'serveconf=={version}' has the command that belongs to it"


def _version(said: str) -> Version | None:
    from packaging.version import InvalidVersion, Version  # who speaks with its own version does without

    try:
        return Version(said)
    except InvalidVersion:
        return None
