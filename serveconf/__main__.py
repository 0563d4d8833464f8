"""``python -m serveconf``: the command, where its script is not on the PATH."""

from __future__ import annotations

from serveconf.cli.main import main

if __name__ == "__main__":
    main()
