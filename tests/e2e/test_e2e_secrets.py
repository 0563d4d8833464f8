"""A day of commands with a dozen secrets: none of them stands in an output, a log, an argument, an environment or a record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Stack
from place import COMMAND_S, Done, ask, until

SECRETS = {
    name: f"s3cret-{name.lower()}-{number}x7Qz"
    for number, name in enumerate(
        ("ARG", "KWARG", "DOTTED", "BLANK", "SLASH", "COLON", "CONFIG", "VARIABLE", "MIDDLEWARE", "PART", "FRONT", "FILE"), 10
    )
}  # fmt: skip
NEEDLES = [*SECRETS.values()]
APP = """
    import os

    class Model:
        def __init__(self, *args, fail=False, **kwargs):
            self.given = (args, kwargs, os.environ["LOGIN"])
            if fail == "start":
                raise RuntimeError(f"cannot log in with {self.given!r} and {kwargs['url']}")

        def reconfigure(self, config):
            if config.get("fail"):
                raise RuntimeError(f"no config like {config!r}")

        async def __call__(self, request):
            return {"length": len(repr(self.given))}
    """
BREAKS = """
    import os
    raise RuntimeError("at import: " + os.environ["LOGIN"])
    """
GUARD = """
    class Guard:
        def __init__(self, app, key, fail=False):
            if fail:
                raise ValueError(f"no guard with {key}")
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)
    """
SPEC = """
name: %(name)s
http_options: {port: %(port)d%(front)s}
deployments:
  - name: model
    import_path: %(module)s
    route_prefix: /%(name)s/model
    init_args: [["${ARG}"]]
    init_kwargs:
      plain: ${KWARG}
      a.b: ${DOTTED}
      "a b": ${BLANK}
      a/b: ${SLASH}
      "a:b": ${COLON}
      url: postgres://me:${PART}@host/db
      file: ${FILE}
      fail: %(fail)s
    user_config: {token: "${CONFIG}", fail: %(refuse)s}
    middlewares: [{import_path: "guard:Guard", kwargs: {key: "${MIDDLEWARE}", fail: %(guard)s}}]
    num_replicas: %(replicas)d
    ray_actor_options: {runtime_env: {env_vars: {LOGIN: "${VARIABLE}", MODE: %(mode)s}}}
    rollout: %(rollout)s
"""
FRONT = ', middlewares: [{import_path: "guard:Guard", kwargs: {key: "${FRONT}"}}]'
KEYS = """
import sys
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
for key in client.internal_kv_keys(b"", b"serveconf", timeout=10):
    value = client.internal_kv_get(key, b"serveconf", timeout=10) or b""
    if any(needle.encode() in value for needle in sys.argv[2:]):
        print(key.decode())
"""


class Day:
    """The stack, and everything that its commands have said."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.said: list[tuple[str, Done]] = []
        self.tokens = [stack.place.record()["token"]]
        for module, text in (("model", APP), ("breaks", BREAKS), ("guard", GUARD)):
            stack.code(module, text)
        (stack.folder / "secrets.env").write_text(f"FILE={SECRETS['FILE']}\n")

    def spec(self, module: str = "model:Model", *, replicas: int = 1, front: str = "", **flags: str) -> None:
        """Write the spec."""
        said = {"fail": "false", "refuse": "false", "guard": "false", "rollout": "{}", "mode": "fast", **flags}
        values = {"name": self.stack.name, "port": self.stack.place.http_port, "module": module, "front": front, **said}
        self.stack.file.write_text(SPEC % {**values, "replicas": replicas})

    def run(self, *args: str | Path, code: int | None = 0) -> Done:
        """A command, as its user types it: the secrets are in its environment and in an env file."""
        env = {name: value for name, value in SECRETS.items() if name != "FILE"}
        done = self.stack.place.run(*args, **env)
        assert code is None or done.code == code, f"{args}: {done.code}\n{done.out}\n{done.err}"
        self.said.append((" ".join(map(str, args)), done))
        return done

    def with_file(self, command: str, *more: str | Path, code: int | None = 0) -> Done:
        """A command that reads the spec."""
        return self.run(command, self.stack.file, "--env-file", self.stack.folder / "secrets.env", *more, code=code)


def evening(day: Day, own: tuple[str, str]) -> None:
    """What is asked of a stack that has been there for a while; most as text and as JSON."""
    stack = day.stack
    saved, whole = stack.folder / "reviewed.plan", stack.folder / "whole.backup"
    day.run("resume", *own, code=None)
    day.spec(replicas=3)
    day.with_file("plan", "--out", saved)
    day.run("apply", saved, "--env-file", stack.folder / "secrets.env", "-o", "markdown")
    day.with_file("plan", "--drift")
    day.with_file("plan", "-o", "markdown")
    for output in ("text", "json"):
        day.run("scale", "model", "2", *own, "-o", output)
        day.run("status", "model", *own, "-o", output, code=None)
        day.run("doctor", stack.file, "-o", output, code=None)
        day.run("token", "-o", output)
        day.run("dashboard", "-o", output, code=None)
        day.run("upgrade", "-o", output, code=None)
        day.run("backup", whole, "--force", "-o", output)
    day.run("restore", whole, "--stack", stack.name, "--replace", "-o", "json")
    day.run("delete", "model", *own)
    day.run("restore", whole, "--stack", stack.name, "--replace")
    canary(day, own)
    day.run("logs", "--proxy", code=None)
    day.run("logs", "model", *own, "-o", "json", code=None)
    day.run("events", *own)
    day.run("token", "--rotate")
    day.tokens.append(stack.place.record()["token"])
    day.run("history", *own)
    for kept in (saved, whole):  # these hold them, as they must, for their owner alone
        assert kept.stat().st_mode & 0o777 == 0o600
        assert leaks(kept.read_bytes().decode(errors="replace"))
        kept.unlink()


