"""Ray's label selectors: which nodes they take. Pure; Ray itself decides at the end, this says beforehand what it will come to.

A value is ``v``, ``!v``, ``in(a, b)`` or ``!in(a, b)``; a node without the label is taken by the negated ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def takes(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets every condition."""
    return all(meets(condition, labels.get(key)) for key, condition in selector.items())


def rank(selectors: Sequence[Mapping[str, str]], labels: Mapping[str, str]) -> int | None:
    """Which of the selectors is the first that takes a node with these labels; None: none does."""
    return next((i for i, selector in enumerate(selectors) if takes(selector, labels)), None)


def meets(condition: str, value: str | None) -> bool:
    """Whether a label's value (None: the node has no such label) is what one condition asks for."""
    wanted, negated = _parsed(condition)
    return (value in wanted) is not negated


def unmet(selector: Mapping[str, str], nodes: Iterable[Mapping[str, str]]) -> str:
    """What of a selector no node meets, with what the nodes have instead: for people."""
    nodes = list(nodes)
    alone = [key for key, condition in selector.items() if not any(meets(condition, node.get(key)) for node in nodes)]
    said = []
    for key in alone or selector:
        there = sorted({node[key] for node in nodes if key in node})
        has = f"the nodes have {', '.join(there[:8])}" if there else "no node has that label"
        said.append(f"{key}={selector[key]} ({has})")
    return ", ".join(said) if alone else f"{' and '.join(said)} on one node"


def _parsed(condition: str) -> tuple[frozenset[str], bool]:
    text = condition.strip()
    negated = text.startswith("!")
    text = text.removeprefix("!").strip()
    if text.startswith("in(") and text.endswith(")"):
        return frozenset(part.strip() for part in text[3:-1].split(",")), negated
    return frozenset({text}), negated
