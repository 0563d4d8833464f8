"""Files that a stack is made of: the spec with what it includes, and the code. Says when they have changed and settled.

Folders are watched, not files, so that an editor that renames over a file and a ConfigMap that swaps a link are seen;
what counts is the content, so that a touch, or a half-written file that is whole a moment later, is nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from watchfiles import DefaultFilter
from watchfiles import watch as watch_folders

from serveconf.code.snapshot import take_snapshot
from serveconf.errors import AuthorError

SETTLE_MS = 150  # quiet for so long: whoever writes has finished
LONGEST_MS = 1600


def fingerprint(files: Iterable[Path], app_dir: Path) -> str:
    """A hash of everything that the stack is made of; what can't be read just now counts as such."""
    digest = hashlib.sha256()
    files = sorted(files)
    for file in files:
        digest.update(str(file).encode())
        try:
            digest.update(file.read_bytes())
        except OSError:
            digest.update(b"\0unreadable")
    try:
        digest.update(take_snapshot(app_dir, exclude=files).digest.encode())
    except (AuthorError, OSError) as error:
        digest.update(str(error).encode())
    return digest.hexdigest()


def changes(files: Iterable[Path], app_dir: Path, *, seen: str, stop: threading.Event) -> Iterator[str]:
    """The new fingerprint each time the content has changed and settled. Ends when ``stop`` is set."""
    files = list(files)
    folders = {file.parent for file in files} | {app_dir}
    now = fingerprint(files, app_dir)  # what changed before the folders were watched
    if now != seen:
        seen = now
        yield seen
    batches = watch_folders(
        *(folder for folder in folders if folder.is_dir()),
        watch_filter=DefaultFilter(),
        debounce=LONGEST_MS,
        step=SETTLE_MS,
        stop_event=stop,
        rust_timeout=1000,
        yield_on_timeout=False,
        raise_interrupt=True,
    )
    for _ in batches:
        now = fingerprint(files, app_dir)
        if now != seen:
            seen = now
            yield seen
