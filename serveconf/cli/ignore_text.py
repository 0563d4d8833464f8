"""The .serveconfignore that ``init`` writes beside the code where there is none: comments that say what it is for."""

from __future__ import annotations

from pathlib import Path

from serveconf.code.ignore import OUR_FILE
from serveconf.disk import write_whole

TEMPLATE = """\
# What of this folder is no code: it is in no package, and a change of it replaces no replica. Written as .gitignore is.
# Left out without a word of this file: what .gitignore names, secrets (.env, *.key, ...), sqlite files and logs, and what a
# running app is seen to write here ('serveconf status DEPLOYMENT' lists that).
#
# Data that C code or a child process writes is not seen; name it:
# uploads/
#
# A line with ! says that something is code after all, whatever its name is and whoever writes it:
# !seed.db
"""


def write_ignore(folder: Path) -> Path | None:
    """Write it; None where there is one."""
    file = folder / OUR_FILE
    if file.exists():
        return None
    write_whole(file, TEMPLATE)
    return file
