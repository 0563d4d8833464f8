"""A snapshot as bytes and back: ``pack`` where app_dir is, ``unpack`` on every node that runs a replica.

The archive is a plain zip; its comment is the snapshot's digest, so a package proves its own content. Each file keeps
its time of change, to two seconds: static files are served with it, and every node must tell the same.
"""

from __future__ import annotations

import calendar
import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from serveconf.code.ignore import OUR_FILE
from serveconf.code.snapshot import MAX_BYTES, MAX_FILES, Snapshot, digest_of
from serveconf.errors import AuthorError, OperatorError

_TIMES = (315532800, 4354819198)  # the first and the last moment that a zip can name: 1980 and 2107


class SnapshotChanged(AuthorError):
    """app_dir was edited between the snapshot and the package: take a new snapshot."""

    code = "code_changed"

    def __init__(self, message: str, *, hint: str | None = None, files: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.files = tuple(files)


class BadPackage(OperatorError):
    """The bytes are no code package, or not the one they claim to be."""

    code = "bad_package"


def pack(app_dir: Path, snapshot: Snapshot) -> bytes:
    """The files of ``snapshot`` as a zip. Raises ``SnapshotChanged`` where a file is no longer what it was."""
    packed = pack_as_it_is(app_dir, snapshot)
    if packed.changed:
        raise SnapshotChanged(
            f"{listed(packed.changed)} changed while it was packed",
            hint=f"run it again once the edit is done; what an app writes and nobody imports can be named in {OUR_FILE}",
            files=packed.changed,
        )
    return packed.data


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A package, the snapshot that it holds, and which files were no longer what they had been."""

    snapshot: Snapshot
    data: bytes
    changed: tuple[str, ...] = ()


def pack_as_it_is(app_dir: Path, snapshot: Snapshot) -> Packed:
    """The files that ``snapshot`` names with the content that they have by now; one that is gone is left out.

    For where something keeps writing: each file is read once, so that the package holds what its digest says.
    """
    folder = app_dir.resolve()
    buffer = io.BytesIO()
    files: dict[str, str] = {}
    total = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(snapshot.files):
            try:
                content = (folder / path).read_bytes()
                written = (folder / path).stat().st_mtime
            except OSError:
                continue
            files[path] = hashlib.sha256(content).hexdigest()
            total += len(content)
            entry = zipfile.ZipInfo(path, _zip_time(written))
            entry.create_system = 3  # Unix: the high half of external_attr is the file mode
            entry.external_attr = (stat.S_IFREG | (0o755 if path in snapshot.executables else 0o644)) << 16
            archive.writestr(entry, content, _method(content))
        executables = frozenset(snapshot.executables & files.keys())
        digest = digest_of(files, executables)
        archive.comment = digest.encode()
    changed = tuple(path for path in sorted(snapshot.files) if files.get(path) != snapshot.files[path])
    made = replace(snapshot, digest=digest, files=files, total_bytes=total, executables=executables)
    return Packed(snapshot=made, data=buffer.getvalue(), changed=changed)


def listed(paths: Sequence[str], most: int = 5) -> str:
    """``a.csv, b.csv and 3 more``."""
    named = ", ".join(paths[:most])
    return named if len(paths) <= most else f"{named} and {len(paths) - most} more"


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """A moment as a zip names it; in UTC, as a zip has no word for the zone."""
    first, last = _TIMES
    return time.gmtime(min(max(seconds, first), last))[:6]


def _method(content: bytes) -> int:
    """Weights and images do not get smaller, and trying costs seconds: a sample tells."""
    sample = content[:65536]
    return zipfile.ZIP_DEFLATED if len(zlib.compress(sample, 1)) < 0.9 * len(sample) else zipfile.ZIP_STORED


def unpack(data: bytes, folder: Path, *, digest: str | None = None) -> None:
    """Write a package to ``folder``, all of it or nothing; several processes may do so at once.

    The files are read-only. Every content is hashed and the whole must be what the package, and ``digest`` where it is
    given, say it is. A folder that is there already was complete when it appeared and is left as it is.
    Raises ``BadPackage``.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        found = _extract(data, draft)
        if digest is not None:
            _check_digest(found, digest)
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster: its content is the same
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def was_written_to(folder: Path, digest: str) -> bool:
    """Whether an unpacked package holds anything but what it was unpacked with; what Python puts beside modules is none."""
    files: dict[str, str] = {}
    executables: set[str] = set()
    try:
        for here, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in [*names, *(one for one in folders if os.path.islink(os.path.join(here, one)))]:
                path = Path(here, name)
                mode = path.lstat().st_mode
                if not stat.S_ISREG(mode):
                    return True
                relative = path.relative_to(folder).as_posix()
                files[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
                if mode & stat.S_IXUSR:
                    executables.add(relative)
    except OSError:  # nobody can tell
        return True
    return digest_of(files, frozenset(executables)) != digest


def _raise(error: OSError) -> None:
    raise error


def unpacked_bytes(data: bytes) -> int:
    """How much ``unpack`` would write. Raises ``BadPackage``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(entry.file_size for entry in _checked(archive))
    except zipfile.BadZipFile as error:
        raise BadPackage(f"not a code package: {error}") from error


def verify(data: bytes, digest: str) -> None:
    """Whoever takes a package looks at it once before it is kept. Raises ``BadPackage`` where it is not what ``digest`` says."""
    _check_digest(_extract(data, None), digest)


def _check_digest(found: str, wanted: str) -> None:
    if found != wanted:
        raise BadPackage(f"package {found[:12]} was given where {wanted[:12]} was wanted")


def _extract(data: bytes, folder: Path | None) -> str:
    """Write the files below ``folder``, or nowhere; gives the digest of what was read."""
    files: dict[str, str] = {}
    executables: set[str] = set()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in _checked(archive):
                content = archive.read(entry)
                executable = bool((entry.external_attr >> 16) & stat.S_IXUSR)
                if folder is not None:
                    _write(folder / entry.filename, content, 0o555 if executable else 0o444)
                    changed = calendar.timegm(entry.date_time)
                    os.utime(folder / entry.filename, (changed, changed))
                files[entry.filename] = hashlib.sha256(content).hexdigest()
                if executable:
                    executables.add(entry.filename)
            claimed = archive.comment.decode(errors="replace")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError) as error:
        raise BadPackage(f"not a code package: {error}") from error
    except RuntimeError as error:  # zipfile's answer to an encrypted entry
        raise BadPackage(f"not a code package: {error}") from error
    found = digest_of(files, frozenset(executables))
    if found != claimed:
        raise BadPackage("the package does not hold what its digest says")
    return found


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries, once it is sure that writing them stays inside the folder and within the size that is allowed.

    A declared size is a true bound: zipfile never gives more than that of an entry.
    """
    entries = archive.infolist()
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise BadPackage("the package is larger than a code package may be")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        if any(part in ("", ".", "..") for part in name.split("/")) or name in seen:
            raise BadPackage(f"the package has a path that it must not have: {name!r}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadPackage(f"the package has a file that is packed in a foreign way: {name!r}")
        seen.add(name)
    for name in seen:
        if any(str(parent) in seen for parent in PurePosixPath(name).parents):
            raise BadPackage(f"the package has two things at one path: {name!r}")
    return entries


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadPackage(f"the package has two things at one path: {path.name!r}") from error
    with open(descriptor, "wb") as stream:
        stream.write(content)
