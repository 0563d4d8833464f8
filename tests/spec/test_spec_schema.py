"""The JSON Schema, the spec page and ``explain``: complete, equal to the models, and useful to an editor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from corpus import Case, cases

from serveconf.spec.codes import CODES
from serveconf.spec.fields import walk_fields
from serveconf.spec.models import Cost
from serveconf.spec.page import docs_page
from serveconf.spec.reference import COSTS, describe, entries, find_field
from serveconf.spec.schema import json_schema
from serveconf.spec.tree import parse

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
EDITOR = jsonschema.Draft202012Validator(SCHEMA)
PATHS = [path for path, _ in walk_fields()]

# What only the loader can know: a pattern beside a type would say it worse, or it concerns what stands below ``any``.
BEYOND_THE_SCHEMA = {
    "headers that no request has",
    "a host is a URL", "a host with a port", "a host with a number too large", "a prefix with dots", "a prefix that is kept",
    "an import path with a file name", "GPU as a custom resource", "a working directory in the runtime environment",
    "an environment variable that is no text", "a name is too long", "a schedule in a time zone that is none",
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "file"), [("schema", "schemas/serveconf.schema.json"), ("explain -o markdown", "docs/spec.md")]
)
def test_what_is_written_from_the_models_is_what_the_command_writes(command: str, file: str) -> None:
    """In a process of its own, where no test has had pydantic look at the models before."""
    done = subprocess.run(
        [sys.executable, "-m", "serveconf", *command.split()], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == (ROOT / file).read_text(encoding="utf-8"), f"run: serveconf {command} > {file}"


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema["$defs"].values()]


def test_every_key_of_the_schema_says_what_an_editor_shows() -> None:
    for holder in (one for one in objects(SCHEMA) if "properties" in one):
        assert holder["additionalProperties"] is False
        assert holder["description"]
        for name, field in holder["properties"].items():
            assert field["title"] == name
            assert field["description"], name
            assert field["examples"], name
            assert "default" in field or "x-default" in field or name in holder.get("required", ()), name
            assert field["x-change-cost"] in {cost.value for cost in Cost}


# 1e2 without a dot is a number in YAML 1.2 only, and this test reads YAML 1.1.
@pytest.mark.parametrize("case", [case for case in cases("good.txt") if case.title != "an exponent"], ids=str)
def test_an_editor_accepts_what_is_good(case: Case) -> None:
    assert list(EDITOR.iter_errors(yaml.safe_load(case.text))) == []


@pytest.mark.parametrize(
    "case", [case for case in cases("bad_fields.txt") if case.title not in BEYOND_THE_SCHEMA], ids=str
)
def test_an_editor_refuses_what_is_bad(case: Case) -> None:
    assert list(EDITOR.iter_errors(yaml.safe_load(case.text)))


@pytest.mark.parametrize("path", PATHS)
def test_every_example_of_a_field_fits_it(path: str) -> None:
    entry = entries()[path]
    for example in entry.examples:
        inner: Any = example
        names = re.findall(r"\w+|\[\]", path)
        for step in reversed(names):
            inner = [inner] if step == "[]" else {step: inner}
        assert [error for error in EDITOR.iter_errors(inner) if not only_lacks_keys(error)] == []


def only_lacks_keys(error: Any) -> bool:
    """Whether nothing is wrong but that an example of one key leaves out the others."""
    if error.validator == "anyOf":
        branches = {part.schema_path[0] for part in error.context}
        return any(
            all(only_lacks_keys(part) for part in error.context if part.schema_path[0] == branch) for branch in branches
        )
    return bool(error.validator == "required")


def test_an_editor_accepts_a_variable_where_a_number_is_wanted() -> None:
    assert EDITOR.is_valid(
        {"http_options": {"port": "${PORT}", "location": "${LOCATION:-HeadOnly}", "request_timeout_s": "${T}"}}
    )
    assert EDITOR.is_valid(
        {"name": "${NAME}", "deployments": [{"name": "a", "import_path": "${MODULE}:app", "factory": "${F}"}]}
    )
    assert not EDITOR.is_valid({"http_options": {"port": "8000"}})


def test_every_field_is_on_the_page_and_can_be_explained() -> None:
    page = docs_page()
    for path, field in walk_fields():
        found, _ = find_field(path)
        assert found is not None
        assert found.path == path
        assert field.meaning in describe(found)
        assert COSTS[field.cost] in describe(found)
        assert f"| `{field.name}` |" in page or path.startswith("defaults.")
        assert field.meaning.replace("|", "\\|") in page
    for code in CODES:
        assert f"| `{code}` |" in page


def test_examples_on_the_page_are_yaml() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", docs_page(), re.DOTALL):
        assert parse(block.encode(), "page").problems == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("deployments.num_replicas", "deployments[].num_replicas"),
        ("deployments[0].rollout.bake_s", "deployments[].rollout.bake_s"),
        ("num_replicas", "deployments[].num_replicas"),
        ("rollout.max_surge", "deployments[].rollout.max_surge"),
        ("defaults.num_replicas", "defaults.num_replicas"),
        ("name", "name"),
        (".", ""),
    ],
)
def test_a_field_is_found_as_people_write_it(query: str, path: str) -> None:
    found, _ = find_field(query)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("http_options.prot", "http_options.port"),
        ("num_replcas", "deployments[].num_replicas"),
        ("request_timeout_s", "http_options.request_timeout_s' or 'deployments[].request_timeout_s"),
        ("zzzzz", None),
    ],
)
def test_a_field_that_is_not_there_gives_what_may_be_meant(query: str, meant: str | None) -> None:
    assert find_field(query) == (None, meant)
