"""From a loaded spec to a finished apply: what the commands, the watcher and the Python API do alike, through the client."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveconf.client import Client, author
from serveconf.code.ignore import OUR_FILE
from serveconf.code.snapshot import Snapshot, take_snapshot
from serveconf.control_port import check_apart
from serveconf.errors import InternalError, NotFound, Unreachable

if TYPE_CHECKING:
    from serveconf.code.package import Packed
    from serveconf.spec.said import Said

Tell = Callable[[dict[str, Any]], None]

RETURN_S = 60.0  # how long a controller that died may take to come back
AGAIN_S = 0.2  # before it is asked anew: it may only be ending
EDIT_S = 0.2  # an editor may be writing just now


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One spec with its code, ready to be sent."""

    stack: str
    body: dict[str, Any]  # admin.models.ApplyBody
    snapshot: Snapshot
    app_dir: Path
    loaded: Said | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()  # what whoever sends it should hear

    def with_code(self, packed: Packed) -> Submission:
        """The same with the code as it was when it was packed."""
        from serveconf.code.package import listed

        note = (
            f"{listed(packed.changed)} kept changing while the code was packed: it is taken as it was read. "
            f"What is an app's data can be named in {OUR_FILE}"
        )
        body = {**self.body, "code": packed.snapshot.digest, "files": dict(packed.snapshot.files)}
        return replace(self, body=body, snapshot=packed.snapshot, notes=(*self.notes, note) if packed.changed else ())


def make_submission(
    loaded: Said,
    *,
    automatic: bool = False,
    timeout_s: float | None = None,
    snapshot: Snapshot | None = None,
    more: Mapping[str, Any] | None = None,
    data: Collection[str] = (),
) -> Submission:
    """Take a snapshot of the code and put everything together. Raises AuthorError where the code can't be packed.

    ``snapshot``: one that was just taken; ``more``: keys of the body that say something else than the file does;
    ``data``: what the running app was seen to write, which is no code.
    """
    if snapshot is None:
        snapshot = take_snapshot(
            loaded.app_dir, exclude=loaded.files, data=frozenset(data)
        )  # an edit of the spec is no change of the code
    body = {
        "spec": spec_as_sent(loaded),
        "masks": dict(loaded.masks),
        "code": snapshot.digest,
        "files": dict(snapshot.files),
        "app_dir": str(loaded.app_dir),
        "source": str(loaded.file),
        "author": author(),
        "commit": git_commit(loaded.file),
        "automatic": automatic,
        "timeout_s": timeout_s,
    }
    body |= more or {}
    notes = () if automatic else withheld_notes(snapshot)
    return Submission(
        stack=loaded.name, body=body, snapshot=snapshot, app_dir=loaded.app_dir, loaded=loaded, notes=notes
    )


def withheld_notes(snapshot: Snapshot) -> tuple[str, ...]:
    """What who sends the code should hear of what stays behind."""
    if not snapshot.withheld:
        return ()
    from serveconf.code.package import listed

    one = snapshot.withheld[0]
    return (
        f"left out of the code, as secrets: {listed(snapshot.withheld)}; in {OUR_FILE} a line !{one} takes it along, "
        f"{one} ends this note",
    )


def spec_as_sent(loaded: Said) -> dict[str, Any]:
    """The spec with only the keys that were said; a file that a proxy reads is named from the root, as it stands elsewhere."""
    spec = loaded.as_said()
    spec.setdefault("name", "default")
    for key in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if spec.get("http_options", {}).get(key):
            spec["http_options"][key] = str(loaded.file.parent / spec["http_options"][key])
    return spec


def submit(loaded: Said, client: Client, **options: Any) -> Submission:
    """Snapshot and upload; once more where a file changed in between. What never rests is taken as it is read."""
    check_apart(loaded, client.address)
    if options.get("snapshot") is None or "data" not in options:
        options["data"] = client.data(loaded.name)
    submission = make_submission(loaded, **options)
    for last in (False, False, True):
        if client.has_code(submission.snapshot.digest):
            return submission
        from serveconf.code.package import pack_as_it_is  # most applies bring code that is there

        packed = pack_as_it_is(submission.app_dir, submission.snapshot)
        if packed.changed and not last:  # most likely an edit: a moment later it is whole
            time.sleep(EDIT_S)
            submission = make_submission(loaded, **{**options, "snapshot": None})
            continue
        client.put_code(packed.snapshot.digest, packed.data)
        return submission.with_code(packed)
    raise AssertionError("unreachable")


def follow(client: Client, operation: str, tell: Tell, loaded: Said | None = None) -> dict[str, Any]:
    """Every event to ``tell``; returns the last one, the contract's apply JSON, its problems at their places.

    A controller that dies meanwhile is waited for: it goes on with what it had begun.
    """
    for event in _events(client, operation, tell):
        if event["event"] == "result":
            event["problems"] = [placed(problem, loaded) for problem in event["problems"]]
            tell(event)
            return {key: value for key, value in event.items() if key != "event"}
        tell(event)
    raise InternalError(
        "the control API ended the apply's events without a result", hint="'serveconf status' shows what is"
    )


def _events(client: Client, operation: str, tell: Tell) -> Iterator[dict[str, Any]]:
    """Each event once, past the end of as many controllers, and of as many connections to one, as there are."""
    heard: list[dict[str, Any]] = []
    died = False
    while True:
        again = iter(
            tuple(heard)
        )  # one whose connection broke tells from the beginning, a new controller what it does itself
        try:
            for event in client.events(operation):
                if event == next(again, None):
                    continue
                again = iter(())
                heard.append(event)
                yield event
            return
        except NotFound:
            if not died:
                raise
            yield _never_begun()
            return
        except Unreachable:
            died = True
            tell(
                {"event": "log", "level": "warning", "message": "the controller went away; waiting for it to come back"}
            )
            time.sleep(AGAIN_S)
            if not client.comes_back(RETURN_S):
                raise


def _never_begun() -> dict[str, Any]:
    """The result of an apply that only the memory of a controller that died knew of."""
    from serveconf.reconcile.records import Failure
    from serveconf.reconcile.result import make_result

    message = "the controller died before the apply had touched anything"
    failure = Failure(code="interrupted", message=message, hint="apply again")
    return {"event": "result", **make_result("", outcome="failed", failures=[failure])}


def placed(problem: dict[str, Any], loaded: Said | None) -> dict[str, Any]:
    """A problem that the controller found, with the file, line and column that only the sender knows."""
    if loaded is None:
        return problem
    path = problem["path"] or _path_of(problem.get("deployment"), loaded)
    if not path:
        return {**problem, "file": str(loaded.file)}
    found = loaded.problem(path, problem["message"], problem["code"], problem["hint"])
    return {**problem, **found.as_json()}


def _path_of(deployment: str | None, loaded: Said) -> str:
    """The key that names a deployment's code."""
    for index, spec in enumerate(loaded.as_said().get("deployments", [])):
        if spec["name"] == deployment:
            return f"deployments[{index}].import_path"
    return ""


def git_commit(file: Path) -> str | None:
    """The commit that the file's folder is at, where it is in a git repository."""
    for folder in file.parents:
        if (folder / ".git").exists():
            try:
                done = subprocess.run(
                    ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
                )
            except OSError:  # a slim image has none
                return None
            return done.stdout.strip() or None if done.returncode == 0 else None
    return None
