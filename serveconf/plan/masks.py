"""Values that came from variables are shown as the variable, never as what it held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serveconf.spec.problems import join


def shown(value: Any, path: str, masks: Mapping[str, str]) -> Any:
    """``value``, which stands at ``path``, with everything masked that ``masks`` names."""
    if not masks:
        return value
    mask = masks.get(path)
    if mask is not None:
        return mask
    match value:
        case Mapping():
            return {key: shown(inside, join(path, key), masks) for key, inside in value.items()}
        case list() | tuple():
            return [shown(inside, join(path, index), masks) for index, inside in enumerate(value)]
        case _:
            return value
