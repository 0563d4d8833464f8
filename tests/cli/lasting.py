"""A command that runs until a signal ends it, in this process: what happens meanwhile is a function in a thread of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stage import Stage
from typer.testing import CliRunner, Result

from serveconf.cli.ending import ENDS
from serveconf.cli.parser import app

WITHIN_S = 120.0  # far more than anything takes: the machine may be busy


class Meanwhile:
    """What a test waits for while the command runs; the command that ends by itself ends the waiting."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def until(self, look: Callable[[], object], what: str) -> None:
        """Wait for an event that somebody else brings about."""
        deadline = time.monotonic() + WITHIN_S
        while not look():
            assert time.monotonic() < deadline and not self.ended.wait(0.01), f"never: {what}"


def lasting(
    stage: Stage, *words: str, during: Callable[[Meanwhile], None], ends: signal.Signals = signal.SIGTERM
) -> Result:
    """Run it with the stage's address; when ``during`` has returned it gets the signal. Fails as ``during`` does."""
    meanwhile, failed = Meanwhile(), []

    def work() -> None:
        try:
            during(meanwhile)
        except BaseException as error:
            failed.append(error)
        finally:
            os.kill(os.getpid(), ends)

    with _nobody_is_hurt(meanwhile):
        thread = threading.Thread(target=work)
        thread.start()
        result = CliRunner().invoke(app, ["--address", stage.url, "--token", "secret", *words])
        meanwhile.ended.set()
        thread.join()
    if failed:
        raise AssertionError(f"{failed[0]}\n{result.output}") from failed[0]
    return result


@contextmanager
def _nobody_is_hurt(meanwhile: Meanwhile) -> Iterator[None]:
    """A Ctrl-C is one for the command; any signal that comes when it has ended by itself is lost."""

    def hear(number: int, frame: object) -> None:
        if number == signal.SIGINT and not meanwhile.ended.is_set():
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
