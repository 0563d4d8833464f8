"""Names of files that the walk of app_dir leaves out, by themselves.

Volatile ones, which a running app or an editor writes, are data and no code: in no package and no version, so that an app with a
sqlite file and a log beside its modules is looked at, packed and rolled for its code alone. Whatever else an app is seen to write
below app_dir is its data, too (``ingress.written``). Secret ones hold what nobody means to publish, passwords, keys, tokens: a
package lies in the cluster's store and on every node. They are named.

A line ``!seed.db``, or ``!.env``, in .serveconfignore says that such a file belongs to the code after all.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

VOLATILE = (
    *("*.db", "*.db-*", "*.sqlite", "*.sqlite-*", "*.sqlite3", "*.sqlite3-*", "*-wal", "*-shm", "*-journal"),
    *("*.log", "*.log.*", "*.pid", "*.sock", "*.tmp", "*.temp", "*.bak"),
    *("*.swp", "*.swo", "*.swx", "*~", ".#*", "#*#", ".DS_Store", ".coverage", ".coverage.*", "nohup.out"),
    *("*___jb_tmp___", "*___jb_old___", ".goutputstream-*", ".fuse_hidden*", ".nfs*"),
)
SECRET_FILES = (
    *(".env", ".env.*", ".envrc", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".htpasswd"),
    *(".git-credentials", ".dockercfg", ".vault-token", "*.kdbx"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
    *("*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk"),
)
EXAMPLES = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.schema")
SECRET_FOLDERS = frozenset({".serveconf", ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker"})
_EXACTLY = frozenset(
    name for name in SECRET_FILES if "*" not in name
)  # three short looks: a folder may hold 50,000 files
_BEGINNINGS = tuple(name[:-1] for name in SECRET_FILES if name.endswith("*"))
_ENDS = tuple(name[1:] for name in SECRET_FILES if name.startswith("*"))
_MAY_HOLD_A_KEY = (".pem", ".crt", ".cer", ".pk8")  # most hold certificates, which are public
_KEY = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----", re.MULTILINE)


def is_volatile(path: str) -> bool:
    """Whether a running app or an editor writes files of this name."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) for pattern in VOLATILE)


def is_secret(path: str) -> bool:
    """Whether a file, or a folder (with ``/`` at its end), is kept out for its name."""
    name = path.rstrip("/").rpartition("/")[2]
    if path.endswith("/"):
        return name in SECRET_FOLDERS
    return name not in EXAMPLES and (name in _EXACTLY or name.startswith(_BEGINNINGS) or name.endswith(_ENDS))


def holds_key(path: str, head: bytes) -> bool:
    """Whether a file, of which ``head`` is the beginning, is a private key by its content."""
    name = path.rpartition("/")[2]
    return ("." not in name or name.endswith(_MAY_HOLD_A_KEY)) and _KEY.search(head) is not None
