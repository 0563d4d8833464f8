"""The pytest fixture ``serve_spec``: name this module in ``pytest_plugins`` of a conftest.py.

Each spec that a test serves with it ends with the test: ``client = serve_spec("serve.yaml")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from serveconf.spec_client import SpecClient


@pytest.fixture
def serve_spec() -> Iterator[Callable[..., SpecClient]]:
    """``serve_spec(spec, env=…)``: a client of the spec, until the end of the test."""
    from serveconf.spec_client import serve_spec as serve  # nothing of it is imported for tests that do not ask

    with ExitStack() as stack:

        def start(spec: object, **options: object) -> SpecClient:
            return stack.enter_context(serve(spec, **options))  # type: ignore[arg-type]

        yield start
