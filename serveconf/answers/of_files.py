"""The codes of problems in spec files: cause and cure of each."""

from __future__ import annotations

FILE: dict[str, tuple[str, str]] = {
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
