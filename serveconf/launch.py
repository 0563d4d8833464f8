"""Find the control API; where there is none and it may be started, start what is missing: Ray, then the controller."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from serveconf.admin.port import control_port_in_use
from serveconf.client import ANSWER_S, HEALTH_S, Client
from serveconf.control_port import DEFAULT_ADDRESS, LOOPBACK, choose_control_place, control_place
from serveconf.errors import OperatorError, ServeconfError, Silent, Unauthorized, Unreachable
from serveconf.home import Record, forget_record, home_folder, read_record, write_record
from serveconf.local_ray import Tell, access_to, is_running, ray_in_reach, start_local_ray, stop_local_ray
from serveconf.proxy.ports import port_in_use, port_is_free
from serveconf.ray_env import forget_token
from serveconf.versions import compare

BOOTSTRAP_S = 120.0
END_S = 10.0  # for a child that could not start the controller to end
FAILED = "bootstrap_failed"
OPEN_RAY = (
    "warning: the Ray at {} asks for no token: whoever reaches its ports can run code on it and read every secret that is "
    "applied; start it with RAY_AUTH_MODE=token (docs/security.md)"
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The control API, and whether this call has started it."""

    client: Client
    started: bool = False


def to_stderr(message: str) -> None:
    """Tell it to whoever gives the command."""
    print(message, file=sys.stderr)


def find(
    address: str | None,
    token: str | None,
    *,
    tell: Tell = to_stderr,
    upgrades: bool = False,
    patience_s: float | None = None,
) -> Client:
    """The running control API; where it is of another version, that is told once.

    Raises Unreachable where there is none, Silent where what listens there does not answer, Unauthorized where its token is not
    known, OtherVersion where it is too old or too new, unless the caller is about to change that (``upgrades``).
    """
    record = read_record()
    url = address or record.address or DEFAULT_ADDRESS
    control_place(url)  # a place at all
    known = token or (record.token if url.rstrip("/") == record.address else None)
    client = Client(url, known or "")
    patience_s = ANSWER_S if patience_s is None else patience_s  # as for whatever it is asked next
    if not client.healthy(patience_s):
        client.close()
        if client.silent:
            raise Silent(
                f"what listens at {url} has not answered within {patience_s:g} s",
                hint="it is busy, or stopped, or something else; 'serveconf doctor' shows what is there",
            )
        raise Unreachable(f"no serveconf answers at {url}", hint="'serveconf apply FILE' starts one")
    if known is None:
        raise Unauthorized(f"the token of {url} is not known here", hint="give --token-file or SERVECONF_TOKEN")
    if not client.proved:  # it is not told the token
        raise Unauthorized(
            f"what answers at {url} does not know the token that is known here: it is another one",
            hint="give its own by --token-file or SERVECONF_TOKEN, or its address by --address",
        )
    note = None if upgrades else compare(client.speaker)
    if note is not None and note not in _told:
        _told.add(note)
        tell(f"note: {note}")
    return client


_told: set[str] = set()  # notes on versions, once in a process


def may_start(address: str | None) -> bool:
    """Whether a controller could be started at that address: only on this machine."""
    return urlsplit(address or DEFAULT_ADDRESS).hostname in LOOPBACK


def find_or_start(address: str | None, token: str | None, *, http: tuple[str, int] | None, tell: Tell) -> Found:
    """The control API, started where there is none. ``http``: host and port that the proxies will want, looked at first."""
    try:
        return Found(client=find(address, token, tell=tell))
    except Unreachable:
        if urlsplit(address or DEFAULT_ADDRESS).hostname not in LOOPBACK:
            raise
    return start(address, ray_in_reach(), http=http, tell=tell)


def start(address: str | None, running: str | None, *, http: tuple[str, int] | None, tell: Tell) -> Found:
    """Start the controller on the Ray at ``running``; None: on a local Ray, which is started for it."""
    control = control_place(address) if address else choose_control_place(http, tell)
    if not running:
        _check_ports(control, http)
    bootstrap = Bootstrap(control, access_to(running))  # it imports Ray while Ray itself may still be starting
    ray = None
    try:
        ray = None if running else start_local_ray(tell)
        record, started = bootstrap.run(running or (ray.address if ray else ""), http, tell)
        previous = read_record()
        kept = previous.ray if ray is None and previous.ray and is_running(previous.ray) else None
        write_record(Record(address=record.address, token=record.token, ray=ray or kept))
    except BaseException:  # Ctrl-C too: what was started here must not stay
        bootstrap.stop()
        if ray is not None:
            stop_local_ray(ray)
        raise
    return Found(client=Client(record.address, record.token), started=started)


