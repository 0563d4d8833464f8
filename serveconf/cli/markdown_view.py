"""A plan, and what became of an apply, as markdown: for the comment of a pull request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from serveconf.cli.plan_view import mark_of, reason_of, summary_line, what_of
from serveconf.cli.result_view import verdict_of

_MOST_DETAILS = 20_000  # characters: a comment holds 65,536


def plan_markdown(plan: Mapping[str, Any]) -> str:
    """The plan: a line that sums it up, a table, and the values behind a fold."""
    title = f"### Plan of stack `{_code(plan['stack'])}`"
    base = f", from revision {plan['base_revision']}" if plan["base_revision"] else ""
    return "\n".join([f"{title}{base}", "", *_plan(plan)])


def result_markdown(result: Mapping[str, Any]) -> str:
    """The result of an apply: the verdict with its receipt, problems, and what was done."""
    lines = [f"### Apply of stack `{_code(result['stack'])}`", "", f"**{_text(verdict_of(result))}**"]
    for problem in result.get("problems") or ():
        lines += ["", *_problem(problem)]
    if result.get("actions"):
        lines += ["", *_table(result["actions"])]
    return "\n".join(lines)


def _plan(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"**{_text(summary_line(plan))}**"
    for warning in plan.get("warnings") or ():
        yield ""
        yield f"> ⚠️ {_text(warning)}"
    if plan["actions"]:
        yield ""
        yield from _table(plan["actions"])
        yield from _details(plan["actions"])


def _table(actions: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| | deployment | what | costs | why |"
    yield "|---|---|---|---|---|"
    for action in actions:
        name = f"`{_code(action['deployment'])}`" if action["deployment"] else "http front"
        cells = (f"`{mark_of(action)}`", name, _text(what_of(action)), action["cost"], _text(reason_of(action)))
        yield f"| {' | '.join(cells)} |"


def _details(actions: list[Mapping[str, Any]]) -> Iterator[str]:
    values: dict[str, dict[str, Any]] = {}
    for action in actions:
        if action["before"] or action["after"]:  # who is renamed and gets another prefix is routed twice
            key = f"{action['deployment'] or 'http front'}: {action['action']}"
            said = values.setdefault(key, {"before": None, "after": None})
            for side in said:
                said[side] = {**(said[side] or {}), **action[side]} if action[side] is not None else said[side]
    text = json.dumps(values, indent=2, ensure_ascii=False)
    if len(text) > _MOST_DETAILS:
        text = f"{text[:_MOST_DETAILS]}\n…"
    if values:
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
        yield from ("", "<details><summary>values</summary>", "", f"{fence}json", text, fence, "", "</details>")


def _problem(problem: Mapping[str, Any]) -> Iterator[str]:
    place = f"`{_code(problem['file'])}:{problem['line']}` " if problem.get("line") else ""
    code = f" [`{problem['code']}`]" if problem.get("code") else ""
    yield f"- {place}{_text(problem['message'])}{code}"
    if problem.get("hint"):
        yield f"  - {_text(problem['hint'])}"
    if problem.get("traceback"):
        yield from ("", "  ```text", *(f"  {line}" for line in problem["traceback"].rstrip().splitlines()), "  ```")


def _text(text: str) -> str:
    """Text that stays text: no table cell, no markup, no mention of anyone."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", one_line).replace("@", "@\u2060")


def _code(text: str) -> str:
    """Text within backticks, in a cell of a table."""
    return str(text).replace("`", "'").replace("|", "\\|")
