"""The status document with its keys as attributes too: ``serve.status().stacks[0].deployments[0].state``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Status(dict[str, Any]):
    """A JSON object; what is in it is made the same way."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__({key: _shown(value) for key, value in data.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return Status(value)
    return [_shown(one) for one in value] if isinstance(value, list) else value
