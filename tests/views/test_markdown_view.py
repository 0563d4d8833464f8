"""A plan and an apply as a pull request's comment."""

from __future__ import annotations

from typing import Any

import pytest

from serveconf.cli.markdown_view import plan_markdown, result_markdown


def action(name: str, deployment: str | None, reason: str, before: Any = None, after: Any = None) -> dict[str, Any]:
    return {
        "action": name,
        "deployment": deployment,
        "cost": "roll",
        "reason": reason,
        "before": before,
        "after": after,
    }


ROLL = action(
    "roll", "web", "code changed: web.py", {"version": "a", "replicas": 2}, {"version": "b", "replicas": 2, "surge": 2}
)
CREATE = action("create", "cart", "new deployment", None, {"route_prefix": "/cart", "num_replicas": 1})


def plan(*actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"stack": "shop", "base_revision": 2, "changed": bool(actions), "actions": list(actions), **more}


PLAN_AS_MARKDOWN = """\
### Plan of stack `shop`, from revision 2

**Plan: 1 to create, 1 to change, 0 to remove.**

> ⚠️ it goes in waves

| | deployment | what | costs | why |
|---|---|---|---|---|
| `+` | `cart` | create 1 replica at /cart | roll | new deployment |
| `~` | `web` | roll 2 replicas (surge 2) | roll | code changed: web.py |

<details><summary>values</summary>

```json
{
  "cart: create": {
    "before": null,
    "after": {
      "route_prefix": "/cart",
      "num_replicas": 1
    }
  },
  "web: roll": {
    "before": {
      "version": "a",
      "replicas": 2
    },
    "after": {
      "version": "b",
      "replicas": 2,
      "surge": 2
    }
  }
}
```

</details>"""


def test_a_plan_is_a_table_with_its_values_behind_a_fold() -> None:
    assert plan_markdown(plan(CREATE, ROLL, warnings=["it goes in waves"])) == PLAN_AS_MARKDOWN


def test_a_plan_without_changes_is_one_line() -> None:
    assert (
        plan_markdown(plan())
        == "### Plan of stack `shop`, from revision 2\n\n**No changes. Stack 'shop' is up to date.**"
    )


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("a | b", "a \\| b"),
        ("<script> @team **bold** [x](y)", "\\<script\\> @\u2060team \\*\\*bold\\*\\* \\[x\\](y)"),
        ("two\nlines `code`", "two lines \\`code\\`"),
    ],
)
def test_what_others_wrote_stays_text(reason: str, shown: str) -> None:
    assert f"| {shown} |" in plan_markdown(plan(action("route", "web", reason)))


def test_a_fold_is_closed_by_its_own_fence_only_and_bounded() -> None:
    text = plan_markdown(
        plan(action("reconfigure", "web", "x", {"user_config": "```\n# out"}, {"user_config": "y" * 90_000}))
    )
    assert "````json" in text
    assert len(text) < 30_000


RECEIPT = {
    "requests": 19, "failed": 0, "retried": 0, "max_gap_ms": 78.0, "streams_kept": 0, "streams_closed": 0, "duration_s": 2.6,
}  # fmt: skip
PROBLEM = {
    "file": "serve.yaml", "line": 3, "column": 5, "path": "", "message": "KeyError: 'A|B'", "code": "code_failed",
    "severity": "error", "hint": "set it", "deployment": "web", "traceback": "Traceback\n  line",
}  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "problems", "said"),
    [
        (
            "applied",
            [],
            "**Applied revision 3 of stack shop in 2.6 s: 1 rolled; 19 requests, 0 failed, longest gap 78 ms.**",
        ),
        ("unchanged", [], "**No changes. Stack 'shop' is up to date.**"),
        (
            "rolled_back",
            [PROBLEM],
            "- `serve.yaml:3` KeyError: 'A\\|B' [`code_failed`]\n  - set it\n\n  ```text\n  Traceback",
        ),
    ],
)
def test_what_became_of_an_apply_is_told_with_its_receipt(outcome: str, problems: list[Any], said: str) -> None:
    result = {
        "stack": "shop", "revision": 3, "changed": True, "outcome": outcome, "actions": [ROLL], "receipt": RECEIPT,
        "problems": problems,
    }  # fmt: skip
    assert said in result_markdown(result)
