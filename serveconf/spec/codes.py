"""Every code that a problem of a spec can carry, with its meaning: for the docs page and for SARIF. Codes are stable."""

from __future__ import annotations

CODES: dict[str, str] = {
    # the file
    "file": "A file or folder that cannot be read.",
    "encoding": "A file that is not UTF-8.",
    "control_character": "A control character, such as NUL, in a file.",
    "too_large": "A file, a text or a number of values past the limits.",
    "too_deep": "Lists and mappings nested past the limit.",
    "empty": "A file without content.",
    "env_file": "A line of an env file that is not NAME=value.",
    "include": "A file that cannot be included.",
    "ray_serve": "A config of Ray Serve, or a RayService manifest: serveconf convert makes a spec of it.",
    "foreign": "A file of another tool.",
    # YAML
    "syntax": "Text that is not YAML.",
    "multiple_documents": "A second YAML document in one file.",
    "tag": "A YAML tag.",
    "alias": "An alias without an anchor, inside its own anchor, or merged where it is no mapping.",
    "duplicate_key": "A key that stands twice in one mapping.",
    "key_type": "A key that is not text.",
    "ambiguous": "Unquoted text that YAML readers disagree about, such as NO, 017 or 1:30.",
    # variables
    "interpolation": "A malformed ${…}, or one in a key.",
    "unset_variable": "A variable that is not set and has no default.",
    # fields
    "unknown_key": "A key that does not exist.",
    "misplaced_key": "A key that belongs elsewhere.",
    "missing_key": "A key that must be there.",
    "type": "A value of the wrong kind.",
    "range": "A number past its bounds.",
    "length": "A text that is empty or too long.",
    "choice": "A word that is none of those allowed.",
    "name": "A name with characters that it may not have.",
    "import_path": "An import path that is not module:attribute.",
    "prefix": "A route prefix that is no plain path.",
    "path": "A URL path with a wrong form.",
    "host": "A host that is no address and no name.",
    "method": "A method that is not in capital letters.",
    "steps": "Steps of a canary that do not grow, or none.",
    "cookie": "A cookie's name with characters that it should not have.",
    "header": "A header field in match with a name or value that no request can have.",
    "percent": "A text that is no percentage.",
    "time": "A text that is no time of day, or no days and a time.",
    "timezone": "A time zone that does not exist.",
    "runtime_env": "A runtime environment with keys or values that it cannot have.",
    "resources": "A custom resource with the name of one of Ray's own.",
    "app_dir": "An app_dir that is no folder.",
    "not_supported": "A field whose behaviour is not built yet.",
    # between fields
    "duplicate_name": "Two deployments with one name.",
    "duplicate_prefix": "Two deployments with one prefix.",
    "duplicate_match": "Two deployments that ask for exactly the same requests.",
    "unreachable": "A deployment, or a part of its match, that no request can reach: another always comes first.",
    "mirror": "A mirror that names no other deployment of the stack.",
    "conflict": "Values that contradict each other.",
    "port_conflict": "The HTTP port is the one that the control API has.",
    "too_many_problems": "Stands for the problems past the first 200.",
    # with --import
    "import_failed": "Code that cannot be imported or built.",
    "tls": "A certificate without its key, or something that works over TLS alone.",
}
