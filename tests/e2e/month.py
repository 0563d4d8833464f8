"""A month of changes to two stacks that ``serveconf watch FOLDER`` follows: random edits, good and bad, whole and torn, of YAML
and of Python, while controller and watcher are killed in between. By hand; tests/watch/test_watch_month.py is a
small one without a cluster, which the suite runs:

    python tests/e2e/month.py [--edits 3000] [--seed 1] [--minutes 10] [--kills 0.02] [--verbose]

After each edit, or burst of edits, what is served must be what the last good files say. All the while two connections ask routes
that nobody touches, and no request of theirs may fail; memory and file descriptors of controller, proxies and watcher are
read on the way. A seed is a sequence of edits and kills; what comes between them is the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edited import ADDED
from load import Load
from place import COMMAND, Place, until

CONVERGES_S = 60.0
STEADY = "steady"  # the deployment of each stack that nobody touches
MOST = 4  # deployments that come and go beside it
MODULE = """
class Served:
    def reconfigure(self, user_config):
        self.config = user_config["word"]

    def __call__(self, request):
        return {"said": "%s", "config": self.config}
"""
BAD_YAML = ("deployments: [", "name: {stack}\nname: again\n", "name: {stack}\ndeploymets: []\n", "\t- x\n", "")
BAD_LINES = (
    "num_replica: 2", "route_prefix: no-slash", "user_config: ${{UNSET_IN_THIS_TEST}}", "import_path: 'nowhere:app'",
    "middlewares: [{{import_path: 'added:Missing'}}]", "num_replicas: 0",
)  # fmt: skip
BAD_PYTHON = ("def broken(:\n", "raise RuntimeError('at import')\n", "Other = 1\n", "import no_such_module_here\n")


@dataclass
class Served:
    """What one deployment should answer."""

    word: str
    config: str = "c0"
    prefix: str = ""
    added: str | None = None
    replicas: int = 1


@dataclass
class Stack:
    """One file with its folder, and what it says; ``broken`` while a bad edit of it stands."""

    name: str
    folder: Path
    port: int
    deployments: dict[str, Served] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)  # prefixes that nobody has any more

    @property
    def file(self) -> Path:
        return self.folder.parent / f"{self.name}.yaml"

    def module(self, name: str) -> Path:
        return self.folder / f"m_{name}.py"

    def yaml(self, worse: tuple[str, str] | None = None) -> str:
        """The spec; ``worse``: a deployment and a line that is wrong in it."""
        lines = [f"name: {self.name}", f"app_dir: {self.name}", f"http_options: {{port: {self.port}}}"]
        lines += ["defaults: {ray_actor_options: {num_cpus: 0.01}}", "deployments:"]
        for name, one in self.deployments.items():
            said = {
                "name": name,
                "import_path": f"'m_{name}:Served'",
                "route_prefix": one.prefix,
                "num_replicas": str(one.replicas),
                "user_config": f"{{word: {one.config}}}",
            }
            if one.added is not None:
                said["middlewares"] = f"[{{import_path: 'added:Adds', kwargs: {{value: {one.added}}}}}]"
            if worse is not None and worse[0] == name:
                key, _, value = worse[1].partition(": ")
                said[key] = value
            inside = "\n    ".join(f"{key}: {value}" for key, value in said.items())
            lines.append(f"  - {inside}")
        return "\n".join(lines) + "\n"


class Month:
    """A place, its stacks, the watcher, and what was seen."""

    def __init__(self, place: Place, folder: Path, seed: int, *, tell: Callable[[str], None]) -> None:
        self.place, self.folder, self.random, self.tell = place, folder, random.Random(seed), tell
        self.words = (f"w{number}" for number in range(10**9))
        self.lives: dict[str, list[float]] = defaultdict(list)  # kind of a lone edit -> seconds from save to live
        self.done: dict[str, int] = defaultdict(int)
        self.sizes: list[dict[str, tuple[float, int]]] = []  # role -> (MB, descriptors)
        self.watcher: subprocess.Popen[bytes] | None = None
        self.controller = 0
        self.whole = True  # whether the last edit was written at once
        self.stacks = [self._stack(name) for name in ("north", "south")]

    def _stack(self, name: str) -> Stack:
        stack = Stack(name, self.folder / name, self.place.http_port)
        stack.folder.mkdir(parents=True)
        (stack.folder / "added.py").write_text(ADDED)
        for one in (STEADY, "a", "b"):
            stack.deployments[one] = Served(next(self.words), prefix=f"/{name}/{one}")
            stack.module(one).write_text(MODULE % stack.deployments[one].word)
        stack.file.write_text(stack.yaml())
        return stack

    # -- what is done ------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to watch."""
        log = (self.folder.parent / "watch.log").open("ab")
        with log:
            self.watcher = subprocess.Popen(
                [str(COMMAND), "watch", str(self.folder), "--log-format", "json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.place.env,
            )  # fmt: skip

    def kill_watcher(self) -> None:
        assert self.watcher is not None
        number = self.random.choice((signal.SIGKILL, signal.SIGTERM))
        self.tell(f"watcher gets {number.name}")
        self.watcher.send_signal(number)
        self.watcher.wait(60)
        self.watch()

    def kill_controller(self) -> None:
        with contextlib.suppress(OSError, AssertionError, StopIteration):  # it may just be coming back
            self.controller = int(self.place.status()["controller"]["pid"])
        self.tell(f"controller {self.controller} is killed")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.controller, signal.SIGKILL)

    def edit(self, stack: Stack) -> str:
        """One good edit; its kind."""
        others = [name for name in stack.deployments if name != STEADY]
        kinds = ["code", "code", "config", "route", "middleware", "replicas", "add", "remove", "touch", "comment"]
        kind = self.random.choice(kinds)
        if kind == "add" and len(others) >= MOST:
            kind = "remove"
        if kind != "add" and (not others or (kind == "remove" and len(others) < 2)):
            kind = "add"
        name = f"d{next(self.words)}" if kind == "add" else self.random.choice(others)
        text = None
        if kind == "add":
            one = stack.deployments[name] = Served(next(self.words), prefix=f"/{stack.name}/{name}")
            self.write(stack.module(name), MODULE % one.word)
        one = stack.deployments[name]
        match kind:
            case "code":
                one.word = next(self.words)
                self.write(stack.module(name), MODULE % one.word)
                return kind
            case "touch":
                stack.module(name).touch()
                return kind
            case "config":
                one.config = next(self.words)
            case "route":
                stack.gone.add(one.prefix)
                one.prefix = f"/{stack.name}/{next(self.words)}"
            case "middleware":
                one.added = None if one.added and self.random.random() < 0.3 else next(self.words)
            case "replicas":
                one.replicas = 3 - one.replicas
            case "remove":
                stack.gone.add(one.prefix)
                del stack.deployments[name]
            case "comment":
                text = f"# {next(self.words)}\n{stack.yaml()}"
        self.write(stack.file, text or stack.yaml())
        return kind

    def spoil(self, stack: Stack) -> Callable[[], None]:
        """One bad edit; gives what takes it back."""
        others = [name for name in stack.deployments if name != STEADY]
        before: dict[Path, str] = {}
        if others and self.random.random() < 0.5:
            path = stack.module(self.random.choice(others))
            text = self.random.choice(BAD_PYTHON)
        elif others and self.random.random() < 0.7:
            path, line = stack.file, self.random.choice(BAD_LINES)
            text = stack.yaml((self.random.choice(others), line.format()))
        else:
            path, text = stack.file, self.random.choice(BAD_YAML).format(stack=stack.name)
        before[path] = path.read_text()
        self.tell(f"  bad {path.name}: {text[-60:]!r}")
        self.write(path, text)
        return lambda: [self.write(path, text) for path, text in before.items()] and None

    def write(self, path: Path, text: str) -> None:
        """As editors, copies, checkouts and scripts do it."""
        how = self.random.randrange(5)
        self.whole = self.whole and how < 3
        match how:
            case 0 | 1:
                path.write_text(text)
            case 2:
                draft = path.with_name(f".{path.name}.tmp")
                draft.write_text(text)
                draft.replace(path)
            case 3:  # torn
                half = self.random.randrange(len(text) + 1)
                with path.open("w") as file:
                    file.write(text[:half])
                    file.flush()
                    time.sleep(self.random.uniform(0, 0.03))
                    file.write(text[half:])
            case _:  # taken away and made anew
                path.unlink(missing_ok=True)
                time.sleep(self.random.uniform(0, 0.01))
                path.write_text(text)

    # -- what is seen ------------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, Any, str | None]:
        """Status, JSON, and the header that the middleware adds."""
        try:
            with urllib.request.urlopen(f"{self.place.url}{path}", timeout=30) as answer:
                return answer.status, json.load(answer), answer.headers.get("x-added")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None, None

    def differs(self, stack: Stack) -> str:
        """What is not as the files say; nothing where all is."""
        for name, one in stack.deployments.items():
            found = self.get(one.prefix)
            wanted = (200, {"said": one.word, "config": one.config}, one.added)
            if found != wanted:
                return f"{name} at {one.prefix}: {found}, not {wanted}"
        used = {one.prefix for one in stack.deployments.values()}
        for prefix in sorted(stack.gone - used)[-3:]:
            if (found := self.get(prefix))[0] != 404:
                return f"{prefix} is still there: {found}"
        return ""

    def is_quiet(self) -> bool:
        """Whether every stack is whole, and known to be as its file says."""
        found = {one["name"]: one for one in self.place.status()["stacks"]}
        mine = [found[stack.name] for stack in self.stacks]
        return all(one["state"] == "Healthy" and one["source"]["in_sync"] for one in mine)

    def converge(self) -> float:
        """Seconds until all is served as the files say."""
        began = time.monotonic()
        while True:
            found = next((text for stack in self.stacks if (text := self.differs(stack))), "")
            if not found:
                return time.monotonic() - began
            if time.monotonic() - began > CONVERGES_S:
                self.keep()
                raise AssertionError(f"after {CONVERGES_S:g} s: {found}\n{self.tail()}")
            time.sleep(0.005)

    def keep(self) -> None:
        """The status, and what the controller is at, beside the logs: for whoever finds out why."""
        with contextlib.suppress(OSError, AssertionError):
            status = self.place.status()
            (self.folder.parent / "status.json").write_text(json.dumps(status, indent=1))
            (self.folder.parent / "events.txt").write_text(self.place.run("events").out)

    def tail(self) -> str:
        log = (self.folder.parent / "watch.log").read_text().splitlines()
        return "\n".join(log[-15:])

    def measure(self) -> None:
        """Memory and descriptors of what lives long."""
        status = until(self.place.status, "the control API answers", CONVERGES_S)  # it may just have been killed
        pids = {"controller": status["controller"]["pid"], "proxy": status["proxies"][0]["pid"]}
        if self.watcher is not None:
            pids["watcher"] = self.watcher.pid
        found = {}
        for role, pid in pids.items():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[role] = (pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd")))
        found["replicas"] = (0.0, sum(len(d["replicas"]) for s in status["stacks"] for d in s["deployments"]))
        self.sizes.append(found)
        self.tell("  " + ", ".join(f"{role} {mb:.0f} MB {fds}" for role, (mb, fds) in found.items()))

    # -- a month -----------------------------------------------------------------------------------------------------

    def round(self, kills: float) -> int:
        """An edit, or several at once, and whatever befalls; how many edits it was."""
        stack = self.random.choice(self.stacks)
        what = self.random.random()
        if quiet := self.random.random() < 0.5:
            until(self.is_quiet, "every stack is healthy and as its file says", 60)
        if self.random.random() < kills:
            self.random.choice((self.kill_controller, self.kill_watcher))()
            disturbed = True
        else:
            disturbed = False
        if what < 0.2:
            repair = self.spoil(stack)
            time.sleep(self.random.uniform(0, 1.5))
            if text := next((text for one in self.stacks if (text := self.differs(one))), ""):
                raise AssertionError(f"a bad edit of {stack.name} has changed what is served: {text}\n{self.tail()}")
            repair()
            self.done["bad"] += 1
            kind = self.edit(stack)
            self.tell(f"  then {stack.name} {kind}")
            self.done[kind] += 1
            self.converge()
            return 2
        if what < 0.35:
            count = self.random.randrange(2, 9)
            for _ in range(count):
                self.done[self.edit(self.random.choice(self.stacks))] += 1
                time.sleep(self.random.choice((0, 0, 0.02, 0.2)))
            self.tell(f"  {count} edits at once")
            self.converge()
            return count
        self.whole = True
        kind = self.edit(stack)
        self.done[kind] += 1
        took = self.converge()
        self.tell(f"  {stack.name} {kind}: {took:.2f} s")
        if quiet and self.whole and not disturbed:
            self.lives[kind].append(took)
        return 1

    def check_end(self) -> None:
        """What is served is what the files say, and the command says so too."""
        self.converge()
        until(lambda: self.place.is_whole() and self.is_quiet(), "all is whole", 60)
        for stack in self.stacks:
            plan = self.place.ok("plan", stack.file, "-o", "json").json
            assert plan["changed"] is False, plan


@contextlib.contextmanager
def month(place: Place, folder: Path, seed: int, *, tell: Callable[[str], None]) -> Iterator[Month]:
    """Two stacks that are watched and serve; they go at the end."""
    here = Month(place, folder, seed, tell=tell)
    for stack in here.stacks:
        place.ok("apply", stack.file)
    here.watch()
    try:
        here.converge()
        yield here
    finally:
        assert here.watcher is not None
        here.watcher.terminate()
        here.watcher.wait(60)
        for stack in here.stacks:
            place.run("delete", "--stack", stack.name)


def run(here: Month, edits: int, minutes: float, kills: float) -> tuple[int, int, list[str]]:
    """Edits done, requests answered on untouched routes, and those of them that failed."""
    ends, done, measured = time.monotonic() + 60 * minutes, 0, 0
    paths = [stack.deployments[STEADY].prefix for stack in here.stacks]
    with Load(here.place.http_port, paths) as load:
        while done < edits and time.monotonic() < ends:
            done += here.round(kills)
            if done >= measured + 25:
                measured = done
                here.measure()
            if load.failures:
                break
        here.check_end()
    return done, load.answers, load.failures


def report(here: Month, done: int, answers: int, failures: list[str], seconds: float) -> str:
    """For people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(here.done.items()))
    lines = [f"{done} edits in {seconds:.0f} s: {kinds}"]
    lines.append(
        f"{answers} requests on untouched routes, {len(failures)} failed{''.join(f'; {f}' for f in failures[:5])}"
    )
    for kind, took in sorted(here.lives.items()):
        worst = sorted(took)[int(len(took) * 0.95)]
        lines.append(
            f"  save to live, {kind}: median {statistics.median(took):.2f} s, p95 {worst:.2f} s of {len(took)}"
        )
    for role in ("controller", "proxy", "watcher"):
        sizes = [one[role] for one in here.sizes if role in one]
        lines.append(f"  {role}: MB and descriptors {' '.join(f'{mb:.0f}/{fds}' for mb, fds in sizes)}")
    return "\n".join(lines)


def main() -> None:
    """By hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=float, default=0.02, help="share of rounds in which something is killed")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    place, began = Place(), time.monotonic()
    whole = False
    try:
        tell: Callable[[str], None] = (lambda text: print(text, flush=True)) if args.verbose else (lambda _: None)
        with month(place, place.root / "stacks", args.seed, tell=tell) as here:
            done, answers, failures = run(here, args.edits, args.minutes, args.kills)
            print(report(here, done, answers, failures, time.monotonic() - began), flush=True)
        assert not failures
        whole = True
    finally:
        place.run("shutdown")
        if whole:
            place.close()
        else:
            print(f"logs: {place.root}", flush=True)


if __name__ == "__main__":
    main()
