"""A snapshot of app_dir: its files and their content hashes. The commands take one for every plan and apply.

In goes a folder, out comes ``Snapshot``, addressed by its content: the same files give the same digest on any machine,
at any time, in any order. ``package.pack`` makes the bytes that travel.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from serveconf.code.hashes import Hashes, stamp_of
from serveconf.code.ignore import OUR_FILE, never_belongs, rules_above
from serveconf.errors import AuthorError
from serveconf.private import own_places

MAX_BYTES = 100 * 1024 * 1024
MAX_FILES = 50_000


@dataclass(frozen=True)
class Snapshot:
    """What app_dir held at one moment. Paths are relative, with ``/``."""

    digest: str  # sha256 over every path, content hash and executable bit
    files: Mapping[str, str]  # path -> sha256 of the content, in hex
    total_bytes: int
    executables: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()  # links that lead out of app_dir or nowhere, and names that are no text
    withheld: tuple[str, ...] = ()  # what looks like a secret, and no line of an ignore file speaks of
    folders: tuple[str, ...] = ()  # every folder that was looked into; "" is app_dir itself


@dataclass(frozen=True)
class _Found:
    """A regular file that the walk met."""

    path: str  # relative
    size: int
    executable: bool
    stamp: tuple[int, ...] = ()
    kept: bool = False  # a line says that it belongs to the code


def take_snapshot(
    app_dir: Path,
    exclude: Collection[Path] = (),
    *,
    data: Collection[str] = (),
    hashes: Hashes | None = None,
) -> Snapshot:
    """The snapshot of ``app_dir``, without what .gitignore, .serveconfignore and good sense leave out.

    ``exclude``: files that are left out too, such as the spec itself, so that an edit of the YAML is no other code.
    ``data``: relative paths that the running app has been seen to write; they stay out. ``hashes``: what is known of files from an
    earlier snapshot, for who takes many. Links are followed where they stay inside app_dir.
    Raises ``AuthorError``: ``app_dir_missing``, ``code_too_large`` (naming the largest files) or ``code_unreadable``.
    """
    folder = app_dir.resolve()
    if not folder.is_dir():
        raise AuthorError(
            f"app_dir {app_dir} is not a folder", code="app_dir_missing", hint="check app_dir in the spec"
        )
    skipped: list[str] = []
    withheld: list[str] = []
    folders: list[str] = []
    written = frozenset(data)
    found = _without(exclude, folder, _bounded(_walk(folder, skipped, withheld, folders, written)))
    hashes = hashes if hashes is not None else Hashes()
    files: dict[str, str] = {}
    total = 0
    for file in sorted(found, key=lambda file: file.path):
        try:
            content = hashes.of(folder / file.path, file.stamp)
        except FileNotFoundError:
            continue  # deleted while we walked: it is simply no longer there
        except OSError as error:
            raise _unreadable(file.path, error) from error
        if content.key and not file.kept:
            withheld.append(file.path)
        elif not content.ours:
            files[file.path] = content.digest
            total += content.size
    executables = frozenset(file.path for file in found if file.executable and file.path in files)
    return Snapshot(
        digest=digest_of(files, executables),
        files=files,
        total_bytes=total,
        executables=executables,
        skipped=tuple(sorted(skipped)),
        withheld=tuple(sorted(withheld)),
        folders=tuple(sorted(folders)),
    )


def digest_of(files: Mapping[str, str], executables: frozenset[str]) -> str:
    """The address of a content. NUL cannot be in a path, so no two contents share one line of this."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{files[path]}\0{'x' if path in executables else '-'}\n".encode())
    return digest.hexdigest()


def _without(exclude: Collection[Path], folder: Path, found: list[_Found]) -> list[_Found]:
    """``found`` less the excluded files, under whatever name a link gives them."""
    excluded = {os.path.realpath(path) for path in exclude}
    names = {os.path.basename(path) for path in excluded} | {path.name for path in exclude}
    return [
        file
        for file in found
        if file.path.rpartition("/")[2] not in names or os.path.realpath(folder / file.path) not in excluded
    ]


