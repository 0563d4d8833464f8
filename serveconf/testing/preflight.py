"""A preflight that says what it was told to say."""

from __future__ import annotations

from collections.abc import Mapping

from serveconf.reconcile.ports import Question, TargetReport


class FakePreflight:
    """Says of every target what it was told to say; by default that it is an ASGI app of one module."""

    def __init__(self, reports: Mapping[str, TargetReport] | None = None) -> None:
        self.reports = dict(reports or {})
        self.asked: list[str] = []

    async def inspect(self, question: Question) -> tuple[list[TargetReport], list[TargetReport]]:
        """What it was told."""
        paths = [target["import_path"] for target in question.targets]
        checked = [middleware["import_path"] for middleware in question.middlewares]
        self.asked += paths
        return [self._report(path) for path in paths], [self._report(path) for path in checked]

    def _report(self, path: str) -> TargetReport:
        module = path.partition(":")[0].replace(".", "/") + ".py"
        return self.reports.get(path, TargetReport(ok=True, kind="asgi", modules=(module,)))
