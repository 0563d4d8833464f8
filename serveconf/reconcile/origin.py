"""Where what a stack serves came from, as status tells it: pure, from the ledger.

A revision's source is the path of a file, or ``git+URL#BRANCH:PATH`` of what was taken from a repository.
"""

from __future__ import annotations

from typing import Any

from serveconf.reconcile.records import Ledger, StackHead

GIT = "git+"


def git_source(location: str, branch: str | None, path: str) -> str:
    """The source of what was taken from a repository; without a branch it was the repository's own."""
    return f"{GIT}{location}#{branch or ''}:{path}"


def origin_of(ledger: Ledger, head: StackHead) -> dict[str, Any] | None:
    """The contract's ``source``: of the newest apply that has one. ``in_sync``: it serves, and nothing else has been done since."""
    kept = ledger.revisions.get(head.name, {})
    newest = next((kept[number] for number in sorted(kept, reverse=True) if kept[number].source), None)
    again = head.confirmed if head.confirmed is not None and head.confirmed.last == head.last else None
    said = again or newest
    if said is None:
        return None
    quiet = head.target is None and not head.pinned and not head.deleting and not head.invalid
    found = {"kind": "file", "location": said.source, "branch": None, "path": said.source.rpartition("/")[2]}
    if said.source.startswith(GIT):
        location, _, rest = said.source.removeprefix(GIT).rpartition("#")
        branch, _, path = rest.partition(":")
        found = {"kind": "git", "location": location, "branch": branch or None, "path": path}
    return {
        **found,
        "commit": said.commit,
        "in_sync": quiet and (again is not None or newest is None or head.current == newest.number),
    }
