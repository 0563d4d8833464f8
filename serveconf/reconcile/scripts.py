"""Scripts that call deployments by handle. Nobody can ask them anything: with each look at the routing table they say
themselves what they have asked for so far, and one that says nothing more has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.reconcile.ports import Clock

GONE_S = 3.0  # a script looks at the table four times a second


class Scripts:
    """Those that were heard lately. ``take``: it has reported; ``lose``: nothing more comes from it."""

    def __init__(self, clock: Clock, *, take: Callable[[str, LoadReport], None], lose: Callable[[str], None]) -> None:
        self._clock, self._take, self._lose = clock, take, lose
        self._heard: dict[str, float] = {}

    def hear(self, script: str, loads: Mapping[str, DeploymentLoad]) -> None:
        """What the script of this name asks of each deployment, since it began."""
        source = f"script {script}"
        self._heard[source] = self._clock.now()
        self._take(source, LoadReport(loads=dict(loads)))

    def let_go(self) -> None:
        """Of those that have ended."""
        now = self._clock.now()
        for source in [one for one, heard in self._heard.items() if now - heard > GONE_S]:
            del self._heard[source]
            self._lose(source)
