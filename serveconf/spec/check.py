"""One reading against the models: the models' errors come out as problems in our words, with our codes.

Only this module knows what a validation error of the models looks like.
"""

from __future__ import annotations

import difflib
import os
import re
import threading
import zoneinfo
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serveconf.spec.checks import SCHEDULE_END, SCHEDULE_START
from serveconf.spec.fields import SPEC_FILE, Shape
from serveconf.spec.hints import explain_unknown_key, place_of
from serveconf.spec.models import SpecFile
from serveconf.spec.problems import Broken, Problem, join
from serveconf.spec.reading import Reading
from serveconf.spec.scalars import quoted

_WHAT = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "mapping": "a mapping",
    "null": "null",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least {}", "ge"),
    "greater_than": ("must be greater than {}", "gt"),
    "less_than_equal": ("must be at most {}", "le"),
    "less_than": ("must be less than {}", "lt"),
}


def check(reading: Reading) -> list[Problem]:
    """All that the models have against the reading's data, each place once."""
    with _building:  # the first ones may be two files at once, and the environment is everybody's
        _build_validator()
    try:
        SpecFile.model_validate(reading.data)
    except ValidationError as error:
        found: dict[str, Problem] = {}
        reported = {(problem.line, problem.column) for problem in reading.problems}
        for detail in error.errors(include_url=False):
            if problem := _translate(detail, reading, reported, guess=len(found) < _MOST_GUESSES):
                found.setdefault(problem.path, problem)
        return list(found.values())
    return []


_building = threading.Lock()


@cache
def _build_validator() -> None:
    """The models' validator, without pydantic's plugins: looking for them reads the metadata of every installed package."""
    before = os.environ.get("PYDANTIC_DISABLE_PLUGINS")
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    try:
        SpecFile.model_rebuild()
    finally:
        if before is None:
            del os.environ["PYDANTIC_DISABLE_PLUGINS"]
        else:
            os.environ["PYDANTIC_DISABLE_PLUGINS"] = before


_MOST_GUESSES = 200  # unknown keys that are compared with the known ones, which takes time


def _translate(error: ErrorDetails, reading: Reading, reported: set[tuple[int, int]], *, guess: bool) -> Problem | None:
    path, shape, rest = _locate(error["loc"], reading.data)
    kind, value = error["type"], error["input"]
    if kind == "missing":
        message, code, hint = _missing(str(rest[0]) if rest else "", place_of(path))
        return reading.problem(join(path, str(rest[0])), message, code, hint)
    if kind == "extra_forbidden":
        holder, holder_shape, _ = _locate(error["loc"][:-1], reading.data)
        at = reading.key_at.get(path)
        if at and (at.line, at.column) in reported:
            return None  # the key's own form was reported
        unknown = explain_unknown_key(holder, str(error["loc"][-1]), holder_shape, guess=guess)
        return reading.problem(path, unknown.message, unknown.code, unknown.hint, key=True)
    if isinstance(value, Broken):
        return None
    message, code, hint = _value_error(error, shape, path, reading)
    for key in error.get("ctx", {}).get("at", ()):
        path = join(path, key)
    if origin := reading.origins.get(path):
        message, hint = f"{message} (the text comes from {origin})", None  # a hint might show a secret
    return reading.problem(path, message, code, hint)


