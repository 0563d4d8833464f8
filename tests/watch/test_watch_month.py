"""A month of changes in small: good and bad ones, atomic and torn, of YAML and Python, with watchers that end and come back."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from watching import FakeServing, rename_over, watching

from serveconf.watch.look import Look
from serveconf.watch.memory import Fate, Outcome

EDITS, NAMES = 150, ("a", "b", "c")


class Strict(FakeServing):
    """Serves what works, and remembers it by stack."""

    def __init__(self) -> None:
        super().__init__()
        self.serves: dict[str, tuple[str, int]] = {}

    def apply(self, look: Look, *, first: bool, live: Callable[[], None]) -> Outcome:
        assert look.loaded is not None
        code, spec = (look.loaded.app_dir / "web.py").read_text(), look.loaded.spec
        self.started.append(spec.name)
        if "raise" in code:
            return Outcome(fate=Fate.REFUSED, message="it does not import")
        self.serves[spec.name] = (code, spec.deployments[0].num_replicas)
        return Outcome(fate=Fate.SERVED)


def spec_of(name: str, replicas: int, more: str = "") -> str:
    deployment = f"{{name: {name}, import_path: 'web:app', num_replicas: {replicas}{more}}}"
    return f"name: {name}\napp_dir: {name}\ndeployments:\n  - {deployment}\n"


def save(chance: random.Random, path: Path, text: str) -> None:
    """Renamed over, written, or written in two pieces."""
    match chance.randrange(3):
        case 0:
            rename_over(path, text)
        case 1:
            path.write_text(text)
        case _:
            with path.open("w") as file:
                file.write(text[: len(text) // 2])
                file.flush()
                file.write(text[len(text) // 2 :])


def test_what_serves_at_the_end_is_what_the_files_said_last(tmp_path: Path) -> None:
    chance = random.Random(7)
    serving = Strict()
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "web.py").write_text("x = 0\n")
        (tmp_path / f"{name}.yaml").write_text(spec_of(name, 1))
    with ExitStack() as running:
        watcher = running.enter_context(watching(tmp_path, serving=serving))
        for number in range(EDITS):
            name = chance.choice(NAMES)
            code = [f"x = {number}\n", f"raise LookupError({number})\n", f"x = ({number}\n"]
            if chance.random() < 0.6:
                save(chance, tmp_path / name / "web.py", chance.choice(code))
            else:
                more = chance.choice(["", "", ", oops: 1"])
                save(chance, tmp_path / f"{name}.yaml", spec_of(name, 1 + number % 5, more))
            if chance.random() < 0.1:
                watcher.rests(0.3)
            if number % 50 == 49:
                running.close()
                watcher = running.enter_context(watching(tmp_path, serving=serving))
        for name in NAMES:
            save(chance, tmp_path / name / "web.py", f"last = '{name}'\n")
            save(chance, tmp_path / f"{name}.yaml", spec_of(name, 7))
        last = {name: (f"last = '{name}'\n", 7) for name in NAMES}
        watcher.until(lambda: serving.serves == last, "the last good state of each")
        assert len(serving.started) < EDITS
