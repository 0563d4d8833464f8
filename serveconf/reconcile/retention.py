"""Which revisions go because their code packages need more bytes than a history may: the oldest, of whatever stack. Pure.

What serves or is being applied stays, and the newest few of each stack that is there, so that there is always something to go back to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from serveconf.reconcile.records import Revision, StackHead, code_of

ALWAYS_KEPT = 5  # newest revisions of a stack, whatever they need


def outlived(
    revisions: Mapping[str, Mapping[int, Revision]],
    heads: Mapping[str, StackHead],
    sizes: Mapping[str, int],
    budget: int,
) -> list[Revision]:
    """In the order in which they go. ``sizes``: bytes of each package in the store."""
    named = Counter(digest for kept in revisions.values() for r in kept.values() for digest in code_of(r.desired))
    total = sum(sizes.get(digest, 0) for digest in named)
    going = []
    for revision in sorted(_dispensable(revisions, heads), key=lambda r: (r.time, r.stack, r.number)):
        if total <= budget:
            break
        going.append(revision)
        for digest in code_of(revision.desired):
            named[digest] -= 1
            if not named[digest]:
                total -= sizes.get(digest, 0)
    return going


def _dispensable(revisions: Mapping[str, Mapping[int, Revision]], heads: Mapping[str, StackHead]) -> list[Revision]:
    found = []
    for stack, kept in revisions.items():
        head = heads.get(stack)
        stays = {head.current, head.target, *sorted(kept)[-ALWAYS_KEPT:]} if head else set()
        found += [revision for number, revision in kept.items() if number not in stays]
    return found
