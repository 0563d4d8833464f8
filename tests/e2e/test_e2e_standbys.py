"""A replica that starts in a standby: there at once, and in nothing that an app can see other than one from scratch."""

from __future__ import annotations

import json
from typing import Any

from conftest import Stack
from place import ask, until

TOLD = """
    import asyncio, faulthandler, gc, logging, os, re, resource, signal, sys, threading
    from fastapi import FastAPI
    app = FastAPI()
    OURS = [name for name in sys.modules if name in ("told", "__main__")]

    def open_files() -> list:
        ends = []
        for number in os.listdir("/proc/self/fd"):
            try:
                ends.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:  # that of the listing itself
                pass
        return sorted(re.sub("[0-9a-f]{6,}|[0-9]+", "N", end) for end in ends if end.startswith("/"))

    @app.get("/")
    async def told() -> dict:
        return {
            "pid": os.getpid(),
            "cwd": os.getcwd(),
            "argv": sys.argv,
            "path": sys.path,
            "modules": OURS,
            "environment": sorted(name for name in os.environ if name != "RAY_JOB_ID"),
            "values": {name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "open": open_files(),
            "nice": os.nice(0),
            "scheduled": [os.sched_getscheduler(0), open("/proc/self/oom_score_adj").read()],
            "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0],
            "faulthandler": faulthandler.is_enabled(),
            "hooks": [str(sys.excepthook)[:30], str(threading.excepthook)[:30], sys.stdout.encoding],
            "umask": os.umask(os.umask(0)) or os.umask(0o22),
            "signals": {str(s): str(signal.getsignal(s))[:20] for s in signal.valid_signals()},
            "loop": type(asyncio.get_running_loop()).__module__,
            "policy": type(asyncio.get_event_loop_policy()).__qualname__,
            "thread": threading.current_thread().name,
            "logging": [str(type(h)) for h in logging.getLogger().handlers],
            "level": logging.getLogger().level,
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "recursion": sys.getrecursionlimit(),
            "bytecode": sys.dont_write_bytecode,
        }
    """


def told(stack: Stack) -> dict[str, Any]:
    """What the app sees of its process."""
    found: dict[str, Any] = json.loads(ask(stack.url)[1])
    return found


def say(stack: Stack, standbys: int) -> None:
    """Write the spec."""
    stack.spec("name: told, import_path: 'told:app', route_prefix: /$, ray_actor_options: {num_cpus: 0.07}")
    stack.file.write_text(f"standbys: {standbys}\n{stack.file.read_text()}")


def ready_standbys(stack: Stack, kind: str) -> list[int]:
    """Pids of the standbys of a kind."""
    standbys = stack.place.status()["standbys"]
    return [s["pid"] for s in standbys if s["kind"] == kind and s["state"] == "Ready"]


def test_a_replica_from_a_standby_differs_in_nothing_that_its_app_can_see(stack: Stack) -> None:
    stack.code("told", TOLD)
    say(stack, 0)
    stack.apply()
    scratch = told(stack)
    assert {scratch.pop("pid")} == stack.pids("told")

    say(stack, 1)
    stack.apply()
    until(lambda: ready_standbys(stack, "num_cpus=0.07"), "a standby is there")
    warm = ready_standbys(stack, "num_cpus=0.07")
    stack.code("told", TOLD + "\n    # another version\n")
    stack.apply()
    from_standby = told(stack)
    assert from_standby.pop("pid") == warm[0]
    packages = [one["path"] for one in (scratch, from_standby)]
    assert len(packages[0]) == len(packages[1])  # each its own code package, where the other has its
    for one in (scratch, from_standby):
        one["path"] = [place for place in one["path"] if "/code/" not in place]
    assert from_standby == scratch

    until(lambda: ready_standbys(stack, "num_cpus=0.07"), "it is made up for")
    say(stack, 0)
    stack.apply()
    until(lambda: not ready_standbys(stack, "num_cpus=0.07"), "none is kept that nobody wants")
