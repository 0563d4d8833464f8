"""Commands that run until they are told to end do so whatever they are at, and whatever has become of their output."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BEGIN = """
import asyncio, os, signal, sys, threading, time
from contextlib import suppress
from serveconf.cli.ending import Ending
from serveconf.cli.lasting import lasting_output
"""


def script(text: str, **options: object) -> subprocess.Popen[str]:
    code = BEGIN + textwrap.dedent(text)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_of_the_signals_ends_it_once_in_order(number: signal.Signals) -> None:
    process = script(
        """
        with lasting_output(), Ending() as ending, suppress(KeyboardInterrupt):
            try:
                print('begun', flush=True)
                threading.Event().wait()
            finally:
                with ending.held():
                    time.sleep(0.3)
                    print('stopped')
        sys.exit(0 if ending.told else 9)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(3):  # a wrapper, a terminal and a supervisor
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_work_on_a_loop_is_cancelled_and_may_end_in_order() -> None:
    process = script(
        """
        async def work():
            try:
                print('begun', flush=True)
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.2)
                print('ended')
        with lasting_output(), Ending() as ending:
            assert ending.until_told(work) is None
            with ending.held():
                print('stopped')
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.communicate(timeout=30) == ("ended\nstopped\n", "")
    assert process.returncode == 0


def test_a_reader_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    process = script(
        f"""
        with lasting_output(), Ending() as ending, suppress(KeyboardInterrupt):
            try:
                while True:
                    print('x' * 1000)
                    print('y' * 1000, file=sys.stderr)
                    time.sleep(0.001)
            finally:
                with ending.held():
                    print('stopping')
                    open({str(done)!r}, 'w').close()
        """
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    assert done.exists()


def test_a_reader_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    done = tmp_path / "done"
    process = script(
        f"""
        with lasting_output():
            for _ in range(5_000):
                print('x' * 1000)
            open({str(done)!r}, 'w').close()
        os._exit(0)
        """
    )
    assert process.wait(120) == 0
    assert done.exists()
    process.communicate()


def test_a_terminal_that_is_closed_is_an_end() -> None:
    outer, inner = pty.openpty()
    process = script(
        """
        with lasting_output(), Ending() as ending, suppress(KeyboardInterrupt):
            print('begun')
            while True:
                print('still here', file=sys.stderr)
                time.sleep(0.01)
        sys.exit(0 if ending.told else 9)
        """,
        stdout=inner,
        stderr=inner,
        stdin=inner,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(inner)
    assert b"begun" in os.read(outer, 1000)
    os.close(outer)  # the kernel sends SIGHUP
    assert process.wait(120) == 0


def test_nohup_outlives_the_terminal() -> None:
    process = script(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with lasting_output(), Ending() as ending, suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.2)
            print('goes on')
        """
    )
    assert process.communicate(timeout=30) == ("goes on\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sync_once_that_is_told_to_end_ends_with_0(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a host that takes the call and never answers
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("serveconf")), "sync", "--once"),
                f"http://127.0.0.1:{silent.getsockname()[1]}/shop.git",
            ],
            env={**os.environ, "SERVECONF_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        silent.settimeout(60)
        with silent.accept()[0]:
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
