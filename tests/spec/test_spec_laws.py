"""Laws of specs: what is written is what is read, whoever writes it, and however often it goes round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveconf.cli.dump import spec_yaml
from serveconf.cli.spec_text import Entry, names_for, spec_text
from serveconf.reconcile.result import masked
from serveconf.spec.fields import walk_fields
from serveconf.spec.load import load_file, load_mapping
from serveconf.spec.models import DeploymentSpec, as_wire
from serveconf.spec.problems import SpecInvalid
from serveconf.spec.reference import describe, find_field

ODD = [
    "NO",
    "on",
    "017",
    "1:30",
    "1e3",
    "null",
    "~",
    "",
    " a ",
    "- a",
    "a: b",
    "#",
    "'",
    '"',
    "%",
    "@",
    "&a",
    "*a",
    "!t",
]
ODD += [
    "${HOME}",
    "$${A}",
    "$",
    "$$",
    "a$b",
    "two\nlines",
    "\ttab",
    "2024-01-01",
    ".inf",
    "0x1F",
    "ä✓😀",
    "\u2028",
    "\x85",
]
TEXTS = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8)
KEYS = st.text("abcXY_-. 12$", min_size=1, max_size=5).filter(lambda key: "${" not in key)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,6}[A-Za-z0-9]", fullmatch=True)
DEPLOYMENTS = st.fixed_dictionaries(
    {"name": NAMES, "import_path": st.just("m:app")},
    optional={
        "num_replicas": st.integers(1, 9),
        "user_config": DATA,
        "init_args": st.lists(DATA, max_size=3),
        "init_kwargs": st.dictionaries(st.text("abc", min_size=1, max_size=3), DATA, max_size=2),
        "max_queued_requests": st.integers(-1, 9),
        "graceful_shutdown_timeout_s": st.floats(0, 100),
    },
)
SPECS = st.fixed_dictionaries(
    {"deployments": st.lists(DEPLOYMENTS, min_size=1, max_size=3, unique_by=lambda one: str(one["name"]).lower())},
    optional={"name": NAMES, "standbys": st.integers(0, 3), "http_options": st.just({"port": 9000})},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws")


def in_file(folder: Path, text: str, env: dict[str, str] | None = None) -> Any:
    (folder / "serve.yaml").write_text(text, encoding="utf-8")
    return load_file(folder / "serve.yaml", env=env or {})


@settings(max_examples=40)
@given(spec=SPECS)
def test_what_is_dumped_is_read_as_what_it_was(folder: Path, spec: dict[str, Any]) -> None:
    first = load_mapping(spec, base_dir=folder)
    again = in_file(folder, spec_yaml(masked(first.as_said(), {})))
    assert again.as_said() == first.as_said()
    assert as_wire(again.spec) == as_wire(first.spec)
    assert spec_yaml(masked(again.as_said(), {})) == spec_yaml(masked(first.as_said(), {}))


def doubled(value: Any) -> Any:
    """As a file says it: a dollar of a text would begin a variable."""
    match value:
        case dict():
            return {key: doubled(inner) for key, inner in value.items()}
        case list():
            return [doubled(inner) for inner in value]
        case str():
            return value.replace("$", "$$")
    return value


@settings(max_examples=40)
@given(spec=SPECS)
def test_json_is_yaml_and_what_was_read_is_what_the_model_takes(folder: Path, spec: dict[str, Any]) -> None:
    text = json.dumps(doubled(spec), ensure_ascii=False)
    for end in "\x85\u2028\u2029":  # YAML 1.1 takes them for ends of lines
        text = text.replace(end, f"\\u{ord(end):04x}")
    wire = as_wire(in_file(folder, text).spec)
    assert wire == as_wire(load_mapping(spec, base_dir=folder).spec)
    assert as_wire(load_mapping(wire, base_dir=folder).spec) == wire


@settings(max_examples=40)
@given(spec=SPECS, secret=st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=5, max_size=12))
def test_a_secret_goes_round_as_its_variable_and_never_as_itself(
    folder: Path, spec: dict[str, Any], secret: str
) -> None:
    marked = f"s3-{secret}-s3"
    spec["deployments"][0]["init_kwargs"] = {"key": "KEY GOES HERE"}
    text = spec_yaml(masked(spec, {})).replace("KEY GOES HERE", "is ${KEY}!")
    loaded = in_file(folder, text, {"KEY": marked})
    assert as_wire(loaded.spec)["deployments"][0]["init_kwargs"] == {"key": f"is {marked}!"}
    dumped = spec_yaml(masked(loaded.as_said(), dict(loaded.masks)))
    assert marked not in dumped
    assert as_wire(in_file(folder, dumped, {"KEY": marked}).spec) == as_wire(loaded.spec)


@settings(max_examples=40)
@given(spec=SPECS, key=st.sampled_from(["num_replica", "route_prefx", "init_kwarg", "nmae"]))
def test_one_wrong_key_is_one_problem_at_its_place_with_what_may_be_meant(
    folder: Path, spec: dict[str, Any], key: str
) -> None:
    last = spec["deployments"][-1]
    last[key] = None
    lines = spec_yaml(masked(spec, {})).splitlines()
    with pytest.raises(SpecInvalid) as caught:
        in_file(folder, "\n".join(lines))
    (problem,) = caught.value.problems
    assert problem.code == "unknown_key"
    assert lines[problem.line - 1][problem.column - 1 :].startswith(f"{key}:")
    assert "did you mean" in str(problem.hint)


PATHS = st.lists(
    st.from_regex(r"[a-z]{1,4}(\.(main|app|api|[a-z]{1,3})){0,2}:[a-z]{1,4}", fullmatch=True), min_size=1, max_size=5
)


@settings(max_examples=40)
@given(paths=PATHS, kinds=st.lists(st.sampled_from(["asgi", "class", "function", "deployment", None]), min_size=5))
def test_a_first_spec_for_any_apps_is_valid_and_says_what_was_found(
    folder: Path, paths: list[str], kinds: list[str | None]
) -> None:
    names = list(names_for(paths))
    assert len(set(names)) == len(paths)
    entries = [
        Entry(name=name, import_path=path, kind=kind, env_vars={"A": 'say "ä" \\ ${B:-}'})
        for name, path, kind in zip(names, paths, kinds, strict=False)
    ]
    loaded = in_file(folder, spec_text(entries, schema="s.json", alone=len(entries) == 1, stack="my stack"[:2]))
    found = [(one.name, one.import_path, one.prefix) for one in loaded.spec.deployments]
    prefixes = ["/"] if len(entries) == 1 else [f"/{one.name}" for one in entries]
    assert found == [(one.name, one.import_path, prefix) for one, prefix in zip(entries, prefixes, strict=True)]


@pytest.mark.parametrize(
    "name", ["NO", "017", "on", "1:30", "a b", "ä", "my-stack", "/srv/app", "./x", "$HOME", "a: b"]
)
def test_a_folder_of_any_name_is_named_as_it_is(folder: Path, name: str) -> None:
    (folder / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    entry = Entry(name="web", import_path="web:app")
    text = spec_text([entry], schema="s.json", alone=True, app_dir=name.lstrip("/"))
    assert in_file(folder, text).app_dir == (folder / name.lstrip("/")).resolve()


@pytest.mark.parametrize("path", [path for path, _ in walk_fields()])
def test_each_field_is_explained_by_any_of_its_names(path: str) -> None:
    plain = path.replace("[]", "")
    found, _ = find_field(path)
    same, _ = find_field(plain)
    assert found is not None and same is not None
    assert found.as_json() == same.as_json()
    assert found.as_json()["meaning" if "meaning" in found.as_json() else "description"]
    assert plain.rpartition(".")[2] in describe(found)


def test_a_default_that_is_written_out_changes_nothing(folder: Path) -> None:
    blank = DeploymentSpec(name="web", import_path="m:app").model_dump(mode="json")
    bare = as_wire(load_mapping({"deployments": [{"name": "web", "import_path": "m:app"}]}, base_dir=folder).spec)
    optional = [key for key, value in blank.items() if value is not None and key not in bare["deployments"][0]]
    assert optional
    for key in optional:
        said = {"name": "web", "import_path": "m:app", key: blank[key]}
        loaded = load_mapping({"deployments": [said]}, base_dir=folder, unsupported=frozenset())
        assert loaded.spec.deployments[0].model_dump(mode="json") == blank, key
