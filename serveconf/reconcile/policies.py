"""Scaling policies of the user's, each in a process of its own: what it does, or does not, holds up nothing else.

``Scaling`` asks. A process lives on between two questions; one that does not answer in time is killed, and begun anew for
a later question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from serveconf.errors import ServeconfError
from serveconf.plan.scaling import Answer
from serveconf.plan.state import DesiredDeployment

IMPORT_S = 30.0  # for the first answer: the module is imported before it
LIMIT_S = 5.0
IDLE_S = 60.0  # after which a process that nobody asks is ended
FIRST_PAUSE_S = 1.0  # after a process that had to be killed, or ended; the next one is twice as long
LONGEST_PAUSE_S = 60.0


class _Running:
    """One process, and what it was started for."""

    def __init__(self, key: tuple[str, str], process: Process) -> None:
        self.key, self.process = key, process
        self.answered = False
        self.asked_at = 0.0

    async def ask(self, context: dict[str, Any]) -> Answer:
        """Raises TimeoutError, or OSError where it has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(context).encode() + b"\n")
        async with asyncio.timeout(LIMIT_S if self.answered else IMPORT_S):
            await self.process.stdin.drain()
            line = await self.process.stdout.readline()
        if not line:
            raise ConnectionError("its process ended")
        self.answered = True
        said = json.loads(line)
        return Answer(number=said.get("number"), failure=said.get("error", ""))

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Policies:
    """The processes of all policies. ``folder``: where a code package lies, by its digest."""

    def __init__(self, folder: Callable[[str], Awaitable[Path]]) -> None:
        self._folder = folder
        self._running: dict[tuple[str, str], _Running] = {}
        self._pauses: dict[tuple[str, str], tuple[float, float]] = {}  # (not before, how long the next pause is)

    async def ask(self, stack: str, deployment: DesiredDeployment, context: dict[str, Any]) -> Answer:
        """What the deployment's policy says of this load; it never raises."""
        whose = (stack, deployment.name)
        now = asyncio.get_running_loop().time()
        not_before, pause_s = self._pauses.get(whose, (0.0, FIRST_PAUSE_S))
        if now < not_before:
            return Answer(failure="it failed, and is tried again soon")
        try:
            running = await self._process(whose, deployment)
            running.asked_at = now
            answer = await running.ask(context)
        except TimeoutError:
            answer = Answer(failure=f"it took longer than {LIMIT_S:g} s")
        except (OSError, ValueError, ServeconfError) as error:
            answer = Answer(failure=str(error) or type(error).__name__)
        else:
            self._pauses.pop(whose, None)
            return answer
        if (failed := self._running.pop(whose, None)) is not None:
            await failed.end()
        now = asyncio.get_running_loop().time()
        self._pauses[whose] = (now + pause_s, min(2 * pause_s, LONGEST_PAUSE_S))
        return answer

    async def run(self) -> None:
        """End what nobody asks any more, until cancelled; then all of them."""
        try:
            while True:
                await asyncio.sleep(IDLE_S / 2)
                await self._end_idle(asyncio.get_running_loop().time())
        finally:
            await self.close()

    async def close(self) -> None:
        """End all processes."""
        running, self._running = self._running, {}
        for one in running.values():
            await one.end()

    async def _process(self, whose: tuple[str, str], deployment: DesiredDeployment) -> _Running:
        import_path = deployment.spec["autoscaling_config"]["policy"]
        code = (deployment.policy.code if deployment.policy is not None else deployment.code) or ""
        key = (code, import_path)
        running = self._running.get(whose)
        if running is not None and running.key == key and running.process.returncode is None:
            return running
        if running is not None:
            await running.end()
        folder = str(await self._folder(code)) if code else ""
        variables = deployment.spec.get("ray_actor_options", {}).get("runtime_env", {}).get("env_vars", {})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serveconf.ingress.policy", folder, import_path),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd=deployment.app_dir if deployment.app_dir and Path(deployment.app_dir).is_dir() else "/",
            env={**os.environ, **variables},
        )
        running = self._running[whose] = _Running(key, process)
        return running

    async def _end_idle(self, now: float) -> None:
        for whose in [whose for whose, one in self._running.items() if now - one.asked_at > IDLE_S]:
            await self._running.pop(whose).end()
