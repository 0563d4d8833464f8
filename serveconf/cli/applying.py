"""``serveconf plan`` and ``serveconf apply``: see the change, make it so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveconf.cli.common import (
    EXIT_OF,
    Output,
    Report,
    chosen,
    colors,
    errors_shown,
    load,
    print_json,
    show,
    tell,
    width,
)
from serveconf.errors import AuthorError, OperatorError, Silent, Unreachable

if TYPE_CHECKING:
    from serveconf.client import Client
    from serveconf.launch import Found
    from serveconf.spec.load import Loaded
    from serveconf.spec.said import Said
    from serveconf.submit import Submission


def plan(
    file: Path,
    *,
    exit_code: bool = False,
    out: Path | None = None,
    drift: bool = False,
    env_file: list[Path] | None = None,
    output: Report = Report.TEXT,
) -> None:
    """Show what an apply would do."""
    from serveconf.cli.plan_view import render_plan

    with errors_shown(output.output):
        loaded = load(file, env_file)
        if drift:
            from serveconf.cli.drift import show_drift

            raise SystemExit(2 if show_drift(loaded, output.output) and exit_code else 0)
        with at_their_places(loaded):
            client, submission, found = _make_plan(loaded)
        if out is not None:
            _save(out, found, submission.body, client.address if client else "")
    if output is Report.JSON:
        print_json(found)
    elif output is Report.MARKDOWN:
        from serveconf.cli.markdown_view import plan_markdown

        show(plan_markdown(found))
    else:
        show(render_plan(found, color=colors(), width=width()))
    raise SystemExit(2 if exit_code and found["changed"] else 0)


@contextmanager
def at_their_places(loaded: Said) -> Iterator[None]:
    """Problems of the code that the controller finds are shown where the spec names that code."""
    from serveconf.client import CodeRejected
    from serveconf.submit import placed

    try:
        yield
    except CodeRejected as rejected:
        rejected.problems = [placed(problem, loaded) for problem in rejected.problems]
        raise


def _make_plan(loaded: Loaded) -> tuple[Client | None, Submission, dict[str, Any]]:
    """The plan against what runs; where nothing runs here yet, against nothing."""
    from serveconf.launch import find, may_start
    from serveconf.submit import make_submission, submit

    try:
        client = find(chosen.address, chosen.token)
    except Unreachable as error:
        if isinstance(error, Silent) or not may_start(chosen.address):
            raise
        from serveconf.offline import plan_offline

        tell("no serveconf is running here: this is what a first apply would do")
        submission = make_submission(loaded)
        _tell_notes(submission)
        return None, submission, plan_offline(submission)
    try:
        submission = submit(loaded, client)
    except OperatorError as error:
        if error.code != "read_only":  # with that token the plan is made without the code
            raise
        submission = make_submission(loaded)
    _tell_notes(submission)
    return client, submission, client.plan(submission.stack, submission.body)


def _tell_notes(submission: Submission) -> None:
    for note in submission.notes:
        tell(f"note: {note}")


def apply(
    file: Path,
    *,
    no_wait: bool = False,
    timeout: float | None = None,
    allow_empty: bool = False,
    max_failed: int | None = None,
    env_file: list[Path] | None = None,
    output: Report = Report.TEXT,
) -> None:
    """Make it so, and wait."""
    from serveconf.submit import submit

    with errors_shown(output.output):
        saved = _saved_plan(file)
        loaded, found = _loaded_and_reached(Path(saved.source) if saved else file, env_file, allow_empty=allow_empty)
        client = found.client
        submission = submit(loaded, client, timeout_s=timeout)
        _tell_notes(submission)
        base = _check_saved(saved, submission.body) if saved else None
        operation = client.begin(submission.stack, "apply", submission.body, base=base)
        if no_wait:
            _print_begun(operation, submission.stack, output.output)
            return
        result = watch_apply(client, operation, loaded)
        if found.started and EXIT_OF[result["outcome"]] != 0:
            _stop_started()
    if output is Report.MARKDOWN:
        from serveconf.cli.markdown_view import result_markdown

        show(result_markdown(result))
    finish(result, output.output, max_failed)


def _loaded_and_reached(file: Path, env_file: list[Path] | None, *, allow_empty: bool) -> tuple[Said, Found]:
    """The spec, and the control API; that reads the spec where it runs and the file is as simple as most."""
    from serveconf.launch import Found
    from serveconf.read_there import read_there

    if not env_file and (there := read_there(file, chosen.address, chosen.token)) is not None:
        return there[0], Found(client=there[1])
    loaded = load(file, env_file)
    if not loaded.spec.deployments and not allow_empty:
        raise AuthorError(
            "the spec has no deployments: applying it would take everything of the stack away",
            hint="if that is meant, say --allow-empty",
        )
    return loaded, reach(loaded)


def _stop_started() -> None:
    """A first apply that comes to nothing leaves nothing running."""
    from serveconf.launch import shut_down

    tell("stopping what this apply had started")
    shut_down(chosen.address, chosen.token, tell)


def reach(loaded: Loaded, say: Callable[[str], None] | None = None) -> Found:
    """The control API, started where there is none, after a look at the ports that the spec will need.

    ``say``: is told what is being started, where something else than a start is shown.
    """
    from serveconf.cli.starting_view import StartingView
    from serveconf.control_port import check_apart
    from serveconf.launch import find_or_start

    if chosen.address:
        check_apart(loaded, chosen.address)
    with StartingView(sys.stderr, live=colors(sys.stderr)) as view:
        return find_or_start(chosen.address, chosen.token, http=loaded.front, tell=say or view.tell)


def watch_apply(client: Client, operation: str, loaded: Said | None) -> dict[str, Any]:
    """Show an apply as it goes, and return its result. Ctrl-C undoes it before the switch and lets it finish after."""
    try:
        return show_apply(client, operation, loaded)
    except KeyboardInterrupt:
        return take_back(client, operation, loaded)


def show_apply(client: Client, operation: str, loaded: Said | None) -> dict[str, Any]:
    """Show an apply as it goes, and return its result."""
    from serveconf.cli.apply_view import ApplyView
    from serveconf.submit import follow

    terminal = colors(sys.stderr)
    with ApplyView(sys.stderr, live=terminal, color=terminal) as view:
        return follow(client, operation, view.handle, loaded)


def take_back(client: Client, operation: str, loaded: Said | None) -> dict[str, Any]:
    """Undo an apply that has not switched yet, let one that has go to its end; its result."""
    from serveconf.submit import follow

    tell(f"interrupted: {client.cancel(operation)['message']}")
    return follow(client, operation, lambda event: None, loaded)


def exit_code_of(result: dict[str, Any]) -> int:
    """The exit code that an apply's result stands for."""
    if result["outcome"] == "failed" and not result["changed"]:
        return 1
    return EXIT_OF[result["outcome"]]


