"""What Python objects take along: import paths for what modules define, values for the rest."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from serveconf.code.package import unpack
from serveconf.errors import AuthorError
from serveconf.ingress.importing import import_target
from serveconf.serve.parcel import Parcel, import_path_of, is_json, main_folder, source_folder


class Store:
    """The two calls of the client that a parcel needs."""

    def __init__(self) -> None:
        self.packages: dict[str, bytes] = {}

    def has_code(self, digest: str) -> bool:
        return digest in self.packages

    def put_code(self, digest: str, data: bytes) -> None:
        self.packages[digest] = data

    def names(self, digest: str) -> list[str]:
        return sorted(zipfile.ZipFile(BytesIO(self.packages[digest])).namelist())


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules into a folder of their own and imports them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**sources: str):
        for name, source in sources.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(sources)).replace("__", "."))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_what_a_module_defines_is_imported_with_the_folder_of_its_package(modules, tmp_path):
    found = modules(shop_p__things="class Thing:\n    class Inner: ...\n", shop_p__prices="x = 1")
    store, parcel = Store(), Parcel()
    assert parcel.add("thing", found.Thing.Inner, ([1], {})) == (
        "shop_p.things:Thing.Inner",
        {"args": [1], "kwargs": {}},
    )
    assert store.names(parcel.upload(store).digest) == ["shop_p/prices.py", "shop_p/things.py"]
    assert parcel.app_dir == tmp_path


def test_a_deployment_hides_its_class_and_is_found_in_its_place(modules):
    found = modules(
        deps_p="from serveconf import serve\n@serve.deployment\nclass Model:\n    def __call__(self): ...\n"
    )
    assert import_path_of(found.Model.func_or_class) == "deps_p:Model"


def test_an_app_is_found_where_a_module_holds_it(modules):
    found = modules(apps_p="from fastapi import FastAPI\nthe_app = FastAPI()")
    assert import_path_of(found.the_app) == "apps_p:the_app"
    assert import_path_of(FastAPI()) is None


def test_what_is_installed_needs_no_package():
    store, parcel = Store(), Parcel()
    assert parcel.add("gzip", GZipMiddleware, ((), {"minimum_size": 10})) == (
        "starlette.middleware.gzip:GZipMiddleware",
        {"args": [], "kwargs": {"minimum_size": 10}},
    )
    assert parcel.upload(store).digest == ""
    assert store.packages == {}
    assert source_folder(sys.modules["json"]) is None


def test_what_a_function_defines_travels_by_value_and_comes_back(tmp_path):
    factor = 3

    class Local:
        def __call__(self):
            return 7 * factor

    store, parcel = Store(), Parcel()
    path, _ = parcel.add("my local-1", Local)
    digest = parcel.upload(store).digest
    unpack(store.packages[digest], tmp_path / "code")
    assert path == "__main__:my_local_1"
    assert import_target(path, tmp_path / "code")()() == 21


def test_arguments_that_json_does_not_know_travel_with_their_target(modules, tmp_path):
    found = modules(model_p="class Model:\n    def __init__(self, f): self.f = f\n    def __call__(self): ...\n")
    store, parcel = Store(), Parcel()
    path, said = parcel.add("model", found.Model, ([lambda: 5], {}))
    assert (path, said) == ("__main__:model", {"args": [], "kwargs": {}})
    digest = parcel.upload(store).digest
    assert "model_p.py" in store.names(digest)  # the class is imported, its argument is not
    unpack(store.packages[digest], tmp_path / "code")
    bound = import_target(path, tmp_path / "code")
    assert bound.target is found.Model
    assert bound.args[0]() == 5


def test_what_cannot_be_pickled_is_refused_with_what_to_do():
    lock = threading.Lock()
    with pytest.raises(AuthorError, match="model cannot travel by value: TypeError") as caught:
        Parcel().add("model", lambda: lock)
    assert "module of its own" in caught.value.hint


def test_two_folders_that_hold_the_same_file_differently_are_refused(tmp_path, monkeypatch):
    for folder, content in (("one", "x = 1"), ("two", "x = 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(content)
        (tmp_path / folder / f"of_{folder}_p.py").write_text("def middleware(app): return app")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    importlib.invalidate_caches()
    parcel = Parcel()
    for name in ("of_one_p", "of_two_p"):
        parcel.add(name, importlib.import_module(name).middleware)
    with pytest.raises(AuthorError, match=r"hold a same\.py"):
        parcel.upload(Store())


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"]}, [], {}])
def test_plain_data_is_said_in_the_spec(value):
    assert is_json(value)


@pytest.mark.parametrize("value", [(1,), {"a": (1,)}, {1: 2}, object(), float("nan"), [b"x"]])
def test_what_json_would_change_travels_by_value(value):
    assert not is_json(value)


SCRIPT = """
    from __future__ import annotations
    import json, sys
    from pathlib import Path
    from fastapi import FastAPI, Request
    from serveconf import serve
    from serveconf.serve.parcel import Parcel, main_folder
    import helper_p

    app = FastAPI()

    @serve.deployment
    @serve.ingress(app)
    class Api:
        @app.get("/")
        def root(self, request: Request) -> str:
            return helper_p.greet(request.url.path)

    class Store:
        def has_code(self, digest): return False
        def put_code(self, digest, data): Path(sys.argv[1]).write_bytes(data)

    parcel = Parcel()
    path, _ = parcel.add("Api", Api.func_or_class)
    snapshot = parcel.upload(Store())
    print(json.dumps({"path": path, "files": sorted(snapshot.files), "root": str(main_folder())}))
"""


def test_a_script_takes_along_what_it_imported_from_its_folder_and_no_more(tmp_path):
    (tmp_path / "main.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "helper_p.py").write_text("def greet(path): return 'hello ' + path")
    (tmp_path / "unused_p.py").write_text("")
    (tmp_path / "data.bin").write_text("")
    package = tmp_path / "package.zip"
    told = subprocess.run(
        [sys.executable, "main.py", str(package)], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert f'"root": "{tmp_path}"' in told
    assert '"files": [".serveconf/Api.pkl", "helper_p.py"]' in told
    unpack(package.read_bytes(), tmp_path / "code")
    assert _answer_of(tmp_path / "code") == '"hello /"'


READER = """
    import sys
    from pathlib import Path
    from starlette.testclient import TestClient
    from serveconf.ingress.app import build
    from serveconf.ingress.importing import import_target
    served = build(import_target("__main__:Api", Path(sys.argv[1])))
    print(TestClient(served.app).get("/").text)
"""


def _answer_of(code: Path) -> str:
    """What another process makes of a package, as a replica does."""
    command = [sys.executable, "-c", textwrap.dedent(READER), str(code)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout.strip()


def test_a_notebook_stands_in_its_working_directory(monkeypatch, tmp_path):
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    monkeypatch.chdir(tmp_path)
    assert main_folder() == tmp_path