def shut_down(address: str | None, token: str | None, tell: Tell) -> bool:
    """Stop controller, proxies and replicas, and the Ray that was started for them. False where nothing was running."""
    record = read_record()
    stopped = False
    try:
        client = find(address, token, tell=tell, upgrades=True, patience_s=HEALTH_S)  # any version ends
        try:
            client.shutdown()
        except ServeconfError as error:  # a Ray of ours takes it all along
            if record.ray is None or record.address != client.address:
                raise
            tell(f"the controller did not stop by itself: {error.message}")
        client.close()
        stopped = True
    except Unreachable:
        pass
    except Unauthorized:  # the port is somebody else's by now
        if token or (address or record.address).rstrip("/") != record.address or record.ray is None:
            raise
    if record.ray is not None and is_running(record.ray):
        tell("stopping the local Ray")
        stop_local_ray(record.ray)
        stopped = True
    forget_record()
    forget_token()
    return stopped


def _check_ports(control: tuple[str, int], http: tuple[str, int] | None) -> None:
    """Nothing is started where a port that will be needed is taken."""
    if not port_is_free(*control):
        raise control_port_in_use(*control)
    if http is not None and not port_is_free(*http):
        raise port_in_use(*http)


class Bootstrap:
    """A child process that may import Ray: it connects to it and starts the controller. ``access``: what it must bring."""

    def __init__(self, control: tuple[str, int], access: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "serveconf.cluster.bootstrap", control[0], str(control[1])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child has ended
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            cwd=home_folder(),
            env={**os.environ, **access},
        )

    def run(self, ray_address: str, http: tuple[str, int] | None, tell: Tell) -> tuple[Record, bool]:
        """Where the control API is, and whether it was started just now. Raises OperatorError where it could not be.

        ``http``: host and port that the proxies will want; it is looked at where no controller, and so no proxy, is there.
        """
        tell(f"starting the controller on Ray at {ray_address}")
        began = time.monotonic()
        told = self._asked({"ray": ray_address, "http": http})
        if told.get("error"):
            self._wait()  # it may be taking back what it has started
            raise OperatorError(told["error"], hint=told.get("hint"), code=told.get("code", FAILED))
        if told["started"] and told["open"]:
            tell(OPEN_RAY.format(ray_address))
        tell(f"controller ready in {time.monotonic() - began:.1f} s: {told['address']}")
        threading.Thread(target=self._end, name="bootstrap", daemon=True).start()  # Ray takes its time to let go
        return Record(address=told["address"], token=told["token"]), told["started"]

    def stop(self) -> None:
        """It is not needed any more."""
        self._child.kill()
        self._end()

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        """The line that it answers with; it has not ended by then."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its last words say why
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
        until, unread = time.monotonic() + BOOTSTRAP_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                piece = os.read(self._child.stdout.fileno(), 1 << 16)
                if not piece:
                    raise OperatorError(f"the controller could not be started:\n  {self._last()}", code=FAILED)
                *lines, unread = (unread + piece).split(b"\n")
                if (told := next(filter(None, map(_answer_in, lines)), None)) is not None:
                    return told
        raise OperatorError(f"the controller did not start within {BOOTSTRAP_S:g} s", code=FAILED)

    def _last(self) -> str:
        """What it has said on stderr, in its last lines."""
        self._wait()
        self._errors.seek(0)
        return "\n  ".join(self._errors.read().decode(errors="replace").strip().splitlines()[-5:])

    def _wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)

    def _end(self) -> None:
        """May be called twice, at once too."""
        with self._child:
            pass
        self._errors.close()


def _answer_in(line: bytes) -> dict[str, Any] | None:
    """The answer, where the line is one, and nothing that an import has printed."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.keys() & {"address", "error"} else None
