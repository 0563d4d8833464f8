"""What holds for all tests, wherever they run.

Property tests try the same examples every time, however slow the machine is; ``--hypothesis-profile=search`` has them
look for new ones. No proxy of the network and no settings of git count. Ctrl-C and a terminal's end are heard by what
the tests start, also where they run in the background of a script, which ignores them.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from stage import Stage

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

for name in ("http_proxy", "https_proxy", "all_proxy"):  # nothing here is asked of others, and no proxy reaches what is
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# commits are signed, hooked or named by no one
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A control API for all tests of a module; ``empty`` takes away what one of them leaves."""
    from stage import Stage  # takes its time, and most modules need none

    stage = Stage(tmp_path_factory.mktemp("packages"))
    yield stage
    stage.close()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    from serveconf import local_ray

    return local_ray.free_port()


@pytest.fixture
def ipv6() -> None:
    """Skips where this machine has no IPv6, as many containers."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"needs IPv6: {error.strerror}")
