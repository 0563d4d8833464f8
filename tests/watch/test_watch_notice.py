"""File systems that tell nothing of what others change on them are known by their mounts, whatever these are called."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from serveconf.watch import notice
from serveconf.watch.notice import tells_nothing

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / {home}/mnt rw - nfs4 server:/export rw
31 30 0:31 / {home}/mnt/local rw shared:3 master:1 - tmpfs tmpfs rw
32 22 0:32 / {home}/with\\040space\\011tab rw - fuse.sshfs me@there: rw
33 22 0:33 / {home}/zoë rw - cifs //there/here rw
34 22 0:34 / {home}/back\\134slash rw - 9p there rw
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def mounts(*args: Any, **options: Any) -> io.StringIO:
        return io.StringIO(MOUNTS.format(home=tmp_path))

    monkeypatch.setattr(notice, "open", mounts, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "silent"),
    [
        ("mnt", True),
        ("mnt/deep/er", True),
        ("mnt/local", False),
        ("mnt/local/deep", False),
        ("mnt2", False),
        ("elsewhere", False),
        ("with space\ttab/app", True),
        ("zoë", True),
        ("zoë/app", True),
        ("back\\slash/app", True),
    ],
)
def test_the_nearest_mount_says_whether_changes_are_told(home: Path, folder: str, silent: bool) -> None:
    assert tells_nothing(str(home / folder)) is silent


def test_a_link_is_where_it_leads(home: Path) -> None:
    (home / "mnt").mkdir()
    (home / "link").symlink_to(home / "mnt")
    assert tells_nothing(str(home / "link"))


def test_where_nothing_is_known_of_mounts_changes_are_believed_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: Any, **options: Any) -> Any:
        raise FileNotFoundError("/proc/self/mountinfo")

    monkeypatch.setattr(notice, "open", none, raising=False)
    assert not tells_nothing(str(tmp_path))
