"""Text that others wrote, without the values that came from variables: exceptions of user code say what they were given.

Where a value is known to be secret by its path, ``masks.shown`` does it; here only the text is there, so the values themselves
are looked for. What is too short to be told from other words stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.spec.problems import join

SHORTEST = 6  # characters; a shorter one is a word or a number that stands in many texts
MOST_PIECES = 9  # of a text with variables: to take one with more apart may take long

_VARIABLE = re.compile(r"(\$\{[^}]*\})")
Secrets = Mapping[str, str]  # what is not to be shown -> what is shown instead


def secrets_of(value: Any, path: str, masks: Mapping[str, str]) -> dict[str, str]:
    """The values below ``path`` that came from variables, and what of each the variables themselves gave."""
    return {text: mask for text, mask in _secrets(value, path, masks) if len(text) >= SHORTEST} if masks else {}


def secrets_of_deployment(deployment: DesiredDeployment) -> dict[str, str]:
    """Those of one deployment."""
    return {
        text: mask
        for key, value in deployment.spec.items()
        for text, mask in secrets_of(value, key, deployment.masks).items()
    }


def secrets_of_stack(stack: DesiredStack) -> dict[str, str]:
    """Those of a stack and all its deployments."""
    found: dict[str, str] = {}
    for key, value in stack.http_options.items():
        found |= secrets_of(value, key, stack.masks)
    for deployment in stack.deployments:
        found |= secrets_of_deployment(deployment)
    return found


def hide(text: str, secrets: Secrets) -> str:
    """``text`` with what is shown instead of each secret, the longest first; also as it stands in quotes."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (
            secret,
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
        ):
            text = text.replace(form, secrets[secret])
    return text


def _secrets(value: Any, path: str, masks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    mask = masks.get(path)
    match value:
        case Mapping():
            for key, inside in value.items():
                yield from _secrets(inside, join(path, key), masks)
        case list() | tuple():
            for index, inside in enumerate(value):
                yield from _secrets(inside, join(path, index), masks)
        case bool() | None:
            return
        case _ if mask is not None:
            yield str(value), mask
            yield from _parts(str(value), mask)


def _parts(text: str, mask: str) -> Iterator[tuple[str, str]]:
    """What each variable gave to a text that holds more: ``postgres://me:${PASSWORD}@host``."""
    pieces = _VARIABLE.split(mask)
    if not any(pieces[::2]) or len(pieces) > MOST_PIECES:
        return
    pattern = "".join(
        "(.*?)" if index % 2 else re.escape(piece.replace("$$", "$")) for index, piece in enumerate(pieces)
    )
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is not None:
        yield from zip(found.groups(), pieces[1::2], strict=True)
