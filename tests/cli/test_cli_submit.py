"""From a spec to what is sent: the code as it was when it was packed, paths that mean the same elsewhere, problems at their place."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serveconf import submit as submit_module
from serveconf.code import package
from serveconf.code.package import unpack
from serveconf.errors import AuthorError, InternalError
from serveconf.spec.load import Loaded, load_file
from serveconf.spec.problems import SpecInvalid
from serveconf.submit import follow, git_commit, placed, spec_as_sent, submit

SPEC = "name: shop\ndeployments:\n  - name: web\n    import_path: web:app\n  - name: api\n    import_path: api:app\n"


class Control:
    """What a client is to ``submit``: it has the packages of ``has``, and keeps what is sent."""

    address = "http://127.0.0.1:8001"

    def __init__(self, *, has: bool = False, data: frozenset[str] = frozenset()) -> None:
        self.has, self._data = has, data
        self.packages: dict[str, bytes] = {}

    def has_code(self, digest: str) -> bool:
        return self.has or digest in self.packages

    def put_code(self, digest: str, data: bytes) -> None:
        self.packages[digest] = data

    def data(self, stack: str) -> frozenset[str]:
        return self._data

    def events(self, operation: str) -> Any:
        return iter([{"event": "phase", "phase": "starting"}])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_module, "EDIT_S", 0)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "serve.yaml"
    file.write_text(SPEC)
    (tmp_path / "web.py").write_text("app = 1\n")
    return file


def loaded(file: Path, env: Mapping[str, str] | None = None) -> Loaded:
    return load_file(file, env=env or {})


def edited_while_it_is_packed(file: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """The file is another one each time when the packing begins, so many times."""
    real: Callable[..., Any] = package.pack_as_it_is
    begun: list[int] = []

    def pack(app_dir: Path, snapshot: Any) -> Any:
        begun.append(len(begun))
        if len(begun) <= times:
            file.write_text(f"app = 'edit {len(begun)}'\n")
        return real(app_dir, snapshot)

    monkeypatch.setattr(package, "pack_as_it_is", pack)
    return begun


def test_code_that_is_there_is_not_packed(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, control = edited_while_it_is_packed(spec.parent / "web.py", monkeypatch, 0), Control(has=True)
    sent = submit(loaded(spec), control)  # type: ignore[arg-type]
    assert (packed, control.packages) == ([], {})
    assert (sent.body["code"], set(sent.body["files"])) == (sent.snapshot.digest, {"web.py"})


def test_what_is_sent_is_what_the_body_says(spec: Path, tmp_path: Path) -> None:
    control = Control()
    sent = submit(loaded(spec), control)  # type: ignore[arg-type]
    unpack(control.packages[sent.body["code"]], tmp_path / "there", digest=sent.body["code"])
    assert (tmp_path / "there" / "web.py").read_text() == "app = 1\n"
    assert not (tmp_path / "there" / "serve.yaml").exists()
    assert sent.notes == ()


def test_an_edit_while_the_code_is_packed_is_sent_whole(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, control = edited_while_it_is_packed(spec.parent / "web.py", monkeypatch, 1), Control()
    sent = submit(loaded(spec), control)  # type: ignore[arg-type]
    assert (len(packed), len(control.packages), sent.notes) == (2, 1, ())
    unpack(control.packages[sent.body["code"]], tmp_path / "there", digest=sent.body["code"])
    assert (tmp_path / "there" / "web.py").read_text() == "app = 'edit 1'\n"


def test_a_file_that_never_rests_is_taken_as_it_was_read_and_named(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, control = edited_while_it_is_packed(spec.parent / "web.py", monkeypatch, 10), Control()
    sent = submit(loaded(spec), control)  # type: ignore[arg-type]
    assert len(packed) == 3
    (note,) = sent.notes
    assert note.startswith("web.py kept changing while the code was packed")
    assert sent.body["code"] == sent.snapshot.digest in control.packages
    unpack(control.packages[sent.body["code"]], tmp_path / "there", digest=sent.body["code"])
    assert (tmp_path / "there" / "web.py").read_text() == "app = 'edit 3'\n"


def test_what_the_running_app_writes_is_no_code_and_who_knows_better_says_so(spec: Path) -> None:
    (spec.parent / "visits.txt").write_text("1")
    control = Control(has=True, data=frozenset({"visits.txt"}))
    assert set(submit(loaded(spec), control).body["files"]) == {"web.py"}  # type: ignore[arg-type]
    sent = submit(loaded(spec), Control(has=True))  # type: ignore[arg-type]
    assert set(sent.body["files"]) == {"web.py", "visits.txt"}
    again = submit(loaded(spec), control, snapshot=sent.snapshot, data=())  # type: ignore[arg-type]
    assert set(again.body["files"]) == {"web.py", "visits.txt"}


def test_code_that_can_not_be_read_is_its_author_s_to_mend_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "serve.yaml").write_text("app_dir: app\n" + SPEC)
    said, control = loaded(tmp_path / "serve.yaml"), Control()
    (tmp_path / "app").rmdir()
    with pytest.raises(AuthorError):
        submit(said, control)  # type: ignore[arg-type]
    assert control.packages == {}


def test_what_is_said_beside_the_file_counts_more_than_the_file(spec: Path) -> None:
    sent = submit(loaded(spec), Control(has=True), automatic=True, timeout_s=7.5, more={"source": "git", "x": 1})  # type: ignore[arg-type]
    assert {key: sent.body[key] for key in ("automatic", "timeout_s", "source", "x")} == {
        "automatic": True,
        "timeout_s": 7.5,
        "source": "git",
        "x": 1,
    }
    assert (sent.stack, sent.body["app_dir"]) == ("shop", str(spec.parent))


def test_only_keys_that_were_said_are_sent_and_a_stack_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("deployments: [{name: web, import_path: 'web:app'}]\n")
    assert spec_as_sent(loaded(tmp_path / "serve.yaml")) == {
        "name": "default",
        "deployments": [{"name": "web", "import_path": "web:app"}],
    }


def test_a_value_of_a_variable_is_sent_and_known_to_be_one(spec: Path) -> None:
    spec.write_text(SPEC + "    user_config: {key: '${KEY}'}\n")
    sent = submit(loaded(spec, {"KEY": "s3cret"}), Control(has=True))  # type: ignore[arg-type]
    assert sent.body["spec"]["deployments"][1]["user_config"] == {"key": "s3cret"}
    assert sent.body["masks"] == {"deployments[1].user_config.key": "${KEY}"}


def test_proxies_that_want_the_control_api_s_port_are_refused_at_the_line_that_says_so(spec: Path) -> None:
    spec.write_text("http_options:\n  port: 8001\n" + SPEC)
    control = Control()
    with pytest.raises(SpecInvalid) as caught:
        submit(loaded(spec), control)  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.code) == (2, 9, "port_conflict")
    assert "serveconf --address http://127.0.0.1:PORT" in str(problem.hint)
    assert control.packages == {}


def found(deployment: str | None, path: str = "") -> dict[str, Any]:
    return {"deployment": deployment, "path": path, "message": "no", "code": "code_failed", "hint": None, "more": 1}


@pytest.mark.parametrize(
    ("problem", "place"),
    [
        (found("web"), (4, 18)),
        (found("api"), (6, 18)),
        (found("web", "deployments[1].name"), (5, 11)),
    ],
)
def test_what_the_controller_finds_is_shown_where_the_file_says_it(
    spec: Path, problem: dict[str, Any], place: tuple[int, int]
) -> None:
    shown = placed(problem, loaded(spec))
    assert (shown["line"], shown["column"]) == place
    assert shown["file"].endswith("serve.yaml") and shown["more"] == 1 and shown["message"] == "no"


def test_what_no_line_is_about_names_the_file_and_without_a_file_nothing(spec: Path) -> None:
    gone = found("no such")
    assert placed(gone, loaded(spec)) == {**gone, "file": str(spec)}
    assert placed(gone, None) == gone


def test_events_that_end_without_a_result_are_no_success() -> None:
    told: list[dict[str, Any]] = []
    with pytest.raises(InternalError, match="ended the apply's events without a result"):
        follow(Control(), "7", told.append)  # type: ignore[arg-type]
    assert told == [{"event": "phase", "phase": "starting"}]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_nearest_repository_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deep" / "er" / "serve.yaml"
    file.parent.mkdir(parents=True)
    assert git_commit(file) is None
    git(tmp_path, "init", "-q")
    assert git_commit(file) is None  # nothing is committed yet
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    assert git_commit(file) == git(tmp_path, "rev-parse", "HEAD")
    git(file.parent, "init", "-q")
    assert git_commit(file) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert git_commit(tmp_path / "serve.yaml") is None
