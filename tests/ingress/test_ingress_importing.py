from __future__ import annotations

import os
import pickle
import sys

import pytest

from serveconf.code.by_value import by_value_file, by_value_path
from serveconf.errors import AuthorError, CodeFailed
from serveconf.ingress.importing import import_target


def test_a_dotted_attribute_of_a_dotted_module_is_found(write, code_dir):
    write("shop/__init__.py", "")
    write("shop/catalog.py", "class Outer:\n    class Inner:\n        app = 7\n")
    assert import_target("shop.catalog:Outer.Inner.app", code_dir) == 7


def test_the_code_folder_wins_and_the_working_directory_is_not_looked_at(write, code_dir, monkeypatch):
    write("one/which_shop.py", "app = 'code'")
    write("two/which_shop.py", "app = 'cwd'")
    monkeypatch.chdir(code_dir / "two")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert import_target("which_shop:app", code_dir / "one") == "code"
    assert "" not in sys.path
    assert sys.path[0] == str(code_dir / "one")
    assert sys.path.count(str(code_dir / "one")) == 1


def test_a_missing_attribute_is_named_with_what_was_probably_meant(write, code_dir):
    write("shop.py", "app = 1")
    with pytest.raises(CodeFailed, match=r"^module shop has no attribute 'ap'; did you mean 'app'\?$"):
        import_target("shop:ap", code_dir)


def test_a_missing_module_is_named_with_what_was_probably_meant(write, code_dir):
    write("shop/__init__.py", "")
    write("shop/catalog.py", "")
    with pytest.raises(CodeFailed, match=r"no module shop\.catalogue below .*; did you mean 'shop\.catalog'\?"):
        import_target("shop.catalogue:app", code_dir)
    with pytest.raises(CodeFailed, match=r"no module shp below .*; did you mean 'shop'\?"):
        import_target("shp.catalog:app", code_dir)


def test_a_module_below_a_module_is_told_apart_from_a_package(write, code_dir):
    write("flat.py", "")
    with pytest.raises(CodeFailed, match="flat is a module, not a package"):
        import_target("flat.inner:app", code_dir)


def test_a_module_that_hides_behind_one_of_the_interpreter_is_explained(write, code_dir):
    write("calendar.py", "app = 1")
    with pytest.raises(CodeFailed, match="module calendar has no attribute 'app'") as caught:
        import_target("calendar:app", code_dir)
    assert "rename your module" in (caught.value.hint or "")


def test_the_traceback_of_a_failed_import_holds_the_users_frames_only(write, code_dir):
    write("broken.py", "import deeper\n")
    write("deeper.py", "def f():\n    raise ValueError('first\\nsecond')\nf()\n")
    with pytest.raises(CodeFailed, match=r"^importing broken: ValueError: first$") as caught:
        import_target("broken:app", code_dir)
    files = [line.split('"')[1] for line in caught.value.traceback.splitlines() if line.startswith("  File")]
    assert [os.path.basename(file) for file in files] == ["broken.py", "deeper.py", "deeper.py"]
    assert caught.value.traceback.rstrip().endswith("second")


def test_a_missing_dependency_of_the_users_module_is_no_missing_module_of_theirs(write, code_dir):
    write("needs.py", "import not_installed_anywhere\n")
    with pytest.raises(
        CodeFailed, match=r"importing needs: ModuleNotFoundError: No module named 'not_installed_anywhere'"
    ):
        import_target("needs:app", code_dir)


def test_a_syntax_error_shows_its_line(write, code_dir):
    write("syntax.py", "def f(:\n    pass\n")
    with pytest.raises(CodeFailed, match="SyntaxError") as caught:
        import_target("syntax:app", code_dir)
    assert "def f(:" in caught.value.traceback


def test_a_module_that_exits_does_not_take_the_process_with_it(write, code_dir):
    write("leaves.py", "import sys\nsys.exit('no licence')\n")
    with pytest.raises(CodeFailed, match=r"importing leaves: the code called sys\.exit\('no licence'\)"):
        import_target("leaves:app", code_dir)


def test_a_lazy_attribute_that_raises_is_the_users_failure(write, code_dir):
    write("lazy.py", "def __getattr__(name):\n    raise RuntimeError('no ' + name)\n")
    with pytest.raises(CodeFailed, match="module lazy: attribute 'app': RuntimeError: no app"):
        import_target("lazy:app", code_dir)


@pytest.mark.parametrize("path", ["shop", "shop:", ":app"])
def test_what_is_no_import_path_is_refused(path, code_dir):
    with pytest.raises(AuthorError, match="is no import path"):
        import_target(path, code_dir)


def test_what_was_deployed_by_value_is_read_from_the_package(write, code_dir):
    write("helpers_by_value.py", "class Thing:\n    answer = 7\n")
    (code_dir / ".serveconf").mkdir()
    content = b"chelpers_by_value\nThing\n."  # a pickle that imports a module of the package
    (code_dir / by_value_file("__main__:my_app")).write_bytes(content)
    assert import_target(by_value_path("my-app"), code_dir).answer == 7


def test_main_in_a_spec_is_refused_with_what_to_write(code_dir):
    with pytest.raises(CodeFailed, match="__main__:app") as caught:
        import_target("__main__:app", code_dir)
    assert "main:app" in caught.value.hint


def test_an_object_that_cannot_be_unpickled_shows_why(code_dir):
    (code_dir / ".serveconf").mkdir()
    (code_dir / ".serveconf" / "x.pkl").write_bytes(pickle.dumps(7)[:-1])
    with pytest.raises(CodeFailed, match="unpickling __main__:x"):
        import_target("__main__:x", code_dir)


@pytest.mark.parametrize(("name", "path"), [("a-b.c", "__main__:a_b_c"), ("7up", "__main__:_7up"), ("A", "__main__:A")])
def test_any_name_of_a_deployment_makes_an_import_path(name, path):
    assert by_value_path(name) == path


def test_a_module_that_deploys_while_it_is_imported_is_refused_at_once(write, code_dir):
    write("deploys.py", "from serveconf import serve\n@serve.deployment\ndef f(): ...\nf.deploy()\n")
    with pytest.raises(CodeFailed, match="while it is imported to be served") as caught:
        import_target("deploys:f", code_dir)
    assert "deploys.py" in caught.value.traceback
    assert "__main__" in caught.value.hint
