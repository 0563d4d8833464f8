"""What a backup holds of the ledger, and how a stack of one comes back: as an apply of what served then."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from serveconf import __version__
from serveconf.backup_file import Backup, BadBackup, SavedStack
from serveconf.errors import Conflict
from serveconf.plan.state import DesiredStack
from serveconf.reconcile.ports import Store
from serveconf.reconcile.records import Ledger, Revision, code_of
from serveconf.reconcile.stacks import Stacks


async def make_backup(ledger: Ledger, store: Store) -> Backup:
    """Every stack that serves, its history, and the packages that these need. What is being applied just now is left out."""
    stacks, digests = [], set()
    for name, head in sorted(ledger.heads.items()):
        if head.current is None or head.deleting:
            continue
        ended = [r for r in ledger.revisions[name].values() if r.outcome != "applying"]
        digests |= {digest for revision in ended for digest in code_of(revision.desired)}
        stacks.append(
            SavedStack(
                name=name,
                current=head.current,
                pinned=head.pinned,
                revisions={revision.number: msgspec.json.encode(revision) for revision in ended},
                secret=any(_is_secret(revision.desired) for revision in ended),
            )
        )
    code = {digest: data for digest in sorted(digests) if (data := await store.get(f"code/{digest}")) is not None}
    return Backup(serveconf=__version__, stacks=tuple(stacks), code=code)


async def take_history(stacks: Stacks, saved: SavedStack, *, replaces: bool) -> Revision:
    """The revision that is to serve again; where nothing is known of the stack its history is kept too.

    Raises Conflict where the stack lives and is not to be replaced, BadBackup on records that can't be read.
    """
    try:
        revisions = [msgspec.json.decode(data, type=Revision) for data in saved.revisions.values()]
    except msgspec.MsgspecError as error:
        raise BadBackup(f"a revision of stack '{saved.name}' can't be read: {error}") from error
    wanted = next((r for r in revisions if r.number == saved.current), None)
    if wanted is None or any(r.stack != saved.name for r in revisions):
        raise BadBackup(f"the backup of stack '{saved.name}' is not whole")
    if stacks.head(saved.name) is not None:
        if not replaces:
            raise Conflict(f"stack '{saved.name}' lives", hint="--replace has it go back to what the backup holds")
    else:
        await stacks.take_history(saved.name, [replace(r, operation="") for r in revisions])
    return wanted


def _is_secret(stack: DesiredStack) -> bool:
    return bool(stack.masks) or any(deployment.masks for deployment in stack.deployments)
