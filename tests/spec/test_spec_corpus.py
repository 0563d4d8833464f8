"""The corpus: every bad file gives exactly its problems, every good file exactly its spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus import ENV, Case, cases, line

from serveconf.spec.codes import CODES
from serveconf.spec.load import load_file
from serveconf.spec.models import StackSpec, as_wire
from serveconf.spec.problems import SpecInvalid

BAD = ("bad_yaml.txt", "bad_fields.txt", "bad_between.txt", "bad_variables.txt")
BAD_CASES = [case for name in BAD for case in cases(name)]
GOOD_CASES = cases("good.txt")


@pytest.fixture
def spec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("spec.yaml")


@pytest.mark.parametrize("case", BAD_CASES, ids=str)
def test_bad_file_gives_exactly_its_problems(case: Case, spec_file: Path) -> None:
    spec_file.write_text(case.text, encoding="utf-8")
    with pytest.raises(SpecInvalid) as caught:
        load_file(spec_file, env=ENV, unsupported=frozenset())
    assert [line(problem) for problem in caught.value.problems] == list(case.expected)
    for problem in caught.value.problems:
        assert problem.code in CODES
        assert problem.file == "spec.yaml"
        assert "pydantic" not in str(problem)


@pytest.mark.parametrize("case", GOOD_CASES, ids=str)
def test_good_file_gives_its_spec(case: Case, spec_file: Path) -> None:
    spec_file.write_text(case.text, encoding="utf-8")
    loaded = load_file(spec_file, env=ENV, unsupported=frozenset())
    assert as_wire(loaded.spec) == json.loads(case.expected[0])
    assert StackSpec.model_validate_json(json.dumps(as_wire(loaded.spec))) == loaded.spec
    assert loaded.warnings == ()


def test_corpus_is_as_large_as_promised() -> None:
    assert len(BAD_CASES) >= 120
    assert len(GOOD_CASES) >= 30


def test_each_code_of_a_file_is_met_by_the_corpus_or_a_test_beside_it() -> None:
    met = {expected.replace(" warning ", " ").split()[1] for case in BAD_CASES for expected in case.expected}
    elsewhere = {  # what no text file can show: bytes, limits, other files, imports
        "file", "encoding", "control_character", "too_large", "empty", "env_file", "not_supported", "too_many_problems",
        "import_failed", "port_conflict", "foreign",
    }  # fmt: skip
    assert set(CODES) - met - elsewhere == set()
