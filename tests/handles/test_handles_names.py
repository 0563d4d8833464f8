"""What an application's name means, to code that asks for a handle of it."""

from __future__ import annotations

import pytest

from serveconf.handles.calls import Target
from serveconf.handles.directory import meant_by

ROUTES = [
    Target(stack="shop", deployment="Front"),
    Target(stack="shop", deployment="Front.Model"),
    Target(stack="site", deployment="blog"),
    Target(stack="site", deployment="wiki"),
    Target(stack="other", deployment="wiki"),
]


@pytest.mark.parametrize(
    ("stack", "deployment", "meant"),
    [
        ("shop", "", ("shop", "Front")),  # what serve.run made under that name
        ("blog", "", ("site", "blog")),  # an entry of a spec
        ("site", "", None),  # two entries, and none is called so
        ("wiki", "", None),  # in two stacks
        ("nobody", "", None),
        ("shop", "Front.Model", ("shop", "Front.Model")),
        ("shop", "Model", None),
    ],
)
def test_a_name_means_one_deployment_or_none(stack: str, deployment: str, meant: tuple[str, str] | None) -> None:
    found = meant_by(Target(stack=stack, deployment=deployment), ROUTES)
    assert (None if found is None else (found.stack, found.deployment)) == meant
