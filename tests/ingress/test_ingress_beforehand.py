from __future__ import annotations

import sys

import pytest

from serveconf.ingress import beforehand, importing
from serveconf.ingress.beforehand import import_beforehand, installed_places


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    modules, path = dict(sys.modules), list(sys.path)
    monkeypatch.setattr(beforehand, "_names", set())
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def told(_name, error):
    raise AssertionError(error)


def test_a_file_of_the_users_comes_before_an_installed_module_that_was_imported_beforehand(
    write, code_dir, monkeypatch
):
    write("installed/which_wins/__init__.py", "app = 'installed'")
    write("installed/which_wins/part.py", "app = 'a part of it'")
    write("mine/which_wins.py", "app = 'mine'")
    monkeypatch.syspath_prepend(code_dir / "installed")
    import_beforehand(["which_wins.part"], failed=told)
    assert importing.import_target("which_wins:app", code_dir / "mine") == "mine"
    assert "which_wins.part" not in sys.modules


def test_what_no_file_of_the_users_is_named_like_is_not_imported_again(write, code_dir, monkeypatch):
    write("installed/counted.py", "import sys; sys.counted = getattr(sys, 'counted', 0) + 1")
    write("mine/web.py", "import counted, sys; app = sys.counted")
    monkeypatch.setattr(sys, "counted", 0, raising=False)
    monkeypatch.syspath_prepend(code_dir / "installed")
    import_beforehand(["counted"], failed=told)
    assert importing.import_target("web:app", code_dir / "mine") == 1


def test_what_cannot_be_imported_is_told_and_holds_up_nothing(write, code_dir, monkeypatch):
    write("leaves.py", "raise SystemExit(3)")
    write("stays.py", "")
    monkeypatch.syspath_prepend(code_dir)
    failed = []
    import_beforehand(["leaves", "not_there_at_all", "stays"], failed=lambda name, error: failed.append(name))
    assert failed == ["leaves", "not_there_at_all"]
    assert "stays" in sys.modules


def test_packages_of_an_environment_that_this_one_extends_are_installed_too(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, "/elsewhere/lib/python3.11/site-packages", "/home/me/project"])
    places = installed_places()
    assert "/elsewhere/lib/python3.11/site-packages/" in places
    assert not any(place.startswith("/home/me/project") for place in places)
