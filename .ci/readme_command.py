"""Print the README's command of one kind, ``run`` or ``test``: the code block after ``<!-- command: KIND -->``."""

import re
import sys
from pathlib import Path


def readme_command(kind: str) -> str:
    """The command, on one line as a shell takes it."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    found = re.search(rf"<!-- command: {kind} -->\s*```bash\n(.*?)\n```", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no command of kind {kind}")
    return found.group(1)


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
