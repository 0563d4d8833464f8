"""Importing the user's middlewares: from code folders whose modules share names, with errors that show the user's code."""

from __future__ import annotations

import gc
import pickle
import sys
import textwrap
import weakref

import pytest

from serveconf.code.by_value import Bound
from serveconf.errors import CodeFailed
from serveconf.proxy import importing
from serveconf.proxy.middleware import MiddlewareImporter, build_stack
from serveconf.proxy.tally import Tally
from serveconf.routing import Middleware


@pytest.fixture(autouse=True)
def clean_imports():
    before, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def folders(tmp_path):
    """Writes code folders; an importer finds them by digest."""

    class Folders:
        def write(self, digest, **files):
            for name, text in files.items():
                path = tmp_path / digest / (name.replace("__", "/") + ".py")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textwrap.dedent(text))

        importer = MiddlewareImporter(lambda digest: str(tmp_path / digest))

        def load(self, import_path, code):
            return self.importer(Middleware(import_path, code=code))[0]

    return Folders()


def test_versions_of_one_module_stay_apart(folders):
    for digest in ("one", "two"):
        folders.write(
            digest,
            shop__auth=f"""
                from shop.helper import NAME
                def wrap(app): return NAME, {digest!r}
            """,
            shop__helper=f"NAME = 'helper of {digest}'",
        )
    one, two = folders.load("shop.auth:wrap", "one"), folders.load("shop.auth:wrap", "two")
    assert one(None) == ("helper of one", "one")
    assert two(None) == ("helper of two", "two")
    assert folders.load("shop.auth:wrap", "one") is one
    assert folders.load("shop.auth:wrap", "two") is two


def test_two_middlewares_of_one_folder_share_its_modules(folders):
    folders.write("d", first="from common import STATE\ndef wrap(app): return STATE", common="STATE = object()")
    folders.write("d", second="from common import STATE\ndef wrap(app): return STATE")
    assert folders.load("first:wrap", "d")(None) is folders.load("second:wrap", "d")(None)


def test_import_inside_a_function_finds_its_folder_later(folders):
    folders.write("d", mine="def wrap(app):\n    from late import VALUE\n    return VALUE", late="VALUE = 'found'")
    assert folders.load("mine:wrap", "d")(None) == "found"


def test_module_that_was_imported_late_does_not_leak_into_the_next_version(folders):
    for digest in ("one", "two"):
        folders.write(
            digest, mine="def wrap(app):\n    from late import VALUE\n    return VALUE", late=f"VALUE = {digest!r}"
        )
    assert folders.load("mine:wrap", "one")(None) == "one"
    assert folders.load("mine:wrap", "two")(None) == "two"


def test_what_an_import_looks_at_does_not_grow_with_the_versions_before_it(folders, monkeypatch):
    looked, real = [], importing._is_below
    monkeypatch.setattr(importing, "_is_below", lambda module, folder: looked.append(folder) or real(module, folder))
    counts = []
    for number in range(12):
        folders.write(f"v{number}", mine=f"def wrap(app): return {number}")
        looked.clear()
        assert folders.load("mine:wrap", f"v{number}")(None) == number
        counts.append(len(set(looked)))
        looked.clear()
        folders.load("mine:wrap", f"v{number}")
        assert looked == []  # nothing at all, where it is the folder of the import before
    assert counts == [0] + [1] * 11


def test_of_code_that_nobody_uses_any_more_nothing_is_kept(folders):
    for digest in ("one", "two", "three"):
        folders.write(digest, mine="class Wrap: pass")
    wrap = weakref.ref(folders.load("mine:Wrap", "one"))
    folders.load("mine:Wrap", "two")
    gc.collect()
    assert wrap() is not None
    folders.importer.use_only(["two", "three"])
    two = folders.load("mine:Wrap", "two")
    folders.load("mine:Wrap", "three")
    gc.collect()
    assert wrap() is None
    assert folders.load("mine:Wrap", "two") is two


def test_library_is_imported_without_a_folder_and_from_within_one(folders):
    folders.write("d", mine="")
    path = "starlette.middleware.gzip:GZipMiddleware"
    assert folders.load(path, None) is folders.load(path, "d")