def finish(result: dict[str, Any], output: Output, max_failed: int | None = None) -> None:
    """Print an apply's result and leave with its exit code."""
    if output is Output.JSON:
        print_json(result)
    code = exit_code_of(result)
    failed = result["receipt"]["failed"]
    if code == 0 and max_failed is not None and failed > max_failed:
        tell(f"error: {failed} requests failed while the apply ran, more than --max-failed {max_failed}")
        code = 4
    raise SystemExit(code)


def _print_begun(operation: str, stack: str, output: Output) -> None:
    if output is Output.JSON:
        print_json({"stack": stack, "operation": operation})
    else:
        show(f"Begun: operation {operation} of stack {stack}. 'serveconf status' shows how it goes.")


def _saved_plan(file: Path) -> Any:
    """The saved plan, where the file is one."""
    try:
        with file.open("rb") as opened:
            head = opened.read(400)
    except OSError:
        return None  # the loader says what is wrong
    if b'"serveconf-plan-' not in head:  # most are none, and to know it takes no import
        return None
    from serveconf.plan.saved import decode_plan, looks_like_a_plan

    return decode_plan(file.read_bytes()) if looks_like_a_plan(head) else None


def _check_saved(saved: Any, body: dict[str, Any]) -> int:
    """The revision that the plan was made for, after a look whether spec and code are still those that were planned."""
    from serveconf.plan.saved import check_fresh

    check_fresh(saved, revision=saved.plan.base_revision, code=body["code"], spec=body["spec"])
    return int(saved.plan.base_revision)


def _save(out: Path, found: dict[str, Any], body: dict[str, Any], address: str) -> None:
    from serveconf.plan.saved import SavedPlan, digest_of_spec, encode_plan, plan_from_json
    from serveconf.private import write_private

    saved = SavedPlan(
        plan=plan_from_json(found),
        spec=body["spec"],
        spec_digest=digest_of_spec(body["spec"]),
        code=body["code"],
        masks=body["masks"],
        source=body["source"],
        app_dir=body["app_dir"],
        target=address,
    )
    try:
        write_private(out, encode_plan(saved))
    except OSError as error:
        raise OperatorError(f"the plan can't be saved to {out}: {error.strerror}") from error
