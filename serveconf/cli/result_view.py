"""The result of an apply (the contract's JSON) as its last lines, and a user's traceback as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serveconf.cli.columns import Color, count, paint, visible
from serveconf.plan.summary import summarise


def render_result(result: Mapping[str, Any], *, color: bool = False) -> str:
    """What became of it, after the problems that it met; without a newline at the end."""
    problems = result.get("problems") or ()
    lines = [render_problems(problems, color=color)] if problems else []
    lines += [_canary(told) for told in (result.get("receipt") or {}).get("canary", ())]
    text, paint_with = _verdict(result)
    return "\n".join([*lines, paint(text, paint_with, bold=True, on=color)])


def render_problems(problems: Iterable[Mapping[str, Any]], *, color: bool = False) -> str:
    """Problems of the served code, each with its place, its author's traceback and its hint."""
    return "\n".join(line for problem in problems for line in _problem(problem, color))


def indented(traceback: str) -> str:
    """A traceback, set apart from what is ours."""
    return "\n".join(f"    {visible(line)}".rstrip() for line in traceback.rstrip().splitlines())


def verdict_of(result: Mapping[str, Any]) -> str:
    """What became of it, in one line."""
    return _verdict(result)[0]


def _verdict(result: Mapping[str, Any]) -> tuple[str, Color]:
    stack, revision = f"stack {result['stack']}", result.get("revision")
    match result["outcome"]:
        case "applied":
            done = summarise(result["actions"])
            return f"Applied revision {revision} of {stack}{_seconds(result)}: {done}{_traffic(result)}.", "green"
        case "unchanged":
            return f"No changes. Stack '{result['stack']}' is up to date.", "green"
        case "rolled_back":
            return f"Not applied{_seconds(result)}: {stack} is as it was{_traffic(result)}.", "red"
        case "failed" if result.get("changed") is False:
            return "Nothing was changed.", "red"
        case "failed":
            return (
                f"Failed{_seconds(result)}, and not rolled back: look at 'serveconf status'{_traffic(result)}.",
                "red",
            )
        case "timeout":
            return f"Not done in time{_seconds(result)}: {stack} is as it was{_traffic(result)}.", "red"
        case "conflict":
            return f"Refused: {stack} is as it was.", "red"
        case other:
            return f"{other}: {stack}", "yellow"


def _canary(told: Mapping[str, Any]) -> str:
    """What both versions of a deployment answered while its canary ran."""
    old, new = (
        f"{count(side['requests'], 'request')}, {side['failed']} failed, p95 {side['p95_ms']:.3g} ms"
        for side in (told["old"], told["new"])
    )
    return f"Canary of {visible(told['deployment'])}: the new version {new}; the old one {old}."


def _seconds(result: Mapping[str, Any]) -> str:
    duration = (result.get("receipt") or {}).get("duration_s")
    return f" in {duration:.1f} s" if duration else ""


def _traffic(result: Mapping[str, Any]) -> str:
    """What the proxies counted meanwhile; nothing where there was no traffic."""
    receipt = result.get("receipt") or {}
    if not receipt.get("requests") and not receipt.get("streams_kept") and not receipt.get("streams_closed"):
        return ""
    parts = [f"{count(receipt['requests'], 'request')}, {receipt['failed']} failed"]
    if receipt.get("retried"):
        parts.append(f"{receipt['retried']} retried")
    if receipt.get("max_gap_ms"):
        parts.append(f"longest gap {receipt['max_gap_ms']:.0f} ms")
    if receipt.get("streams_kept") or receipt.get("streams_closed"):
        parts.append(f"{count(receipt['streams_kept'], 'stream')} kept, {receipt['streams_closed']} closed")
    return f"; {', '.join(parts)}"


def _problem(problem: Mapping[str, Any], color: bool) -> Iterator[str]:
    line = problem.get("line")
    place = f"{problem['file']}:{line}:{problem['column']}: " if line else ""
    about = problem.get("deployment")
    where = f"deployment '{about}': " if about else f"{problem['path']}: " if problem.get("path") else ""
    severity = problem.get("severity") or "error"
    label = paint(severity, "yellow" if severity == "warning" else "red", on=color)
    code = f" [{problem['code']}]" if problem.get("code") else ""
    yield f"{visible(place)}{label}: {visible(where + problem['message'])}{code}"
    if problem.get("traceback"):
        yield indented(problem["traceback"])
    if problem.get("hint"):
        yield f"  {paint('hint:', 'cyan', on=color)} {visible(problem['hint'])}"
