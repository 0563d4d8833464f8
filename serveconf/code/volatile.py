"""Names of files that a running app or an editor writes: data, and no code. The walk of app_dir leaves them out.

Whatever else an app is seen to write below app_dir is its data, too (``ingress.written``).

They are in no package and no version, so that an app with a sqlite file and a log beside its modules is looked at, packed
and rolled for its code alone. A line ``!seed.db`` in .serveconfignore says that such a file is code after all.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

VOLATILE = (
    *("*.db", "*.db-*", "*.sqlite", "*.sqlite-*", "*.sqlite3", "*.sqlite3-*", "*-wal", "*-shm", "*-journal"),
    *("*.log", "*.log.*", "*.pid", "*.sock", "*.tmp", "*.temp", "*.bak"),
    *("*.swp", "*.swo", "*.swx", "*~", ".#*", "#*#", ".DS_Store", ".coverage", ".coverage.*", "nohup.out"),
    *("*___jb_tmp___", "*___jb_old___", ".goutputstream-*", ".fuse_hidden*", ".nfs*"),
)


def is_volatile(path: str) -> bool:
    """Whether a running app or an editor writes files of this name."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) for pattern in VOLATILE)
