"""``python -m serveconf.cluster.candidate``: whether what is installed by now would come up as the controller.

A controller that is to make way for a newer one runs it as a child first: it imports what every process of ours imports and
reads the records, handed over on stdin, as the next controller will. It prints its version, or why it would not start.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping

import msgspec

from serveconf import __version__
from serveconf.errors import OperatorError

TRY_S = 60.0


def try_out(records: Mapping[str, bytes], *, version: str) -> None:
    """Raises OperatorError where another version than that is installed here, or it would not come up."""
    command = [sys.executable, "-m", "serveconf.cluster.candidate"]
    try:
        done = subprocess.run(
            command,
            input=msgspec.msgpack.encode(records),
            capture_output=True,
            timeout=TRY_S,
            check=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # what is installed, not what lies where the controller stands
        )
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"the new controller does not start within {TRY_S:g} s", code="upgrade_failed") from error
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        found, wrong = told["version"], told["error"]
    except (IndexError, ValueError, KeyError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        found, wrong = "", "\n  ".join(last) or f"it ended with {done.returncode}"
    if not found or wrong:
        raise OperatorError(
            f"the new controller would not start, so the old one goes on: {wrong}",
            hint="see that the installation is whole: pip check",
            code="upgrade_failed",
        )
    if found != version:
        raise OperatorError(
            f"serveconf {found} is installed where the controller runs, not {version}",
            hint=f"pip install 'serveconf=={version}' on every node, then 'serveconf upgrade' again",
            code="not_installed",
        )


def main() -> None:
    """See above."""
    wrong = ""
    try:
        _come_up(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=dict[str, bytes]))
    except Exception as error:  # noqa: BLE001 - whatever it is, it would keep the controller from starting
        wrong = f"{type(error).__name__}: {error}"
    print(json.dumps({"version": __version__, "error": wrong}))


def _come_up(records: Mapping[str, bytes]) -> None:
    from serveconf.cluster.hosted import KINDS
    from serveconf.cluster.orders import FOLDER, Orders
    from serveconf.reconcile.records import Ledger
    from serveconf.testing.memory import MemoryStore

    for target in KINDS.values():
        importlib.import_module(target.partition(":")[0])
    store = MemoryStore()
    store.values = dict(records)

    async def read() -> None:
        await Ledger(store).load()
        for key in await store.keys(FOLDER):
            await Orders(store).find(key.removeprefix(FOLDER))

    asyncio.run(read())


if __name__ == "__main__":
    main()
