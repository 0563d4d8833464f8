"""Code packages have a budget of bytes, in the store and on each node: filled to the brim, nothing that is needed goes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serveconf.code.claims import Claims
from serveconf.code.package import pack
from serveconf.code.snapshot import take_snapshot
from serveconf.errors import NoRoom
from serveconf.reconcile.packages import Packages
from serveconf.testing import ManualClock, MemoryStore

pytestmark = pytest.mark.anyio

SIZE = 10_000


class Place:
    """A store and a node with room for four packages and a half."""

    def __init__(self, folder: Path) -> None:
        self.store, self.clock = MemoryStore(), ManualClock()
        self.folder, self._app, self._random = folder / "code", folder / "app", random.Random(1)
        self._app.mkdir()
        self.needed: set[str] = set()
        self.packages = self.process()
        self.packages.needed = lambda: self.needed

    def process(self) -> Packages:
        """As another process of the node has it."""
        room = SIZE * 9 // 2
        return Packages(self.store, self.folder, now=self.clock.now, store_bytes=room, node_bytes=room)

    def made(self) -> tuple[str, bytes]:
        (self._app / "weights").write_bytes(self._random.randbytes(SIZE - 300))
        snapshot = take_snapshot(self._app)
        return snapshot.digest, pack(self._app, snapshot)

    async def put(self) -> str:
        self.clock.advance(1)
        digest, data = self.made()
        await self.packages.put(digest, data)
        return digest

    def stored(self) -> set[str]:
        return {key.removeprefix("code/") for key in self.store.values if key.startswith("code/")}

    def unpacked(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_what_no_revision_names_makes_room_in_the_store_the_longest_unused_first(place: Place) -> None:
    first, second, third, fourth = [await place.put() for _ in range(4)]
    place.needed = {first}
    assert await place.packages.has(second)  # an apply is about to name it
    fifth = await place.put()
    assert place.stored() == {first, second, fourth, fifth}
    assert third not in await place.packages.sizes()


async def test_a_package_that_does_not_fit_beside_what_revisions_name_is_refused_and_nothing_is_lost(
    place: Place,
) -> None:
    place.needed = {await place.put() for _ in range(4)}
    before = dict(place.store.values)
    with pytest.raises(NoRoom) as refused:
        await place.put()
    assert refused.value.code == "code_budget" and "0.0 MB" in refused.value.message
    assert place.store.values == before
    for digest in place.needed:  # a second time is no second package
        await place.packages.put(digest, before[f"code/{digest}"])
    place.needed = set()
    await place.put()


async def test_packages_of_a_version_that_knew_no_budget_are_counted(place: Place) -> None:
    for _ in range(4):
        digest, data = place.made()
        await place.store.put(f"code/{digest}", data)
    sizes = await place.packages.sizes()
    assert sizes == {digest: len(place.store.values[f"code/{digest}"]) for digest in place.stored()}
    place.needed = place.stored()
    with pytest.raises(NoRoom):
        await place.put()


async def test_unpacked_code_that_no_process_uses_makes_room_on_the_node(place: Place) -> None:
    place.packages = Packages(place.store, place.folder)
    digests = [await place.put() for _ in range(6)]
    serving, idle, new = place.process(), place.process(), place.process()
    await serving.folder(digests[0])
    for digest in digests[1:4]:
        await idle.folder(digest)
    idle.use_only(())
    (place.folder / digests[1] / "uploads.txt").write_text("an app wrote this")
    for digest in digests[4:]:
        await new.folder(digest)
    assert place.unpacked() == {digests[0], digests[1], digests[4], digests[5]}
    await idle.folder(digests[2])  # what was taken away is unpacked again
    assert (place.folder / digests[2] / "weights").exists()


async def test_what_is_in_use_stays_even_over_the_budget(place: Place) -> None:
    place.packages = Packages(place.store, place.folder)
    digests = [await place.put() for _ in range(6)]
    for digest in digests:
        await place.process().folder(digest)
    assert place.unpacked() == set(digests)


async def test_who_only_looks_at_code_holds_it_for_as_long_as_he_looks(place: Place) -> None:
    digest = await place.put()
    other = place.process()

    async def is_free() -> bool:
        with Claims(place.folder).alone(digest) as unused:
            return unused

    async with place.packages.for_a_while(digest), place.packages.for_a_while(digest):
        place.packages.use_only(())
        assert not await is_free()
    assert await is_free()
    async with place.packages.for_a_while(digest):
        await place.packages.folder(digest)
    assert not await is_free()  # by now it is used for good
    await other.folder(digest)
    place.packages.use_only(())
    assert not await is_free()
    other.use_only(())
    assert await is_free()


HOLDS = """
import sys
from pathlib import Path
from serveconf.code.claims import Claims
claims = Claims(Path(sys.argv[1]))
claims.take("a")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with claims.alone("a") as unused:
            assert not unused
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with claims.alone("a") as unused:
            assert unused
    assert list(tmp_path.iterdir()) == []
