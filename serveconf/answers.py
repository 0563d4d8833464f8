"""What stands behind each code of a problem, an error, or an answer of the proxy: its cause, and what cures it.

For ``serveconf explain CODE`` and the docs page "Errors". Pure data: every code that the project can show is here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Where(StrEnum):
    """Where a code is met."""

    FILE = "problems of spec files"
    COMMAND = "errors of commands and applies"
    ANSWER = "answers that the proxy makes itself"
    CALL = "calls by handle"


class Answer(NamedTuple):
    """One code in words."""

    where: Where
    cause: str
    cure: str


_FILE: dict[str, tuple[str, str]] = {
    "file": (
        "The file or folder is not there, is no regular file, or may not be read.",
        "Check the path and its permissions; `validate FOLDER` looks for .yaml and .yml files below it.",
    ),
    "encoding": ("The file holds bytes that are no UTF-8.", "Save it as UTF-8: `iconv -t UTF-8 OLD > NEW`."),
    "control_character": (
        "The file holds a control character, such as NUL, or a YAML directive.",
        "Remove the character at the place that is named; editors show it as a box or as `^@`.",
    ),
    "too_large": (
        "The file, one text in it, or the number of its values is past the limits, aliases counted in full.",
        "Split it with `include`, or let the app read large data from a file of its own.",
    ),
    "too_deep": ("Lists and mappings are nested past the limit.", "Let the app read such data from a file of its own."),
    "empty": (
        "The file holds nothing but comments.",
        "Begin with `deployments:`; `serveconf init` writes a first one.",
    ),
    "env_file": (
        "A line of the env file is not NAME=value.",
        "Write NAME=value; `export` before it and quotes are allowed.",
    ),
    "include": (
        "An included file is not there, is included twice, or the files together are too many.",
        "Paths in `include` are relative to the file that names them.",
    ),
    "ray_serve": (
        "The file is a Ray Serve config, or a RayService manifest of KubeRay.",
        "`serveconf convert FILE > serve.yaml` makes a spec of it, with notes on what has no equal.",
    ),
    "foreign": (
        "The file is another tool's, such as a Kubernetes manifest.",
        "A spec says what is served and begins with `deployments:`; `serveconf init` writes a first one.",
    ),
    "syntax": (
        "The text is not YAML at that place; often the cause is an indentation or a quote on the line before.",
        "Compare the indentation with the lines above; quote texts that hold `: ` or begin with `*`, `&`, `@` or `{`.",
    ),
    "multiple_documents": (
        "A `---` begins a second document.",
        "One file is one stack: put the other into a file of its own.",
    ),
    "tag": (
        "YAML tags (`!name`) could build objects, and are not read.",
        "Write the value without a tag; `${NAME}` is a variable.",
    ),
    "alias": (
        "An alias (`*name`) has no anchor (`&name`) above it, stands inside its own, or merges what is no mapping.",
        "Write the anchor before its first use; quote the text where no alias is meant.",
    ),
    "duplicate_key": (
        "A key stands twice in one mapping, so that one of the values would be lost.",
        "Remove one of the two.",
    ),
    "key_type": ("A key is not text.", "Write the key in quotes."),
    "ambiguous": (
        "YAML readers disagree about what this text is: `NO` is false to some, `017` is 15, `1:30` is 90.",
        "Write it in quotes where text is meant, else as `false`, or as a decimal number.",
    ),
    "interpolation": (
        "A `${…}` is malformed, or stands in a key.",
        "Write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`, in values only; `$$` is a dollar sign.",
    ),
    "unset_variable": (
        "A variable is not set and has no default.",
        "Set it, give `--env-file FILE`, or write `${NAME:-default}`.",
    ),
    "unknown_key": (
        "There is no such key; nothing is silently ignored.",
        "`serveconf explain deployments` lists the keys.",
    ),
    "misplaced_key": ("The key exists, but belongs elsewhere.", "Move it to where the hint says."),
    "missing_key": ("A key that must be there is missing.", "Add it; `serveconf explain FIELD` shows an example."),
    "type": (
        "The value is of another kind than the field's.",
        "`serveconf explain FIELD` tells the kind and shows examples.",
    ),
    "range": ("The number is past the field's bounds.", "`serveconf explain FIELD` tells the bounds."),
    "length": ("The text is empty or too long.", "`serveconf explain FIELD` shows examples."),
    "choice": ("The word is none of those allowed.", "Write one of the words that the message lists."),
    "name": (
        "A name has characters that it may not have.",
        "Use letters, digits, `_`, `.` and `-`, with a letter, digit or `_` at both ends.",
    ),
    "import_path": (
        "It is not `module:attribute`.",
        "Write a colon between the module and what it defines: `shop.main:app`.",
    ),
    "prefix": ("A route prefix is no plain path.", "Begin with `/`, do not end with one; no wildcards, braces or `?`."),
    "path": ("A URL path has a wrong form.", "Begin with `/`, without blanks and `#`."),
    "url": ("It is no http or https URL.", "Write scheme, host and port: `http://127.0.0.1:4318`."),
    "host": ("It is no IP address and no host name.", "Write the name or address alone, without scheme and port."),
    "method": ("Methods are case-sensitive.", "Write it in capital letters: `GET`."),
    "steps": ("The steps of a canary do not grow, or there are none.", "Write percentages that grow: `[5, 25, 50]`."),
    "cookie": ("The cookie's name has characters that it should not have.", "Use letters, digits, `_` and `-`."),
    "header": (
        "No request can have such a header field.",
        "Write the name as a token and the value without blanks at its ends.",
    ),
    "percent": (
        "The text is no percentage.",
        'Write a whole number and a percent sign in quotes: `"25%"`, or a count.',
    ),
    "time": ("It is no time of day, or no days and a time.", 'Write `"08:00"` or `"Mon-Fri 08:00"`, in quotes.'),
    "timezone": ("There is no such time zone.", "Write a name of the IANA database, such as `Europe/Berlin`."),
    "runtime_env": (
        "A key of runtime_env is serveconf's own business (working_dir, py_modules), or a variable is not text.",
        "Set `app_dir` instead; write the values of env_vars in quotes.",
    ),
    "label_selector": (
        "A label's condition is none of Ray's forms.",
        "Write `a`, `!a`, `in(a, b)` or `!in(a, b)`; values are letters, digits, `-`, `_` and `.`.",
    ),
    "resources": (
        "CPU, GPU and memory are Ray's own, and no custom resources.",
        "Set num_cpus, num_gpus or memory beside it.",
    ),
    "bundle": (
        "A bundle of a placement group holds nothing, or something that Ray does not know.",
        "Name Ray's resources: `{CPU: 1, GPU: 1}`; custom ones stand beside them.",
    ),
    "app_dir": ("app_dir is no folder.", "It is relative to the spec; `~` is not expanded, write `${HOME}`."),
    "not_supported": ("The field is known, but what it does is not built yet.", "Leave it out."),
    "duplicate_name": ("Two deployments have one name.", "Rename one of them."),
    "duplicate_prefix": (
        "Two deployments have one prefix.",
        "Set route_prefix of one of them, or tell them apart with `match`.",
    ),
    "duplicate_match": ("Two deployments ask for exactly the same requests.", "Make one of them more specific."),
    "mirror": ("A mirror names no other deployment of the stack.", "Name one of those that the hint lists."),
    "moved": (
        "An item of `moved` has a new name that is not declared, an old one that still is, or goes in a circle.",
        "Declare the deployment under its new name only, and move each name once.",
    ),
    "port_conflict": (
        "The spec wants the port that the control API has for HTTP.",
        "Set http_options.port to another one; or stop all (`serveconf shutdown`) and apply again without an address: "
        "the control API then starts elsewhere.",
    ),
    "too_many_problems": (
        "The file has more problems than are shown.",
        "Mend the first ones: the others often go with them.",
    ),
    "import_failed": (
        "The code cannot be imported, or what it names cannot be served.",
        "The traceback shows the line. Is `app_dir` the folder where imports start? Are the packages installed where "
        "`serveconf` is? Are variables that the code reads set in runtime_env.env_vars?",
    ),
    "tls": (
        "A certificate without its key or the other way round, a key that its password does not open or that is not the "
        "certificate's, a file that is no PEM file or not there, or something that works over TLS alone.",
        "Set ssl_certfile and ssl_keyfile together, and ssl_keyfile_password where the key is encrypted. "
        "`openssl pkey -in KEY -noout` asks for the password and says whether it opens the key.",
    ),
    "conflict": (
        "In a file: values contradict each other. In an apply: another stack claims the same prefix or another http_options.",
        "Keep one of the two; for several stacks of one cluster http_options are said in one of them.",
    ),
    "unreachable": (
        "In a file: no request can reach a deployment, another always comes first. Of a command: no control API answers.",
        "In a file: make its prefix or match more specific. Of a command: `serveconf apply FILE` starts what is missing; "
        "`serveconf doctor` shows what is there.",
    ),
}

_COMMAND: dict[str, tuple[str, str]] = {
    "error": ("Something went wrong that has no code of its own.", "The message says what."),
    "author": ("The spec or the served code must change.", "The message says where."),
    "operator": ("The environment stands in the way: a file, a folder, a process.", "`serveconf doctor` looks at it."),
    "internal": (
        "serveconf itself is wrong.",
        "SERVECONF_DEBUG=1 shows where; please report it with what `serveconf doctor` prints.",
    ),
    "invalid_spec": ("The spec does not hold what it must.", "`serveconf validate FILE` shows each place."),
    "code_failed": (
        "The served code raised while it was imported or started, or is nothing that can be served.",
        "The traceback shows the user's own frames; `serveconf validate --import FILE` tries it without a cluster.",
    ),
    "replica_failed": (
        "A new replica did not get ready: its constructor, its lifespan or its first health check failed or took too long.",
        "`serveconf logs DEPLOYMENT` shows what it wrote; `rollout.ready_timeout_s` gives it more time. What ran before serves.",
    ),
    "reconfigure_failed": (
        "reconfigure(user_config) raised; the replica keeps its old config.",
        "Mend the user_config or the method; `serveconf logs DEPLOYMENT` shows the traceback.",
    ),
    "proxy_failed": (
        "A proxy could not start or take the new table.",
        "The message says why: mostly a port or a certificate.",
    ),
    "controller_failed": (
        "The controller could not start.",
        "The message says why; `serveconf doctor` looks at ports and Ray.",
    ),
    "bootstrap_failed": (
        "The process that starts the controller ended or hung.",
        "`serveconf doctor` checks Ray and the versions; `serveconf shutdown` clears what is left.",
    ),
    "ray_failed": (
        "A local Ray did not start.",
        "Its last lines and its log are named; `serveconf doctor` checks memory and /dev/shm.",
    ),
    "ray_unreachable": (
        "The Ray cluster that RAY_ADDRESS names cannot be used.",
        "Check the address and that the versions of Ray and Python are the cluster's.",
    ),
    "runtime_env_failed": (
        "The runtime_env of a deployment could not be built, so its code could not be looked at in it.",
        "The message has Ray's own words: a package that pip does not find, a folder that is not there.",
    ),
    "store_silent": (
        "Ray's GCS, where stacks and revisions lie, has not answered for some seconds. Nothing was touched.",
        "See that the head node's GCS runs, and apply again; what serves goes on serving meanwhile, and `status` says when it answers.",
    ),
    "port_in_use": (
        "Another program listens on a port that is needed.",
        "Stop it, or choose another port; the message names both.",
    ),
    "unauthorized": (
        "The token is missing or is another one.",
        "Give --token or SERVECONF_TOKEN; `serveconf token` prints it where it runs.",
    ),
    "read_only": (
        "The read-only token may look and ask for plans, and change nothing.",
        "Use the token that may write: `serveconf token` prints it.",
    ),
    "not_found": (
        "There is no such stack, deployment or revision.",
        "`serveconf status` and `serveconf history` list them.",
    ),
    "stack": ("There are several stacks, and the command is about one.", "Say which one: `--stack NAME`."),
    "does_not_fit": (
        "The nodes have no room for the replicas, even one after the other.",
        "Lower num_replicas, num_cpus or memory, or add a node; `serveconf status` shows what is taken.",
    ),
    "disk_full": (
        "A disk has no room for what was to be written: the code that replicas import, a saved plan, a backup, Ray's log. "
        "Nothing half-written stays, what was there before is there still, and what serves goes on serving.",
        "Free some space below the named folder; for a node's code, or start its Ray with TMPDIR on a larger disk.",
    ),
    "pinned": ("The stack was rolled back, and watchers leave it alone.", "`serveconf resume`, or an apply by hand."),
    "stale": ("The stack has changed since you looked.", "Plan again, and apply that."),
    "stale_plan": (
        "The saved plan was made for another revision, other code or another spec.",
        "Make a new one: `plan FILE --out PLAN`.",
    ),
    "bad_plan": ("The file is no saved plan, or was edited.", "Make a new one: `plan FILE --out PLAN`."),
    "locked": ("Another apply of the same stack is running.", "Wait for it; `serveconf events --follow` shows it."),
    "cancelled": ("The apply, or the call, was cancelled before it was done.", "Begin it again."),
    "interrupted": (
        "The controller died before the apply had begun to change anything.",
        "Apply again; `serveconf events` tells why it died.",
    ),
    "bad_record": (
        "A record of the controller cannot be read: mostly one of a newer version.",
        "Use the version that wrote it, or `serveconf shutdown` and apply again.",
    ),
    "other_version": (
        "The controller and the command are of versions that do not understand each other.",
        "`serveconf upgrade` brings an older controller along; for a newer one install the command that belongs to it.",
    ),
    "bad_backup": (
        "The file is no backup of serveconf, is damaged, or was written by a newer version.",
        "Take another one, or restore it with the version that wrote it.",
    ),
    "not_installed": (
        "An upgrade needs the new version installed in the environment that Ray's workers start from, on every node.",
        "`pip install` it there, then `serveconf upgrade` again.",
    ),
    "upgrade_failed": (
        "The new version of the controller would not start; the old one goes on.",
        "The message says why; mend the installation, then `serveconf upgrade` again.",
    ),
    "out_of_bounds": (
        "`scale` was given a number outside of min_replicas and max_replicas, or none at all.",
        "Give a number between them, or change them in the file.",
    ),
    "foreign_folder": (
        "Where a folder of ours is to be, somebody else has put one, or a link.",
        "Have it taken away, or set TMPDIR to a folder of your own.",
    ),
    "git_address": (
        "It is no address of a git repository, or one that would run a program.",
        "Give an https:// or ssh:// URL, host:path, or a folder.",
    ),
    "git_branch": ("It is no name of a branch or tag.", "Give the name alone: main, release/2."),
    "git_branch_missing": (
        "The repository has no such branch or tag.",
        "`git ls-remote URL` lists them; --branch names one.",
    ),
    "no_spec": (
        "There is no spec file where one was named, or in the folder.",
        "Name a *.yaml file, or a folder that holds some.",
    ),
    "git_missing": ("git is not installed.", "Install git where sync runs."),
    "git_app_dir": (
        "The spec's app_dir leads out of the repository that sync follows.",
        "Keep the code in the repository; what a branch says is served with nothing else of the machine.",
    ),
    "git_path": ("--path leads out of the repository.", "Name a file or a folder of the repository, from its root."),
    "git_path_missing": (
        "The commit has no file or folder of that name.",
        "Check --path. What was applied goes on serving until it is there.",
    ),
    "git_signature": (
        "The commit is not signed by a key that git trusts here, and --verify-signatures wants that.",
        "`git verify-commit COMMIT` says more; import the key, or set gpg.ssh.allowedSignersFile.",
    ),
    "git_submodule": (
        "A part of the code is a submodule; sync fetches none.",
        "Keep the code in the repository, or leave the folder out in .serveconfignore.",
    ),
    "git_lfs": (
        "A file of the code is a Git LFS pointer; sync does not fetch what it stands for.",
        "Load it at start from where models lie, or leave it out in .serveconfignore.",
    ),
    "deadline": ("The apply was not done within --timeout.", "Give it more time; what was started is taken back."),
    "error_rate": (
        "After the switch more answers failed than rollout.max_error_rate allows, so it was switched back.",
        "`serveconf logs DEPLOYMENT` shows what failed; mend it and apply again.",
    ),
    "canary": (
        "The new version answered worse than the old one and was taken back.",
        "The message tells the figures; `serveconf logs` the errors.",
    ),
    "canary_aborted": (
        "Someone has aborted the canary: the old version serves as before.",
        "`serveconf events` shows when; apply again to try it once more.",
    ),
    "superseded": (
        "A canary was running when another apply of its stack came: that took its place, and the old version serves until then.",
        "Nothing: the newer apply counts. Apply this one again if it should.",
    ),
    "canary_runs": (
        "A roll back without a number goes back from what serves; here a canary still runs.",
        "`serveconf abort` takes the canary back; `serveconf rollback REVISION` goes back further.",
    ),
    "other_host": (
        "A script calls by handle from another machine than the controller's.",
        "Run it where the controller runs, or ask over HTTP; handles in a replica work on every node.",
    ),
    "no_canary": (
        "There is no canary to promote or to abort: it is over, or the deployment has none.",
        "`serveconf status` shows those that run; `serveconf rollback` takes back what serves already.",
    ),
    "unknown_field": (
        "There is no such field or code.",
        "`serveconf explain .` lists the fields, `serveconf explain codes` the codes.",
    ),
    "code_unreadable": ("A file of app_dir cannot be read.", "Mend its permissions, or name it in .serveconfignore."),
    "code_too_large": (
        "app_dir holds more than 100 MB.",
        "Name data in .serveconfignore, or set app_dir to the folder with the code.",
    ),
    "code_budget": (
        "The packages of all kept revisions and this one have more bytes than the store may hold of them. Nothing was changed.",
        "Name data in .serveconfignore, delete stacks that nobody needs, or start the controller with a larger SERVECONF_CODE_MB.",
    ),
    "uploads_full": ("Many code packages are being uploaded at once.", "Apply again in a moment."),
    "applies_full": (
        "So many applies wait that the controller takes no more of them.",
        "Apply again when some are done; `serveconf events --follow` shows it.",
    ),
    "no_room": ("A budget of bytes is used up.", "The message says which one."),
    "code_changed": (
        "Files kept changing while they were packed.",
        "Apply again when they rest; name what an app writes in .serveconfignore.",
    ),
    "bad_package": (
        "The code package that came is not the one that was announced.",
        "Apply again; a proxy in between may have cut it.",
    ),
    "app_dir_missing": ("app_dir is no folder.", "It is relative to the spec."),
    "git_failed": ("git could not fetch or check out.", "Try the same `git clone` by hand: keys, network, branch."),
    "no_answer": (
        "A replica or proxy did not answer the controller.",
        "It is replaced by itself; `serveconf events` tells.",
    ),
    "bad_request": ("The control API was asked in a wrong form.", "/docs of the control API tells the form."),
    "grep": (
        "The expression of --grep is none that is understood.",
        "Write a regular expression as Python's re takes it.",
    ),
    "since": ("The time is in no form that is read.", "Write 10m, 2h, or an ISO 8601 time."),
    "replica_unreachable": (
        "A proxy cannot reach a replica.",
        "It is replaced by itself; between nodes, check the firewall.",
    ),
}

_ANSWER: dict[str, tuple[str, str]] = {
    "400": ("The request is malformed HTTP.", "Mend the client; the text says what is wrong."),
    "404": (
        "No route takes the path (the text names it), or the app itself has no such route.",
        "`serveconf routes --test 'GET /path'` says who would take it; the app sees the full path with its prefix as root_path.",
    ),
    "405": (
        "A route takes the path, but not the method.",
        "`Allow` lists the methods; `serveconf routes --test` explains.",
    ),
    "408": ("The client sent too slowly.", "Raise http_options.body_timeout_s for slow uploads."),
    "413": ("The body is larger than http_options.max_request_body_bytes.", "Raise it, or send less."),
    "414": (
        "Path and query are longer than http_options.max_request_target_bytes.",
        "Raise it, or send the data in a body.",
    ),
    "417": ("Only `Expect: 100-continue` is known.", "Mend the client."),
    "431": (
        "The header fields are too large or too many.",
        "Often cookies; else raise max_request_field_bytes, max_request_fields or max_request_head_bytes.",
    ),
    "500": ("The app raised.", "`serveconf logs DEPLOYMENT` shows the traceback."),
    "501": ("A method or transfer coding that is not spoken here.", "Mend the client."),
    "502": (
        "The replica died before it answered.",
        "`serveconf events` tells why; memory is the most frequent reason.",
    ),
    "503": (
        "The queue is full (max_queued_requests), no replica is there yet, or too many connections are open.",
        "`Retry-After` says when to try again; more replicas, or autoscaling_config, take more requests.",
    ),
    "504": ("The app did not answer within request_timeout_s.", "Raise it, or make the handler faster."),
    "505": ("Only HTTP/1.1 and 1.0 are spoken in clear.", "HTTP/2 works over TLS: http_options.http2."),
}

_CALL: dict[str, tuple[str, str]] = {
    "call": ("A call by handle went wrong.", "The message says how."),
    "call_failed": ("The called method raised.", "The exception carries the traceback of the other side."),
    "no_replica": ("The called deployment has no replica that is ready.", "`serveconf status DEPLOYMENT` tells why."),
    "queue_full": ("Too many calls wait already.", "Raise max_queued_requests or the number of replicas."),
    "replica_lost": (
        "The replica ended while it worked on the call.",
        "Call again if that does no harm; `serveconf events` tells why it ended.",
    ),
}

ANSWERS: dict[str, Answer] = {
    code: Answer(where, cause, cure)
    for where, part in ((Where.FILE, _FILE), (Where.COMMAND, _COMMAND), (Where.ANSWER, _ANSWER), (Where.CALL, _CALL))
    for code, (cause, cure) in part.items()
}


def answer_text(code: str) -> str:
    """One code as text."""
    where, cause, cure = ANSWERS[code]
    return f"{code}\n\n  met in    {where}\n  cause     {cause}\n  cure      {cure}"


def answers_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors", "", "<!-- Written by `serveconf explain codes -o markdown`; do not edit. -->", "",
        "Every problem, every error and every answer that the proxy makes itself has a code or a status. "
        "`serveconf explain CODE` prints what is written here.",
    ]  # fmt: skip
    for where in Where:
        lines += ["", f"## {where[0].upper()}{where[1:]}"]
        for code, answer in ANSWERS.items():
            if answer.where is where:
                lines += ["", f"### `{code}`", "", answer.cause, "", f"**Cure:** {answer.cure}"]
    return "\n".join(lines) + "\n"
