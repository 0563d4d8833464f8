"""A plan as people read it."""

from __future__ import annotations

from typing import Any

from serveconf.cli.columns import folded
from serveconf.cli.markdown_view import plan_markdown
from serveconf.cli.plan_view import render_plan


def action(name: str, deployment: str | None, reason: str, before: Any = None, after: Any = None) -> dict[str, Any]:
    return {"action": name, "deployment": deployment, "cost": "", "reason": reason, "before": before, "after": after}


def plan(*actions: dict[str, Any]) -> dict[str, Any]:
    return {"stack": "shop", "base_revision": 2, "changed": bool(actions), "actions": list(actions)}


EVERYTHING = plan(
    action("proxy", None, "spec changed: port", {"port": 8000}, {"port": 9000}),
    action(
        "create",
        "cart",
        "new deployment",
        None,
        {"import_path": "shop.cart:app", "route_prefix": "/cart", "num_replicas": 1, "operations": ["GET /"]},
    ),
    action(
        "roll",
        "catalog",
        "code changed: shop/catalog.py",
        {"version": "a", "replicas": 2, "operations": ["GET /old"]},
        {"version": "b", "replicas": 2, "surge": 2, "init_kwargs.model": "big"},
    ),
    action("scale", "catalog", "spec changed: num_replicas", {"num_replicas": 2}, {"num_replicas": 3}),
    action("route", "catalog", "spec changed: route_prefix", {"route_prefix": "/a"}, {"route_prefix": "/b"}),
    action("reconfigure", "catalog", "spec changed: user_config", {"user_config": 1}, {"user_config": None}),
    action("scale", "small", "replicas missing: 1 of 2 live", {"replicas": 1}, {"replicas": 2}),
    action("remove", "old", "no longer in the spec", {"route_prefix": "/old", "replicas": 1}),
)

EVERYTHING_AS_TEXT = """\
  ~ http front  replace listeners          spec changed: port
      port: 8000 → 9000
  + cart        create 1 replica at /cart  new deployment
      import_path: "shop.cart:app"
      + GET /
  ~ catalog     roll 2 replicas (surge 2)  code changed: shop/catalog.py
      init_kwargs.model: (none) → "big"
      - GET /old
  ~ catalog     scale 2 → 3 replicas       spec changed: num_replicas
  ~ catalog     move /a → /b               spec changed: route_prefix
  ~ catalog     reconfigure                spec changed: user_config
      user_config: 1 → null
  ~ small       scale 1 → 2 replicas       replicas missing: 1 of 2 live
  - old         remove 1 replica           no longer in the spec

Plan: 1 to create, 3 to change, 1 to remove."""


def test_every_action_has_its_sign_what_is_done_and_why() -> None:
    assert render_plan(EVERYTHING) == EVERYTHING_AS_TEXT


def test_an_empty_plan_says_that_all_is_well() -> None:
    assert render_plan(plan()) == "No changes. Stack 'shop' is up to date."


def test_colours_change_nothing_but_colours() -> None:
    import re

    colored = render_plan(EVERYTHING, color=True)
    assert "\x1b[32m+ cart" in colored
    assert re.sub(r"\x1b\[[0-9]*m", "", colored) == EVERYTHING_AS_TEXT


def test_warnings_stand_before_the_summary() -> None:
    text = render_plan(plan(), warnings=["GET /x of 'a' cannot be reached"])
    assert text.splitlines()[0] == "warning: GET /x of 'a' cannot be reached"


def test_long_lists_and_values_are_cut_and_say_so() -> None:
    files = ", ".join(f"f{n}.py" for n in range(9))
    operations = [f"GET /{n}" for n in range(10)]
    after = {"version": "b", "replicas": 1, "surge": 1, "operations": operations, "init_kwargs.x": "y" * 99}
    text = render_plan(plan(action("roll", "a", f"code changed: {files}", {"version": "a", "replicas": 1}, after)))
    assert "code changed: f0.py, f1.py, f2.py and 6 more" in text
    assert "+ 2 more operations" in text
    assert "yy…" in text


def test_text_from_users_cannot_steer_the_terminal() -> None:
    text = render_plan(plan(action("update", "a", "code changed: \x1b[2Jx.py", {"k": "\x1b[0m"}, {"k": "\x07"})))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_renamed_deployment_says_its_names_once() -> None:
    moved = action("route", "goods", "moved: catalog → goods", {"name": "catalog"}, {"name": "goods"})
    assert render_plan(plan(moved)).splitlines()[:2] == ["  ~ goods  route  moved: catalog → goods", ""]
    elsewhere = action("route", "goods", "spec changed: route_prefix", {"route_prefix": "/a"}, {"route_prefix": "/b"})
    said = plan_markdown(plan(moved, elsewhere))
    assert '"name": "catalog"' in said and '"route_prefix": "/b"' in said


def test_what_is_too_long_for_a_terminal_goes_on_below_where_it_began() -> None:
    wide = render_plan(EVERYTHING)
    assert render_plan(EVERYTHING, width=max(map(len, wide.split("\n")))) == wide
    line = "  ~ web  roll 2 replicas  \x1b[2mcode changed: a.py; spec changed: max_ongoing_requests\x1b[0m"
    assert folded(line, 60, 26) == [
        "  ~ web  roll 2 replicas  \x1b[2mcode changed: a.py; spec changed:",
        " " * 26 + "max_ongoing_requests\x1b[0m",
    ]
    assert folded("  a " + "x" * 90 + " b", 40, 4) == ["  a", "    " + "x" * 90, "    b"]
    assert folded(line, None, 26) == [line]