def canary(day: Day, own: tuple[str, str]) -> None:
    """A step of one ends by hand, once in each direction."""
    for command in ("abort", "promote"):
        day.spec(replicas=1, rollout="{canary: {steps: [50], step_s: 60}}", mode=command)
        day.with_file("apply", "--no-wait", "-o", "json")
        until(lambda: stepping(day.stack), "a canary's step")
        day.run(command, "model", *own, "-o", "json", code=None)


def stepping(stack: Stack) -> bool:
    return any(deployment["canary"] for deployment in stack.place.stack(stack.name)["deployments"])


@pytest.fixture(scope="module")
def day(place, tmp_path_factory) -> Iterator[Day]:
    """The commands have run; at the end the stack goes."""
    stack = Stack(place, "secretive", tmp_path_factory.mktemp("secretive"))
    day = Day(stack)
    day.spec()
    day.with_file("validate")
    for output in ("text", "json"):
        day.with_file("plan", "-o", output)
    day.with_file("apply")
    assert ask(f"{place.url}/secretive/model")[0] == 200
    day.spec(replicas=2)
    day.with_file("plan", "-o", "json")
    day.with_file("apply", "-o", "json")
    for flags in ({"fail": "start"}, {"refuse": "true"}, {"guard": "true"}):
        day.spec(replicas=2, **flags)
        assert day.with_file("apply", "-o", "json", code=None).code in (1, 3)
    day.spec("breaks:app")
    assert day.with_file("plan", code=None).code == 1
    assert day.with_file("apply", code=None).code in (1, 3)
    day.spec(front=FRONT)
    day.with_file("apply", code=None)
    own = ("--stack", stack.name)
    for command in (["history", "-o", "json"], ["dump"], ["events", "-o", "json"], ["logs", "model"], ["rollback"]):
        day.run(*command, *own, code=None)
    day.run("status", "-o", "json", code=None)
    day.run("status", code=None)
    day.run("routes")
    evening(day, own)
    yield day
    place.run("delete", "--stack", stack.name)


def files(root: Path) -> Iterator[Path]:
    """All that there are; folders may go meanwhile."""
    for folder, _, names in os.walk(root):
        yield from (file for name in names if (file := Path(folder, name)).is_file() and not file.is_symlink())


def read(file: Path) -> str:
    """What it holds; nothing where it has gone meanwhile."""
    try:
        return file.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""


def leaks(text: str) -> list[str]:
    return [needle for needle in NEEDLES if needle in text]


def test_no_command_says_a_secret(day: Day) -> None:
    found = {command: leaks(done.out + done.err) for command, done in day.said}
    assert {command: names for command, names in found.items() if names} == {}
    assert any("${KWARG}" in done.out for _, done in day.said)


def test_what_failed_names_the_variable_instead(day: Day) -> None:
    said = "".join(done.out + done.err for _, done in day.said)
    for words in ("cannot log in with", "no config like", "no guard with ${MIDDLEWARE}", "at import: ${VARIABLE}"):
        assert words in said


def test_no_log_holds_a_secret(day: Day) -> None:
    place = day.stack.place
    texts = {str(file): text for file in files(place.root) if (text := read(file))}
    assert any("session_" in file for file in texts)
    assert {file: names for file, text in texts.items() if (names := leaks(text))} == {}
    with_token = {file for file, text in texts.items() if any(token in text for token in day.tokens)}
    assert with_token == {str(place.root / "home/cluster.json")}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_shows_a_secret_in_its_arguments_or_its_first_environment(day: Day) -> None:
    lines = day.stack.place.processes()
    assert lines
    found = {}
    for line in lines:
        folder = Path("/proc") / line.split()[0]
        try:
            text = "".join((folder / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ"))
        except OSError:  # it has ended
            continue
        found[line] = [*leaks(text), *(token for token in day.tokens if token in text)]
    assert {line: names for line, names in found.items() if names} == {}


def test_nothing_in_the_store_but_what_replicas_and_proxies_are_made_of_holds_a_secret(day: Day) -> None:
    place = day.stack.place
    record = place.record()
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place.root / "home/ray_token")}
    command = [sys.executable, "-c", KEYS, record["ray"]["address"], *NEEDLES]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    kinds = {key.split("/")[0] for key in done.stdout.split()}
    assert kinds <= {"generation", "orders", "revision", "revisions", "stack", "stacks"}
