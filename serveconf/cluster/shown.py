"""Text of user code's failures as its author knows it: with the paths of his own folder, not of the unpacked package."""

from __future__ import annotations

from pathlib import Path


def with_own_paths(text: str, code: Path | None, app_dir: str | None) -> str:
    """``text`` with app_dir wherever the package's folder stands."""
    return text if code is None or not app_dir else text.replace(f"{code}/", f"{app_dir}/")
