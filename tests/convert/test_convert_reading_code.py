"""What a Ray Serve import path stands for, read from code that is never run; and what no file makes it say wrongly."""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.convert.ingress import Seen, see
from serveconf.convert.reading import plain

HEAD = """\
from ray import serve

@serve.deployment(num_replicas=3)
class Heavy: ...

@serve.deployment
class Door: ...

class Plain: ...

"""


def door(*options: str, builder: bool = False) -> Seen:
    return Seen(name="Door", builder=builder, options=frozenset(options))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return tmp_path


def look(folder: Path, body: str, attribute: str = "app", head: str = HEAD) -> Seen | None:
    (folder / "flow.py").write_text(head + textwrap.dedent(body), encoding="utf-8")
    return see([folder], f"flow:{attribute}")


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("app = Door.bind(Heavy.bind())", door()),
        ("app: object = Door.bind()", door()),
        ("app = Door.options(num_replicas=2).bind()", door("num_replicas")),
        ("app = Door.options(num_replicas=2).options(user_config={}).bind()", door("num_replicas", "user_config")),
        ("app = Door.options(name='Gate').bind()", Seen(name="Gate", options=frozenset({"name"}))),
        ("app = Door.options(name=NAME).bind()", Seen(name=None, options=frozenset({"name"}))),
        ("app = Heavy.bind()", Seen(name="Heavy", options=frozenset({"num_replicas"}))),
        ("app = serve.deployment(Plain).bind()", Seen(name="Plain")),
        (
            "app = serve.deployment(Plain, max_ongoing_requests=4).bind()",
            Seen(name="Plain", options=frozenset({"max_ongoing_requests"})),
        ),
        (
            "app = serve.deployment(num_replicas=1)(Plain).bind()",
            Seen(name="Plain", options=frozenset({"num_replicas"})),
        ),
        ("Again = Door\napp = Again.bind()", door()),
        ("bound = Door.bind()\napp = bound", door()),
        ("def make():\n    return Door.bind()\napp = make()", door()),
        ("def make():\n    inner = Door.bind()\n    return inner\napp = make()", door()),
        ("if True:\n    app = Door.bind()\nelse:\n    app = None", Seen()),
        ("try:\n    app = Door.bind()\nexcept ImportError:\n    pass", door()),
        ("app = Heavy.bind()\napp = Door.bind()", door()),
        ("app = Door", door()),
        ("app = Plain", Seen()),
        ("app = Plain.bind()", Seen()),
        ("app = 1", Seen()),
        ("app = [Door.bind()][0]", Seen()),
        ("app = unknown()", Seen()),
        ("other = Door.bind()", Seen()),
        ("app = app", Seen()),
        ("one = two\ntwo = one\napp = one.bind()", Seen()),
        ("def app():\n    return app()", Seen(builder=True)),
    ],
)
def test_what_stands_behind_a_name(code: Path, body: str, seen: Seen) -> None:
    assert look(code, body) == seen


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("def app(args):\n    return Door.bind()", door(builder=True)),
        ("async def app(args):\n    return Door.bind()", door(builder=True)),
        (
            "def app(args):\n    if args:\n        return Door.bind(1)\n    return Door.bind(2)",
            door(builder=True),
        ),
        ("def app(args):\n    if args:\n        return Heavy.bind()\n    return Door.bind()", Seen(builder=True)),
        ("def app(args):\n    for _ in args:\n        return Door.bind()", door(builder=True)),
        ("def app(args):\n    def inner():\n        return Heavy.bind()\n    return Door.bind()", door(builder=True)),
        ("def app(args):\n    pass", Seen(builder=True)),
        ("@serve.deployment\ndef app(request):\n    return 1", Seen(name="app")),
        (
            "@serve.deployment(name='Said', ray_actor_options={'num_cpus': 1, **MORE})\ndef app(request): ...",
            Seen(name="Said", options=frozenset({"name", "ray_actor_options"})),
        ),
        (
            "@serve.deployment(ray_actor_options={'num_cpus': 1, **MORE})\ndef app(request): ...",
            Seen(name="app", options=frozenset({"ray_actor_options", "ray_actor_options.num_cpus"})),
        ),
        ("@other\n@serve.deployment\nclass app: ...", Seen(name="app")),
    ],
)
def test_a_builder_is_told_from_what_it_builds_and_from_a_deployment(code: Path, body: str, seen: Seen) -> None:
    assert look(code, body) == seen


