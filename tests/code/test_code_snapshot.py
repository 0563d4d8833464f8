"""What goes into a snapshot and what stays out."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveconf.cli.follow import readiness
from serveconf.code import snapshot as snapshot_module
from serveconf.code.snapshot import digest_of, take_snapshot
from serveconf.errors import AuthorError, OperatorError


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(take_snapshot(folder).files)


def test_same_content_gives_the_same_digest_wherever_and_in_whatever_order_it_was_written(tmp_path: Path) -> None:
    content = {"a.py": "1", "b/c.py": "2", "b/d.txt": "3"}
    one = lay_out(tmp_path / "one", content)
    two = lay_out(tmp_path / "two", dict(reversed(content.items())))
    assert take_snapshot(one).digest == take_snapshot(two).digest


@pytest.mark.parametrize("change", [{"a.py": "x"}, {"new.py": ""}])
def test_any_change_of_content_or_names_gives_another_digest(tmp_path: Path, change: dict[str, str]) -> None:
    before = take_snapshot(lay_out(tmp_path, {"a.py": "1"})).digest
    assert take_snapshot(lay_out(tmp_path, change)).digest != before


def test_an_executable_bit_is_part_of_the_digest(tmp_path: Path) -> None:
    lay_out(tmp_path, {"run.sh": "echo"})
    before = take_snapshot(tmp_path)
    (tmp_path / "run.sh").chmod(0o755)
    after = take_snapshot(tmp_path)
    assert (before.executables, after.executables) == (frozenset(), frozenset({"run.sh"}))
    assert before.digest != after.digest


def test_total_bytes_is_the_size_of_what_is_in(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.py": "12345", "b.bin": "678", ".gitignore": "*.bin"})
    assert take_snapshot(tmp_path).total_bytes == 5 + len("*.bin")


def test_what_can_never_be_code_is_left_out(tmp_path: Path) -> None:
    kept = {"app.py": "", "pkg.egg-info/PKG-INFO": "", ".github/x.yml": ""}
    left = {
        f"{folder}/x.py": ""
        for folder in (".git", ".hg", ".svn", "__pycache__", "p/__pycache__", ".venv", "node_modules", ".mypy_cache")
    } | {"app.pyc": "", "myenv/pyvenv.cfg": "", "myenv/lib/x.py": "", ".pytest_cache/a": "", "sub/.tox/b": ""}
    lay_out(tmp_path, kept | left)
    assert names(tmp_path) == sorted(kept)


def test_ignore_files_of_every_folder_count_and_the_deepest_wins(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            ".gitignore": "*.bin\n/top.txt\nbuild/\n",
            "a.bin": "",
            "top.txt": "",
            "build/x.py": "",
            "sub/.gitignore": "!keep.bin\nlocal.txt\n",
            "sub/keep.bin": "",
            "sub/other.bin": "",
            "sub/top.txt": "",
            "sub/local.txt": "",
            "sub/deep/local.txt": "",
        },
    )
    assert names(tmp_path) == [".gitignore", "sub/.gitignore", "sub/keep.bin", "sub/top.txt"]


def test_serveconfignore_leaves_more_out_and_brings_back_what_git_ignores(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            ".gitignore": "dist/\n*.env\nvar/\n",
            ".serveconfignore": "!dist/model.bin\n!prod.env\n!var/\ntests/\n",
            "dist/model.bin": "",
            "dist/other.bin": "",
            "prod.env": "",
            "dev.env": "",
            "var/a": "",
            "tests/test_x.py": "",
        },
    )
    assert names(tmp_path) == [".gitignore", ".serveconfignore", "dist/model.bin", "prod.env", "var/a"]


SECRETS = (
    *(
        ".env",
        ".env.production",
        "sub/.env",
        ".envrc",
        ".netrc",
        "id_rsa",
        "sub/id_ed25519",
        "server.key",
        "client.p12",
    ),
    *(".git-credentials", "keystore.jks"),
)
PUBLIC = (".env.example", "id_rsa.pub", "env", "keys.py", "monkey.txt")
KEY = "-----BEGIN CERTIFICATE-----\nx\n-----BEGIN EC PRIVATE KEY-----\ny\n"


def test_what_nobody_means_to_publish_is_left_out_and_named(tmp_path: Path) -> None:
    folders = {".ssh/config": "", ".serveconf/cluster.json": "", "home/.aws/credentials": ""}
    lay_out(tmp_path, {**dict.fromkeys((*SECRETS, *PUBLIC), ""), **folders})
    found = take_snapshot(tmp_path)
    assert sorted(found.files) == sorted(PUBLIC)
    assert found.withheld == tuple(sorted((*SECRETS, ".ssh/", "home/.aws/")))


@pytest.mark.parametrize("app", ["", "app/"])
def test_our_own_folders_are_no_code_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str
) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / app / "state"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / app))
    ours = f"serveconf-{os.getuid()}/ray/session_1/logs/gcs.out"
    files = {f"{app}web.py": "", f"{app}state/cluster.json": "token", f"{app}{ours}": "", f"{app}serveconf-x/a.py": ""}
    assert names(lay_out(tmp_path, files)) == [f"{app}serveconf-x/a.py", f"{app}web.py"]


def test_a_readiness_file_below_app_dir_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    app = lay_out(tmp_path / "app", {"web.py": "", "ready": ""})
    assert names(app) == ["ready", "web.py"]
    monkeypatch.chdir(app)
    readiness(Path("ready"))
    readiness(tmp_path / "app" / "other")
    lay_out(app, {"ready": "", "other": ""})
    assert names(app) == ["web.py"]
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "of somebody else"))
    assert names(app) == ["other", "ready", "web.py"]


def test_a_readiness_file_needs_no_home_that_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("SERVECONF_HOME", str(tmp_path / "home"))
    readiness(tmp_path / "ready")
    with pytest.raises(OperatorError):
        readiness(tmp_path / "nowhere" / "ready")


def test_a_private_key_is_told_by_its_content_a_certificate_is_public(tmp_path: Path) -> None:
    content = {
        "a.pem": KEY,
        "ca.pem": KEY[:30],
        "key": "-----BEGIN PRIVATE KEY-----\n",
        "test_tls.py": f'K = """\n{KEY}"""',
    }
    found = take_snapshot(lay_out(tmp_path, content))
    assert (sorted(found.files), found.withheld) == (["ca.pem", "test_tls.py"], ("a.pem", "key"))


def test_a_line_brings_a_secret_back_and_who_leaves_it_out_by_himself_is_told_nothing(tmp_path: Path) -> None:
    lines = "!.env\n!a.pem\n!.aws/\nid_rsa\n.ssh/\nb.pem\n"
    content = {
        ".serveconfignore": lines,
        ".env": "",
        "a.pem": KEY,
        "b.pem": KEY,
        ".aws/x": "",
        "id_rsa": "",
        ".ssh/x": "",
    }
    found = take_snapshot(lay_out(tmp_path, content))
    assert sorted(found.files) == [".aws/x", ".env", ".serveconfignore", "a.pem"]
    assert found.withheld == ()


def test_an_excluded_spec_is_left_out_even_behind_a_link(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.py": "", "serve.yaml": "", "sub/serve.yaml": "", "..1/linked.yaml": ""})
    (tmp_path / "linked.yaml").symlink_to("..1/linked.yaml")
    found = take_snapshot(tmp_path, exclude=[tmp_path / "serve.yaml", tmp_path / "linked.yaml"])
    assert sorted(found.files) == ["a.py", "sub/serve.yaml"]


def test_a_line_that_is_no_pattern_does_not_switch_the_others_off(tmp_path: Path) -> None:
    lay_out(tmp_path, {".gitignore": "!\n*.log\n\\\n# note\n", "a.log": "", "b.py": ""})
    assert names(tmp_path) == [".gitignore", "b.py"]


def test_gitignore_files_above_app_dir_count_up_to_the_root_of_the_repository(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            ".gitignore": "*.py",  # above the repository: another world
            "repo/.git/HEAD": "",
            "repo/.gitignore": "secret.txt\n/apps/shop/data/\n",
            "repo/apps/.gitignore": "*.bin",
            "repo/apps/shop/app.py": "",
            "repo/apps/shop/secret.txt": "",
            "repo/apps/shop/a.bin": "",
            "repo/apps/shop/data/x": "",
        },
    )
    assert names(tmp_path / "repo/apps/shop") == ["app.py"]


PATTERNS = [
    *("a", "b/", "/a", "*.x", "!a", "!*.x", "a/b", "**/b", "a/**", "/b/*", "!/b/c", "c?", "[ab].x", "!b/", "*", "!*/"),
    *("#c", "\\#c", "c ", "b/**/c", "!a/b", "/*", "!/a/", "*/c.x"),
]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")
@pytest.mark.parametrize("seed", range(30))
def test_a_snapshot_holds_what_git_would_add(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    def fill(folder: Path, depth: int) -> None:
        for name in ("a", "b", "c", "a.x", "c.x", "cd"):
            choice = dice.random()
            if choice < 0.25 and depth < 3:
                (folder / name).mkdir()
                fill(folder / name, depth + 1)
            elif choice < 0.7:
                (folder / name).write_text("1")
        if dice.random() < (0.9 if depth == 0 else 0.3):
            (folder / ".gitignore").write_text("\n".join(dice.sample(PATTERNS, dice.randint(1, 4))) + "\n")

    fill(tmp_path, 0)
    alone = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, env=alone, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=tmp_path,
        env=alone,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert names(tmp_path) == sorted(filter(None, listed.split("\0")))


def test_an_app_dir_that_git_itself_ignores_is_not_empty(tmp_path: Path) -> None:
    lay_out(tmp_path, {".git/HEAD": "", ".gitignore": "build/", "build/app/main.py": ""})
    assert names(tmp_path / "build/app") == ["main.py"]


def test_a_kubernetes_volume_gives_its_visible_files_once(tmp_path: Path) -> None:
    digests = []
    for stamp in ("..2026_01_01", "..2026_02_02"):
        volume = tmp_path / stamp.strip(".")
        lay_out(volume / stamp, {"app.py": "1", "conf/x.txt": "2"})
        (volume / "..data").symlink_to(stamp)
        (volume / "app.py").symlink_to("..data/app.py")
        (volume / "conf").symlink_to("..data/conf")
        assert names(volume) == ["app.py", "conf/x.txt"]
        digests.append(take_snapshot(volume).digest)
    assert digests[0] == digests[1]


def test_links_that_lead_out_or_nowhere_are_skipped_and_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"app/a.py": "", "outside/secret.txt": ""})
    app = tmp_path / "app"
    (app / "out.txt").symlink_to(tmp_path / "outside/secret.txt")
    (app / "outdir").symlink_to(tmp_path / "outside")
    (app / "broken").symlink_to("nothing")
    found = take_snapshot(app)
    assert sorted(found.files) == ["a.py"]
    assert found.skipped == ("broken", "out.txt", "outdir")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/x.py": ""})
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    assert [name for name in names(tmp_path) if name.count("/") < 2] == ["a/x.py"]


def test_sockets_and_pipes_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, {"a.py": ""})
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the path of a unix socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
        assert names(tmp_path) == ["a.py"]


def test_a_folder_that_is_too_large_names_its_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "MAX_BYTES", 100)
    lay_out(tmp_path, {"small.py": "1", "weights/model.bin": "x" * 90, "data.csv": "y" * 20})
    with pytest.raises(AuthorError, match=r"weights/model\.bin .*data\.csv .*small\.py") as caught:
        take_snapshot(tmp_path)
    assert caught.value.code == "code_too_large"
    assert ".serveconfignore" in (caught.value.hint or "")


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "MAX_FILES", 3)
    lay_out(tmp_path, {f"{n}.py": "" for n in range(4)})
    with pytest.raises(AuthorError, match="more than 3 files"):
        take_snapshot(tmp_path)


def test_a_missing_app_dir_is_its_authors_error(tmp_path: Path) -> None:
    with pytest.raises(AuthorError, match="not a folder") as caught:
        take_snapshot(tmp_path / "nothing")
    assert caught.value.code == "app_dir_missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.py": ""})
    (tmp_path / "a.py").chmod(0)
    with pytest.raises(AuthorError, match=r"cannot read a\.py"):
        take_snapshot(tmp_path)


def test_a_name_that_is_no_text_is_skipped(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.py": ""})
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.py"), "wb"):
        pass
    found = take_snapshot(tmp_path)
    assert sorted(found.files) == ["a.py"]
    assert len(found.skipped) == 1


@given(st.dictionaries(st.text(min_size=1), st.text("0123456789abcdef", min_size=1), min_size=1), st.randoms())
def test_the_digest_does_not_depend_on_order(files: dict[str, str], dice: random.Random) -> None:
    shuffled = list(files.items())
    dice.shuffle(shuffled)
    assert digest_of(dict(shuffled), frozenset()) == digest_of(files, frozenset())


def test_specs_and_saved_plans_are_no_code(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = 1")
    (tmp_path / "settings.yaml").write_text("threshold: 1\n")
    before = take_snapshot(tmp_path)
    (tmp_path / "prod.yaml").write_text("name: prod\ndeployments:\n- {name: a, import_path: 'm:app'}\n")
    (tmp_path / "plan.json").write_text('{\n  "format": "serveconf-plan-1"\n}')
    assert take_snapshot(tmp_path).digest == before.digest
    assert set(before.files) == {"m.py", "settings.yaml"}


def test_what_an_app_writes_by_its_name_is_no_code(tmp_path: Path) -> None:
    before = take_snapshot(lay_out(tmp_path, {"app.py": ""}))
    lay_out(tmp_path, {"app.db": "1", "app.db-wal": "1", "logs/app.log": "1", "app.py~": "1"})
    assert take_snapshot(tmp_path).digest == before.digest


def test_serveconfignore_says_that_a_file_is_code_after_all(tmp_path: Path) -> None:
    lay_out(tmp_path, {"app.py": "", "seed.db": "1", "other.db": "1", ".serveconfignore": "!seed.db\n"})
    assert names(tmp_path) == [".serveconfignore", "app.py", "seed.db"]


def test_what_the_app_was_seen_to_write_is_no_code(tmp_path: Path) -> None:
    before = take_snapshot(lay_out(tmp_path, {"app.py": ""}))
    lay_out(tmp_path, {"out/results.csv": "1"})
    assert take_snapshot(tmp_path, data={"out/results.csv"}).digest == before.digest
    assert take_snapshot(tmp_path).digest != before.digest


def test_every_folder_that_was_looked_into_is_told(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/b/c.py": "", ".venv/pyvenv.cfg": "", "node_modules/x.js": "", "e/.gitkeep": ""})
    assert take_snapshot(tmp_path).folders == ("", "a", "a/b", "e")