def test_code_folder_shadows_nothing_after_the_import(folders):
    folders.write("d", mine="def wrap(app): return app", this="raise RuntimeError('shadowed')")
    folders.load("mine:wrap", "d")
    assert sys.path[0] != sys.path[-1]
    assert sys.path[-1].endswith("/d")


def test_dotted_attribute_is_followed(folders):
    folders.write("d", mine="class Outer:\n    def wrap(app): return 'inner'")
    assert folders.load("mine:Outer.wrap", "d")(None) == "inner"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("import no_such_module", "mine:wrap", "No module named 'no_such_module'"),
        ("", "mine:wrap", "no attribute 'wrap'"),
        ("", "other:wrap", "No module named 'other'"),
        ("def broken(:", "mine:wrap", "SyntaxError"),
        ("import sys; sys.exit(3)", "mine:wrap", "SystemExit"),
        ("raise ValueError('own words')", "mine:wrap", "own words"),
    ],
)
def test_failing_import_is_the_authors_error(folders, text, path, message):
    folders.write("d", mine=text)
    with pytest.raises(CodeFailed) as caught:
        folders.load(path, "d")
    assert message in caught.value.message
    assert path in caught.value.message


def test_traceback_shows_the_users_frames_and_none_of_ours(folders):
    folders.write("d", mine="def fail():\n    raise ValueError('x')\nfail()")
    with pytest.raises(CodeFailed) as caught:
        folders.load("mine:wrap", "d")
    assert "mine.py" in caught.value.traceback
    assert "in fail" in caught.value.traceback
    assert "serveconf" not in caught.value.traceback
    assert "importlib" not in caught.value.traceback


def test_middleware_by_value_is_read_from_the_package(tmp_path):
    (tmp_path / ".serveconf").mkdir()
    bound = Bound(target=map, args=(1,), kwargs={"a": 2})
    (tmp_path / ".serveconf" / "mine.pkl").write_bytes(pickle.dumps(bound))
    factory, args, kwargs = MiddlewareImporter(str)(Middleware("__main__:mine", code=str(tmp_path)))
    assert (factory, args, kwargs) == (bound, (), {})


def test_arguments_bound_by_value_come_after_the_next_app():
    assert Bound(target=lambda *args, **kwargs: (args, kwargs), args=(1,), kwargs={"a": 2})("app") == (
        ("app", 1),
        {"a": 2},
    )


async def app(scope, receive, send):
    pass


def test_wrong_arguments_are_the_authors_error():
    def wrap(app, *, size):
        return app

    with pytest.raises(CodeFailed, match=r"my:wrap cannot be built: TypeError.*sise"):
        build_stack([(Middleware("my:wrap"), (wrap, (), {"sise": 1}))], app)


def test_what_is_no_asgi_app_is_the_authors_error():
    with pytest.raises(CodeFailed, match="my:wrap gave a NoneType"):
        build_stack([(Middleware("my:wrap"), (lambda app: None, (), {}))], app)


# Counting


def test_receipt_counts_from_its_start_and_each_operation_for_itself():
    tally = Tally()
    tally.begin()
    tally.answer(200)
    tally.start_receipt("one")
    for status in (200, 404, 503):
        tally.begin()
        tally.answer(status)
    tally.start_receipt("two")
    tally.begin()
    tally.answer(200)
    tally.cut()
    one, two = tally.receipt("one"), tally.receipt("two")
    assert (one.requests, one.failed) == (4, 2)
    assert (two.requests, two.failed) == (1, 1)
    assert tally.receipt("one").requests == 0
    assert tally.receipt("unknown").requests == 0


def test_gap_counts_only_while_a_request_waits(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("serveconf.proxy.tally.monotonic", lambda: now[0])
    tally = Tally()
    tally.start_receipt("op")
    tally.begin()
    now[0] = 0.010
    tally.answer(200)
    now[0] = 5.0
    tally.begin()
    now[0] = 5.030
    tally.begin()
    now[0] = 5.040
    tally.answer(200)
    now[0] = 5.060
    tally.answer(200)
    assert tally.receipt("op").max_gap_ms == 40.0


def test_streams_that_outlive_an_apply_are_kept_and_those_it_ended_are_closed():
    tally = Tally()
    tally.open_streams = 5
    tally.start_receipt("op")
    tally.open_streams -= 2
    tally.streams_closed += 2
    receipt = tally.receipt("op")
    assert (receipt.streams_kept, receipt.streams_closed) == (3, 2)
