"""Code packages: an immutable, content-addressed copy of app_dir, and what of it belongs to a deployment's version."""

from serveconf.code.package import BadPackage, SnapshotChanged, pack, unpack
from serveconf.code.snapshot import MAX_BYTES, MAX_FILES, Snapshot, take_snapshot
from serveconf.code.versions import is_volatile, relevant_files, version_of

__all__ = [
    "MAX_BYTES",
    "MAX_FILES",
    "BadPackage",
    "Snapshot",
    "SnapshotChanged",
    "is_volatile",
    "pack",
    "relevant_files",
    "take_snapshot",
    "unpack",
    "version_of",
]