def _bounded(found: Iterable[_Found]) -> list[_Found]:
    """All of ``found``, or an error as soon as it cannot fit, so that a wrong app_dir does not walk a whole disk."""
    files: list[_Found] = []
    total = 0
    for file in found:
        files.append(file)
        total += file.size
        if len(files) > MAX_FILES:
            raise _too_large(f"app_dir holds more than {MAX_FILES:,} files", files)
        if total > 20 * MAX_BYTES:
            break
    if total > MAX_BYTES:
        raise _too_large(f"app_dir holds {_megabytes(total)}; a code package may have {_megabytes(MAX_BYTES)}", files)
    return files


def _too_large(what: str, files: list[_Found]) -> AuthorError:
    largest = sorted(files, key=lambda file: (-file.size, file.path))[:5]
    named = ", ".join(f"{file.path} ({_megabytes(file.size)})" for file in largest)
    return AuthorError(
        f"{what}; the largest: {named}",
        code="code_too_large",
        hint=f"name what the app does not import in {OUR_FILE} (the syntax is .gitignore's)",
    )


def _megabytes(size: int) -> str:
    return f"{size / (1024 * 1024):.1f} MB"


def _unreadable(path: str, error: OSError) -> AuthorError:
    return AuthorError(
        f"cannot read {path}: {error.strerror}",
        code="code_unreadable",
        hint=f"make it readable, or name it in {OUR_FILE}",
    )


def _walk(
    app_dir: Path, skipped: list[str], withheld: list[str], folders: list[str], data: frozenset[str]
) -> Iterator[_Found]:
    """Every regular file that belongs, folder by folder; a folder that is left out is not looked into.

    What the app was seen to write (``data``) does not belong, unless .serveconfignore brings it back.

    What is passed over goes to ``skipped``, what looks like a secret to ``withheld``, what is looked into to ``folders``.
    """
    root, ours = str(app_dir), own_places()
    open_folders = [("", rules_above(app_dir), frozenset({os.path.realpath(root)}))]
    while open_folders:
        folder, outer, trail = open_folders.pop()
        here = os.path.join(root, folder) if folder else root
        try:
            rules = outer.below(here)
            with os.scandir(here) as scan:
                entries = list(scan)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(folder or root, error) from error
        if folder and any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        folders.append(folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            target = _inside(entry, path, root, skipped)
            if target is None:
                continue
            mode = target.st_mode
            if (target.st_dev, target.st_ino) in ours:
                continue
            real_folder = stat.S_ISDIR(mode) and not entry.is_symlink()
            inner = rules.enter(entry.path) if real_folder else rules
            if inner is None or (not real_folder and rules.leave_out(entry.path)):
                if rules.withholds(f"{entry.path}/" if real_folder else entry.path):
                    withheld.append(f"{path}/" if real_folder else path)
                continue
            if path in data and not rules.brings_back(entry.path):
                continue
            if stat.S_ISREG(mode):
                executable = bool(mode & stat.S_IXUSR)
                yield _Found(
                    path=path,
                    size=target.st_size,
                    executable=executable,
                    stamp=stamp_of(target),
                    kept=rules.keeps(entry.path),
                )
            elif stat.S_ISDIR(mode):
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in trail:  # a link to a folder that we are in would never end
                    open_folders.append((path, inner, trail | {real}))


def _inside(entry: os.DirEntry[str], path: str, root: str, skipped: list[str]) -> os.stat_result | None:
    """What stands behind a name, or None where it can never belong to a package."""
    try:
        link = entry.is_symlink()
        if never_belongs(entry.name, folder=entry.is_dir()):
            return None
        path.encode()  # a name that is no text cannot be put into an archive
        if link and not os.path.realpath(entry.path).startswith(root.rstrip("/") + "/"):
            skipped.append(path)
            return None
        return entry.stat()
    except (FileNotFoundError, UnicodeEncodeError):
        skipped.append(path.encode(errors="replace").decode())
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            skipped.append(path)
            return None
        raise _unreadable(path, error) from error
