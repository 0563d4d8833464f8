"""The codes of errors that commands and applies tell: cause and cure of each."""

from __future__ import annotations

COMMAND: dict[str, tuple[str, str]] = {
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