def _locate(loc: tuple[int | str, ...], data: Any) -> tuple[str, Shape, tuple[int | str, ...]]:
    """The path as far as the data has it, the shape that belongs there, and what is left of the location."""
    path, shape = "", SPEC_FILE
    for index, step in enumerate(loc):
        inside = (isinstance(data, Mapping) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if not inside:
            return path, shape, loc[index:]
        path, shape, data = join(path, step), shape.child(step), data[step]
    return path, shape, ()


def _missing(key: str, place: str) -> tuple[str, str, str | None]:
    hints = {
        "import_path": "write what to serve as module:attribute, such as 'import_path: main:app'",
        "name": "every deployment has a name",
    }
    return f"the key '{key}' is missing", "missing_key", hints.get(key)


def _value_error(error: ErrorDetails, shape: Shape, path: str, reading: Reading) -> tuple[str, str, str | None]:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind in _BOUNDS:
        text, key = _BOUNDS[kind]
        return text.format(_number(context[key])) if key in context else error["msg"], "range", None
    if kind == "string_too_short":
        return "must not be empty", "length", None
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters", "length", None
    if kind in _OUR_KINDS:
        return error["msg"], kind, _hint_for_text(kind, value)
    return _type_error(value, shape, path, reading)


# Raised by the models' own validators, with wording of ours; the kind is the problem's code.
_OUR_KINDS = frozenset(
    {
        "prefix", "path", "host", "import_path", "name", "percent", "choice", "runtime_env", "resources", "time",
        "timezone", "method", "header", "steps", "cookie", "url", "label_selector", "bundle",
    }
)  # fmt: skip


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _type_error(value: Any, shape: Shape, path: str, reading: Reading) -> tuple[str, str, str | None]:
    wanted = " or ".join(words for kind, words in _WHAT.items() if kind in shape.kinds)
    if shape.choices:
        others = [words for kind, words in _WHAT.items() if kind in shape.kinds - {"string", "null"}]
        wanted = " or ".join([*others, ", ".join(shape.choices), *(["null"] if "null" in shape.kinds else [])])
    got = _got(value)
    message = f"must be {wanted}" + ("" if path in reading.origins else f", not {got}")
    return message, "type", _type_hint(value, shape, reading.texts.get(path), place_of(path))


def _got(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case float():
            return "a fraction"
        case int():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _type_hint(value: Any, shape: Shape, text: str | None, place: str) -> str | None:
    kinds = shape.kinds
    match value:
        case None if place.endswith("[]"):
            return "fill it in, or remove the '-'"
        case None:
            return "give it a value, or leave the key out"
        case bool() | int() | float() if (
            "string" in kinds and text and not (shape.choices or place.endswith("import_path"))
        ):
            return f"write {quoted(text)}"
        case str() if place.endswith("num_replicas") and value.lower() == "auto":
            return "write auto"
        case str() if "boolean" in kinds and value.lower() in ("yes", "on", "true", "no", "off", "false"):
            return f"write {'true' if value.lower() in ('yes', 'on', 'true') else 'false'}, without quotes"
        case str() if kinds & {"integer", "number"} and _is_number(value):
            return f"write {value} without quotes"
        case str() if "number" in kinds and value[:1].isdigit() and place.endswith("_s"):
            return "write the number of seconds, without a unit"
        case str() if "integer" in kinds and value[:1].isdigit() and place.endswith("_bytes"):
            return "write the number of bytes, without a unit"
        case str() if "number" in kinds and value.endswith("%") and _is_number(value[:-1]):
            return f"write {float(value[:-1]) / 100:g}"
        case dict() if "list" in kinds:
            return "begin each item with '- '"
        case list() if "mapping" in kinds:
            return "write 'key: value' lines, without '- '"
        case str() if "list" in kinds:
            return "write a list, such as [one]" if value else None
        case _:
            return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return len(text) < 20


def _hint_for_text(kind: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if kind == "import_path":
        return _import_hint(value)
    if kind == "prefix" and not value.startswith("/") and value and not set(value) & set("?#{}%*\\ "):
        return f"write {'/' + value.rstrip('/')}"
    if kind == "prefix" and value.endswith("/") and value.rstrip("/"):
        return f"write {value.rstrip('/')}"
    if kind == "url" and "://" not in value:
        return f"write http://{value}"
    if kind == "time":
        return _time_hint(value)
    if kind == "timezone":
        return _timezone_hint(value)
    if kind == "method" and value.upper() != value and value.isalpha():
        return f"write {value.upper()}"
    if kind == "choice":
        meant = [
            word for word in ("HeadOnly", "EveryNode", "NoServer") if word.lower() == value.lower().replace("_", "")
        ]
        return f"did you mean '{meant[0]}'?" if meant else "Disabled is NoServer here" if value == "Disabled" else None
    return None


def _time_hint(value: str) -> str | None:
    """The same with days as they are written here, and two digits for the hour, where that makes it right."""
    words = value.replace("–", "-").replace(", ", ",").split()
    if not words or len(value) > 100:
        return None
    days = re.sub(r"[A-Za-z]+", lambda word: word[0][:3].capitalize(), "".join(words[:-1]))
    hour, _, minute = words[-1].partition(":")
    meant = f"{days} {hour.zfill(2)}:{minute or '00'}".strip()
    right = re.fullmatch(SCHEDULE_START, meant) or re.fullmatch(SCHEDULE_END, meant)
    return f"did you mean '{meant}'?" if right and meant != value else None


def _timezone_hint(value: str) -> str | None:
    zones = zoneinfo.available_timezones() if len(value) < 60 else set()
    by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(zones, reverse=True)}
    wanted = value.replace(" ", "_")
    city = by_city.get(wanted.rpartition("/")[2].lower())
    near = [city] if city else difflib.get_close_matches(wanted, sorted(zones), n=1)
    return f"did you mean '{near[0]}'?" if near else "such as UTC or Europe/Berlin"


def _import_hint(value: str) -> str | None:
    if len(value) > 200:
        return None
    module, colon, attribute = value.partition(":")
    module = module.removesuffix(".py").strip("./").replace("/", ".")
    if not colon and "." in module and module.replace(".", "").isidentifier():
        module, _, attribute = module.rpartition(".")
    meant = f"{module}:{attribute or 'app'}"
    return (
        f"did you mean '{meant}'?"
        if meant.replace(":", "").replace(".", "").isidentifier() and meant != value
        else None
    )


def not_supported(reading: Reading, unsupported: frozenset[str]) -> Iterator[Problem]:
    """Fields that are set to more than their default although their behaviour is not built yet."""
    yield from _not_supported(reading, unsupported, reading.data, SPEC_FILE, "")


def _not_supported(
    reading: Reading, unsupported: frozenset[str], data: Any, shape: Shape, path: str
) -> Iterator[Problem]:
    if isinstance(data, list) and shape.item and shape.item.model:
        for index, item in enumerate(data):
            yield from _not_supported(reading, unsupported, item, shape.item, join(path, index))
    if not isinstance(data, dict):
        return
    for key, field in shape.fields.items():
        if key not in data or isinstance(data[key], Broken):
            continue
        here = join(path, key)
        if place_of(here) in unsupported and data[key] != field.info.default:
            yield reading.problem(here, "not supported yet", "not_supported", "leave it out for now", key=True)
        else:
            yield from _not_supported(reading, unsupported, data[key], field.shape, here)