def test_names_are_followed_through_modules_packages_and_relative_imports(code: Path) -> None:
    (code / "shop" / "deep").mkdir(parents=True)
    (code / "shop" / "__init__.py").write_text("from .deep.parts import Door as Gate\n")
    (code / "shop" / "deep" / "__init__.py").write_text("")
    (code / "shop" / "deep" / "parts.py").write_text(HEAD)
    head = "import shop.deep.parts as parts\nfrom shop import Gate\nfrom shop.deep import parts as again\n"
    for body in ("app = Gate.bind()", "app = parts.Door.bind()", "app = again.Door.bind()"):
        assert look(code, body, head=head) == door()
    assert look(code, "app = nowhere.Door.bind()", head=head) == Seen()
    assert look(code, "app = parts.NoSuch.bind()", head=head) == Seen()
    (code / "shop" / "main.py").write_text("from .deep import parts\nfrom . import Gate\napp = parts.Door.bind()\n")
    assert see([code], "shop.main:app") == door()
    assert see([code], "shop:Gate") == door()


def test_a_module_may_have_a_dash_in_its_name(code: Path) -> None:
    (code / "shop-api").mkdir()
    (code / "shop-api" / "main.py").write_text(HEAD + "app = Door.bind()\n")
    assert see([code], "shop-api.main:app") == door()


def test_imports_in_a_circle_end(code: Path) -> None:
    (code / "one.py").write_text("from two import app\n")
    (code / "two.py").write_text("from one import app\n")
    assert see([code], "one:app") == Seen()


@pytest.mark.parametrize("import_path", ["nowhere:app", "flow:a.b", "flow:", "flow", "", ":app", "..:app", "/etc:app"])
def test_what_is_not_there_is_not_told(code: Path, import_path: str) -> None:
    (code / "flow.py").write_text(HEAD)
    assert see([code], import_path) is None
    assert see([], "flow:Door") is None


@pytest.mark.parametrize(
    "content",
    [b"def (", b"\x00", b"# coding: no-such\n", b"\xff\xfe", b"x = " + b"(" * 5000, b"#" * (1024 * 1024 + 1)],
)
def test_code_that_no_parser_reads_is_unknown(code: Path, content: bytes) -> None:
    (code / "flow.py").write_bytes(content)
    assert see([code], "flow:app") is None


def test_the_first_folder_that_has_the_code_counts_and_one_that_is_broken_does_not(code: Path) -> None:
    for name, body in (("broken", "def ("), ("first", "app = Door.bind()"), ("second", "app = Heavy.bind()")):
        (code / name).mkdir()
        (code / name / "flow.py").write_text(HEAD + body)
    folders = [code / "no such", code / "broken", code / "first", code / "second"]
    assert see(folders, "flow:app") == door()


def test_code_is_never_run(code: Path) -> None:
    (code / "flow.py").write_text(HEAD + "import pathlib\npathlib.Path(__file__).unlink()\napp = Door.bind()\n")
    before = set(sys.modules)
    assert see([code], "flow:app") == door()
    assert (code / "flow.py").exists()
    assert "flow" not in set(sys.modules) - before


STATEMENTS = st.sampled_from(
    [
        "app = Door.bind()",
        "app = other",
        "other = app",
        "def make(): return app",
        "def make(): return make()",
        "app = make()",
        "from flow import app",
        "from flow import app as other",
        "import flow as other",
        "app = other.app",
        "app = other.Door.bind()",
        "from . import app",
        "from .. import app",
        "from .flow import *",
        "class Door: ...",
        "app = Door.options(name=app).options(**app).bind()",
        "app, other = 1, 2",
        "app: int",
    ]
)


@given(st.lists(STATEMENTS, max_size=8))
def test_however_names_lead_to_each_other_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "circles"
    folder.mkdir(exist_ok=True)
    (folder / "flow.py").write_text(HEAD + "\n".join(lines))
    ast.parse("\n".join(lines))
    for attribute in ("app", "other", "make", "Door"):
        found = see([folder], f"flow:{attribute}")
        assert found is not None
        assert found.name in (None, "Door")


YAML_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(YAML_DATA)
def test_what_yaml_reads_becomes_plain_data_once_and_for_all(value: object) -> None:
    import json

    made = plain(value)
    assert plain(made) == made == json.loads(json.dumps(made))
