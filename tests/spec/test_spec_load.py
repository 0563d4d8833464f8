"""Loading: places, masks, several files, defaults, Python data, and what is not built yet."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from corpus import line

from serveconf.spec import check
from serveconf.spec.load import MAX_PROBLEMS, Loaded, load_file, load_mapping
from serveconf.spec.models import SpecFile, as_wire
from serveconf.spec.problems import Position, Problem, SpecInvalid

ONE = "deployments:\n  - name: a\n    import_path: m:app\n"


def load(folder: Path, text: str | bytes, *, env: Mapping[str, str] | None = None, **more: Any) -> Loaded:
    file = folder / "serve.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_file(file, env=env or {}, **more)


def problems(folder: Path, text: str | bytes, **more: Any) -> tuple[Problem, ...]:
    with pytest.raises(SpecInvalid) as caught:
        load(folder, text, **more)
    return caught.value.problems


def lines(found: tuple[Problem, ...]) -> list[str]:
    return [f"{Path(problem.file).name}:{line(problem)}" for problem in found]


def test_app_dir_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    assert load(tmp_path, "app_dir: code\n").app_dir == (tmp_path / "code").resolve()
    assert load(tmp_path, "name: a\n").app_dir == tmp_path.resolve()


def test_a_value_found_wrong_later_can_be_pointed_at(tmp_path: Path) -> None:
    loaded = load(tmp_path, ONE)
    file = str(tmp_path / "serve.yaml")
    assert loaded.position("deployments[0].import_path") == Position(file, 3, 18)
    problem = loaded.problem("deployments[0].import_path", "no module named m", "import_failed", "is app_dir right?")
    assert (problem.line, problem.column, problem.source) == (3, 18, "    import_path: m:app")
    assert problem.as_json() == {
        "file": file,
        "line": 3,
        "column": 18,
        "path": "deployments[0].import_path",
        "message": "no module named m",
        "code": "import_failed",
        "severity": "error",
        "hint": "is app_dir right?",
    }


def test_a_value_left_out_is_pointed_at_where_it_would_stand(tmp_path: Path) -> None:
    assert load(tmp_path, ONE).position("deployments[0].ray_actor_options.num_gpus") == Position(
        str(tmp_path / "serve.yaml"), 2, 5
    )


def test_values_from_variables_are_masked_by_their_text(tmp_path: Path) -> None:
    text = ONE + '    init_kwargs: {password: "x-${SECRET}", "odd key": ["${SECRET}"], price: $$5}\n'
    loaded = load(tmp_path, text, env={"SECRET": "s3cr3t"})
    assert loaded.spec.deployments[0].init_kwargs == {"password": "x-s3cr3t", "odd key": ["s3cr3t"], "price": "$5"}
    assert loaded.masks == {
        "deployments[0].init_kwargs.password": "x-${SECRET}",
        'deployments[0].init_kwargs["odd key"][0]': "${SECRET}",
    }


def test_a_problem_never_shows_what_a_variable_holds(tmp_path: Path) -> None:
    text = "http_options: {port: '${S}', host: '${S}', location: '${S}', root_path: '${S}'}\n" + ONE + (
        "    route_prefix: ${S}\n    num_replicas: ${S}\n    factory: ${S}\n    health_check_path: ${S}\n"
        "    rollout: {max_surge: '${S}'}\n    init_args: ${S}\n    init_kwargs: ${S}\n    ray_actor_options: ${S}\n"
    )  # fmt: skip
    found = problems(tmp_path, text, env={"S": "s3cr3t/ value"})
    assert len(found) == 12
    assert not any("s3cr3t" in str(problem) + repr(problem) for problem in found)


def test_included_deployments_follow_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "b.yaml").write_text("include: [c.yaml]\ndeployments: [{name: b, import_path: m:b}]\n")
    (tmp_path / "team" / "c.yaml").write_text(
        "http_options: {workers: 2}\ndeployments: [{name: c, import_path: m:c}]\n"
    )
    loaded = load(tmp_path, "include: [team/b.yaml]\nhttp_options: {port: 81}\n" + ONE)
    assert [deployment.name for deployment in loaded.spec.deployments] == ["a", "b", "c"]
    assert as_wire(loaded.spec)["http_options"] == {"port": 81, "workers": 2}
    assert loaded.position("deployments[2].import_path") == Position(str(tmp_path / "team" / "c.yaml"), 2, 38)
    assert loaded.position("http_options.workers") == Position(str(tmp_path / "team" / "c.yaml"), 1, 25)
    assert loaded.files == (tmp_path / "serve.yaml", tmp_path / "team" / "b.yaml", tmp_path / "team" / "c.yaml")


def test_contradictions_between_files_show_both_places(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "name: other\nhttp_options: {port: 82, workers: 2}\ndeployments:\n  - name: a\n    import_path: m:b\n"
        "  - name: c\n    import_path: 5\n    route_prefix: /a\n"
    )
    found = problems(tmp_path, "include: [b.yaml]\nhttp_options: {port: 81, workers: 2}\n" + ONE)
    main = tmp_path / "serve.yaml"
    assert lines(found) == [
        "b.yaml:1:1 misplaced_key name: 'name' does not belong in an included file | set it in the including file",
        f"b.yaml:2:22 conflict http_options.port: contradicts {main}:2:22 | one spec has one HTTP front",
        f"b.yaml:4:11 duplicate_name deployments[0].name: the name 'a' is taken, first at {main}:4:11",
        "b.yaml:7:18 type deployments[1].import_path: must be a string, not a number",
        f"b.yaml:8:19 duplicate_prefix deployments[1].route_prefix: the prefix '/a' is taken, first at {main}:4:11",
    ]


def test_the_files_of_an_invalid_spec_are_known_so_that_they_can_be_watched(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("prot: 1\n")
    (tmp_path / "serve.yaml").write_text("include: [b.yaml]\n")
    with pytest.raises(SpecInvalid) as caught:
        load_file(tmp_path / "serve.yaml", env={})
    assert caught.value.files == (tmp_path / "serve.yaml", tmp_path / "b.yaml")


def test_files_cannot_include_each_other_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("include: [serve.yaml]\n")
    assert [problem.code for problem in problems(tmp_path, "include: [b.yaml]\n")] == ["include"]


def test_a_file_is_included_once(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("name: x\n")
    assert "include" in [problem.code for problem in problems(tmp_path, "include: [b.yaml, ./b.yaml]\n")]


def test_the_nearer_default_wins(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "defaults: {num_replicas: 3, rollout: {max_surge: 1}}\ndeployments: [{name: b, import_path: m:b}]\n"
    )
    text = (
        "include: [b.yaml]\ndefaults: {num_replicas: 2, factory: true, rollout: {max_surge: 2, ready_timeout_s: 5}}\n"
        + ONE
    )
    loaded = load(tmp_path, text)
    a, b = as_wire(loaded.spec)["deployments"]
    assert (a["num_replicas"], a["factory"], a["rollout"]) == (2, True, {"max_surge": 2, "ready_timeout_s": 5.0})
    assert (b["num_replicas"], b["factory"], b["rollout"]) == (3, True, {"max_surge": 1, "ready_timeout_s": 5.0})
    assert loaded.position("deployments[1].num_replicas") == Position(str(tmp_path / "b.yaml"), 1, 26)
    assert loaded.position("deployments[1].rollout.ready_timeout_s") == Position(str(tmp_path / "serve.yaml"), 2, 85)


def test_a_masked_default_stays_masked_in_each_deployment(tmp_path: Path) -> None:
    text = 'defaults: {init_kwargs: {key: "${KEY}"}}\ndeployments: [{name: a, import_path: m:a}, {name: b, import_path: m:b}]\n'
    assert dict(load(tmp_path, text, env={"KEY": "k"}).masks) == {
        "deployments[0].init_kwargs.key": "${KEY}",
        "deployments[1].init_kwargs.key": "${KEY}",
    }


def test_the_environment_wins_over_an_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# ours\nNAME=file\nexport PORT='81' # a comment\nROOT=\"/a\\n\"\n\n")
    loaded = load(
        tmp_path, "name: ${NAME}\nhttp_options: {port: '${PORT}'}\n", env={"NAME": "env"}, env_files=[env_file]
    )
    assert (loaded.spec.name, loaded.spec.http_options.port) == ("env", 81)
    assert env_file in loaded.files


def test_a_bad_line_of_an_env_file_is_a_problem(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("A=1\nthis is no variable\nB='never closed\n")
    found = problems(tmp_path, "name: a\n", env_files=[env_file, tmp_path / "nowhere.env"])
    assert lines(found) == [
        "nowhere.env:0:0 file cannot be read: No such file or directory",
        ".env:2:1 env_file this line is not NAME=value",
        ".env:3:1 env_file this line is not NAME=value",
    ]


def test_a_field_not_built_yet_is_refused_unless_it_has_its_default(tmp_path: Path) -> None:
    unsupported = frozenset({"deployments[].rollout.bake_s", "http_options.workers"})
    text = "http_options: {workers: 1}\ndefaults: {rollout: {bake_s: 3}}\n" + ONE + "    rollout: {bake_s: 5}\n"
    assert lines(problems(tmp_path, text, unsupported=unsupported)) == [
        "serve.yaml:2:22 not_supported defaults.rollout.bake_s: not supported yet | leave it out for now",
        "serve.yaml:6:15 not_supported deployments[0].rollout.bake_s: not supported yet | leave it out for now",
    ]
    assert load(tmp_path, ONE + "    rollout: {bake_s: 0}\n", unsupported=unsupported).warnings == ()


def test_a_request_that_may_outlive_the_drain_is_a_warning_only(tmp_path: Path) -> None:
    loaded = load(tmp_path, ONE + "    request_timeout_s: 60\n")
    assert [(problem.severity, problem.line, problem.code) for problem in loaded.warnings] == [
        ("warning", 4, "conflict")
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "1:1 empty the file is empty | begin with 'deployments:'"),
        (b"# nothing\n", "1:1 empty the file is empty | begin with 'deployments:'"),
        (b"---\n", "1:1 empty the file is empty | begin with 'deployments:'"),
        (b"name: a\nx: \xff\n", "2:4 encoding the file is not UTF-8 text | save the file as UTF-8"),
        ("name: a".encode("utf-16"), "1:1 encoding the file is not UTF-8 text | save the file as UTF-8 (this looks like UTF-16)"),
        (b"name: a\0b\n", "1:8 control_character control character U+0000 in the file | remove it"),
        (b"name: \x1b[31m\n", "1:7 control_character control character U+001B in the file | remove it"),
        (b"name: a\n" + b"#" * 2**20, "1:1 too_large the file is larger than 1024 KiB"),
        (b"name: '" + b"a" * 300_000 + b"'\n", "1:7 too_large name: this text is longer than 256 KiB"),
        (b"deployments: [" + b"1," * 30_000 + b"]\n", "1:50009 too_large the file holds more than 25000 values"),
        (b"[" * 100_000, "1:51 too_deep"),
        (b"{a: " * 100_000, "1:201 too_deep"),
        (b"- " * 100_000, "1:101 too_deep"),
    ],
    ids=lambda value: repr(value[:20]),
)  # fmt: skip
def test_bytes_that_are_no_spec_are_a_problem(tmp_path: Path, data: bytes, expected: str) -> None:
    (found,) = problems(tmp_path, data)
    assert line(found).startswith(expected)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    rows = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (found,) = problems(tmp_path, "\n".join(rows))
    assert (found.code, found.line) == ("too_large", 5)


def test_a_merge_bomb_is_refused(tmp_path: Path) -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(1000))
    (found,) = problems(tmp_path, f"- &a {{{keys}}}\n" + "- {<<: *a}\n" * 1000)
    assert found.code == "too_large"


def test_variables_cannot_blow_up_a_file(tmp_path: Path) -> None:
    text = ONE + "    init_args: [" + "'${A}', " * 1000 + "]\n"
    assert problems(tmp_path, text, env={"A": "x" * 100_000})[0].code == "too_large"


def test_defaults_cannot_blow_up_a_file(tmp_path: Path) -> None:
    text = "defaults: {init_args: [" + "1, " * 1000 + "]}\ndeployments:\n"
    (found,) = problems(tmp_path, text + "".join(f"  - {{name: d{i}, import_path: m:app}}\n" for i in range(100)))
    assert (found.code, found.line, found.path) == ("too_large", 1, "defaults")


def test_windows_line_ends_count_as_one_line_end(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, b"name: a\r\nhttp_options:\r\n  port: 0\r\n")
    assert (found.line, found.column, found.source) == (3, 9, "  port: 0")


def test_columns_count_characters(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "http_options: {root_path: '/日本', port: 0}\n")
    assert found.column == 40


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "nowhere.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: it is a folder"),
        (Path("/dev/zero"), "cannot be read: it is not a regular file"),
    ):
        with pytest.raises(SpecInvalid) as caught:
            load_file(path, env={})
        assert [(problem.code, problem.message) for problem in caught.value.problems] == [("file", message)]


def test_a_file_wrong_throughout_reports_its_first_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, "".join(f"key{i}: 1\n" for i in range(1000)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].message == f"and {1000 - MAX_PROBLEMS} more problems"


def test_python_data_is_checked_like_a_file(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load_mapping(
            {
                "name": 5,
                "http_options": {"prot": 1},
                "deployments": [
                    {"name": "a", "import_path": "m", "init_kwargs": {"f": object(), "n": float("nan"), "k": {1: 2}}}
                ],
            },
            base_dir=tmp_path,
        )
    assert {line(problem) for problem in caught.value.problems} == {
        "0:0 type name: must be a string, not a number",
        "0:0 unknown_key http_options.prot: unknown key 'prot' | did you mean 'port'?",
        "0:0 import_path deployments[0].import_path: must read module:attribute, such as main:app | did you mean 'm:app'?",
        "0:0 type deployments[0].init_kwargs.f: must be plain data (as in JSON), not object",
        "0:0 range deployments[0].init_kwargs.n: must be a finite number",
        "0:0 key_type deployments[0].init_kwargs.k: a key must be a string, not int",
    }


def test_python_data_is_taken_literally(tmp_path: Path) -> None:
    loaded = load_mapping(
        {"deployments": [{"name": "a", "import_path": "m:app", "init_args": ("${HOME}", "NO", 1)}]}, base_dir=tmp_path
    )
    assert loaded.spec.deployments[0].init_args == ["${HOME}", "NO", 1]
    assert loaded.app_dir == tmp_path.resolve()
    assert loaded.position("deployments[0].name") is None


def test_python_data_that_holds_itself_is_a_problem(tmp_path: Path) -> None:
    data: dict[str, Any] = {"deployments": []}
    data["deployments"].append(data)
    with pytest.raises(SpecInvalid) as caught:
        load_mapping(data, base_dir=tmp_path)
    assert "too_deep" in [problem.code for problem in caught.value.problems]


def test_python_data_can_include_files(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(ONE)
    loaded = load_mapping({"include": ["b.yaml"]}, base_dir=tmp_path)
    assert loaded.position("deployments[0].name") == Position("b.yaml", 2, 11)


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [
        ("", "", None),
        ("num_replicas: 1", "", None),
        ("num_replicas: 2", "", "2:48 deployments[1].process (1:48)"),
        ("num_replicas: 2", "num_replicas: 3", "2:60 deployments[1].num_replicas"),
        ("ray_actor_options: {num_cpus: 0.1}", "ray_actor_options: {}", None),
        ("", "ray_actor_options: {num_cpus: 1}", "deployments[1].ray_actor_options"),
        ("", "rollout: {bake_s: 5}", "deployments[1].rollout"),
        ("max_ongoing_requests: 5", "health_check_path: /h", None),
        ("", "num_replicas: many", "deployments[1].num_replicas"),
    ],
)
def test_deployments_of_one_process_agree_in_what_it_has_but_once(
    tmp_path: Path, one: str, other: str, at: str | None
) -> None:
    said = [
        f"  - {{name: {name}, import_path: 'a:a', process: p{', ' + more if more else ''}}}"
        for name, more in (("a", one), ("b", other))
    ]
    text = "\n".join(["deployments:", *said])
    if at is None:
        assert load(tmp_path, text).warnings == ()
        return
    (problem,) = problems(tmp_path, text)
    assert problem.path in at


def test_a_canary_needs_a_process_of_its_own(tmp_path: Path) -> None:
    said = "deployments: [{name: a, import_path: 'a:a', process: p, rollout: {canary: {steps: [5]}}}]"
    (problem,) = problems(tmp_path, said)
    assert problem.path == "deployments[0].rollout.canary"


def test_an_unset_variable_is_one_problem_and_hides_no_other(tmp_path: Path) -> None:
    text = ONE + '    ray_actor_options: {runtime_env: {env_vars: {A: "${NOPE}", B: 5}}}\n'
    assert [(problem.code, problem.path.rpartition(".")[2]) for problem in problems(tmp_path, text)] == [
        ("unset_variable", "A"),
        ("runtime_env", "B"),
    ]


def test_two_files_may_be_the_first_ones_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    check._build_validator.cache_clear()
    rebuild = SpecFile.model_rebuild
    monkeypatch.setattr(SpecFile, "model_rebuild", lambda: (time.sleep(0.05), rebuild())[1])
    with ThreadPoolExecutor(4) as threads:
        loading = [threads.submit(load_mapping, {"name": f"s{number}"}, base_dir=tmp_path) for number in range(4)]
        assert [one.result().spec.name for one in loading] == ["s0", "s1", "s2", "s3"]
    assert "PYDANTIC_DISABLE_PLUGINS" not in os.environ
