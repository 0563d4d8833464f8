"""What single values of the spec must look like, beyond their type. Each check gives the value back or raises with our wording.

The models call them; where a check has a pattern, the JSON Schema carries the pattern.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import zoneinfo
from typing import Any, LiteralString
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from serveconf.spec.problems import Broken

_ATTRIBUTES = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
_MODULE = r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*"  # import_module takes the '-' of a folder's name too
IMPORT_PATH = rf"^{_MODULE}:{_ATTRIBUTES}$"
NAME = r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?$"
MATCH_HOST = r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
COOKIE = r"^[A-Za-z0-9_-]{1,64}$"
METHOD = r"^[A-Z][A-Z-]*$"
FIELD_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
PERCENT = r"^(100|[0-9]{1,2})%$"
MOST_REPLICAS = 100_000
_DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DAYS = rf"{_DAY}(-{_DAY})?"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"
SCHEDULE_START = rf"^({_DAYS}(,{_DAYS})* )?{_TIME}$"
SCHEDULE_END = rf"^({_TIME}|24:00)$"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LABEL_CONDITION = rf"^!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))$"


def check_prefix(prefix: str) -> str:
    """A route prefix starts with ``/``, does not end with one (but for ``/`` itself), and is a plain path."""
    if not prefix.startswith("/"):
        raise PydanticCustomError("prefix", "must start with '/'")
    if prefix != "/" and prefix.endswith("/"):
        raise PydanticCustomError("prefix", "must not end with '/'")
    if "//" in prefix or re.search(r"[\s?#{}%*\\\x00-\x1f\x7f]", prefix):
        raise PydanticCustomError(
            "prefix", "must be a plain path, without '//', blanks, wildcards, '?', '#', '%' or braces"
        )
    if any(part in (".", "..") for part in prefix.split("/")):
        raise PydanticCustomError("prefix", "must not have '.' or '..' segments")
    if prefix == "/-" or prefix.startswith("/-/"):
        raise PydanticCustomError("prefix", "'/-' is kept for serveconf's own endpoints")
    return prefix


def check_path(path: str) -> str:
    """A path below the mount point: it starts with ``/`` and holds no blanks, query or fragment."""
    if not path.startswith("/"):
        raise PydanticCustomError("path", "must start with '/'")
    if re.search(r"[\s#\x00-\x1f\x7f]", path):
        raise PydanticCustomError("path", "must not hold blanks or '#'")
    return path


def check_endpoint(url: str) -> str:
    """The base of an http or https URL: a host, perhaps a port and a path."""
    try:
        parts = urlsplit(url)
        well_formed = url.startswith(("http://", "https://")) and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        well_formed = False
    if not well_formed or re.search(r"[\s?#\x00-\x1f\x7f]", url):
        raise PydanticCustomError("url", "must be an address such as http://127.0.0.1:4318")
    return url


def check_root_path(path: str) -> str:
    """Empty, or a mount point with the form of a route prefix (a trailing slash would be doubled in every URL)."""
    if path in ("", "/"):
        if path:
            raise PydanticCustomError("path", "must be empty or a path such as '/api', not '/'")
        return path
    return check_prefix(path)


def check_host(host: str) -> str:
    """An IP address or a host name, without scheme and port."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host) or ".." in host:
            raise PydanticCustomError("host", "must be an IP address or a host name, without scheme and port") from None
    return host


def check_match_host(host: str) -> str:
    """A host name, also with ``*.`` before it, or an IPv4 address; requests are matched without their port."""
    if len(host) > 253 or not re.fullmatch(MATCH_HOST, host):
        raise PydanticCustomError(
            "host", "must be a host name such as a.example or *.a.example, without scheme, port and path"
        )
    return host


def check_method(method: str) -> str:
    """A method as requests spell it: methods are case-sensitive (RFC 9110 §9.1)."""
    if not re.fullmatch(METHOD, method):
        raise PydanticCustomError("method", "must be a method in capital letters, such as GET")
    return method


def check_header_values(headers: dict[str, str | None]) -> dict[str, str | None]:
    """Names are tokens, each once whatever its case; values are what a parser leaves of a field (RFC 9110 §5)."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise _inside("header", "is no name of a header field", name)
        if name.lower() in seen:
            raise _inside("header", "is there twice, since the case of its name does not matter", name)
        if value is not None and (not value.isascii() or not value.isprintable() or value != value.strip()):
            raise _inside("header", "must be printable ASCII without blanks at its ends", name)
        seen[name.lower()] = name
    return headers


_NOT_AN_ID = {
    *("authorization", "connection", "content-length", "content-type", "cookie", "date", "expect", "host"),
    *("keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("x-forwarded-for", "x-forwarded-proto"),
}


def check_request_id_header(name: str) -> str:
    """The name of a header field, and of none that means something else."""
    if not re.fullmatch(FIELD_NAME, name):
        raise PydanticCustomError("name", "must be the name of a header, such as x-request-id")
    if name.lower() in _NOT_AN_ID:
        raise PydanticCustomError("name", "is a header with a meaning of its own; take one such as x-request-id")
    return name


def check_steps(steps: list[float]) -> list[float]:
    """At least one share, each larger than the one before."""
    if not steps:
        raise PydanticCustomError("steps", "must name at least one share, such as [10]")
    if any(one >= other for one, other in itertools.pairwise(steps)):
        raise PydanticCustomError("steps", "must grow from step to step")
    return steps


def check_cookie(name: str) -> str:
    """A cookie's name, as plain as they are everywhere."""
    if not re.fullmatch(COOKIE, name):
        raise PydanticCustomError("cookie", "must be letters, digits, '_' and '-', at most 64")
    return name


def check_import_path(path: str) -> str:
    """``module:attribute``, both dotted Python names."""
    if not re.fullmatch(IMPORT_PATH, path):
        raise PydanticCustomError("import_path", "must read module:attribute, such as main:app")
    if path.split(":")[0].endswith(".py"):
        raise PydanticCustomError("import_path", "must name the module without '.py'")
    return path


def check_name(name: str) -> str:
    """A name that can stand in a URL, a file name and a log line."""
    if len(name) > 100:
        raise PydanticCustomError("name", "must have at most 100 characters")
    if not re.fullmatch(NAME, name):
        raise PydanticCustomError(
            "name", "must hold only letters, digits, '_', '-' and '.', with no '-' or '.' at the ends"
        )
    return name


_COUNT_OR_PERCENT: LiteralString = 'must be a count such as 1 or a percentage from "0%" to "100%"'


def check_count_or_percent(value: Any) -> Any:
    """A count from 0, or a percentage from 0% to 100%."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise PydanticCustomError("greater_than_equal", "must be at least 0")
        return value
    if isinstance(value, str):
        if not re.fullmatch(PERCENT, value):
            raise PydanticCustomError("percent", _COUNT_OR_PERCENT)
        return value
    raise PydanticCustomError("percent", _COUNT_OR_PERCENT)


def check_replica_count(value: Any) -> Any:
    """A number of replicas, or auto. What is neither goes through as it is: the models name its type."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise PydanticCustomError("greater_than_equal", "must be at least 1")
        if value > MOST_REPLICAS:
            raise PydanticCustomError("less_than_equal", "must be at most 100000")
        return value
    if value == "auto":
        return value
    raise PydanticCustomError("replica_count", "must be an integer or auto")


def check_schedule_start(text: str) -> str:
    """Days of the week, where it is not every day, and a time of day."""
    if not re.fullmatch(SCHEDULE_START, text):
        raise PydanticCustomError("time", "must be days and a time such as 'Mon-Fri 08:00', or a time alone")
    return text


def check_schedule_end(text: str) -> str:
    """A time of day."""
    if not re.fullmatch(SCHEDULE_END, text):
        raise PydanticCustomError("time", "must be a time from '00:00' to '24:00'")
    return text


def check_timezone(name: str) -> str:
    """A time zone that this machine knows."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("timezone", "is no time zone of the IANA database") from None
    return name


def check_runtime_env(env: dict[str, Any]) -> dict[str, Any]:
    """Ray's keys, but for the two that serveconf sets itself."""
    for key in ("working_dir", "py_modules"):
        if key in env:
            raise _inside("runtime_env", "cannot be set: replicas import from app_dir", key)
    variables = env.get("env_vars", {})
    if not isinstance(variables, dict):
        raise _inside("runtime_env", "must be a mapping", "env_vars")
    for key, value in variables.items():
        if not isinstance(value, str | Broken):
            raise _inside("runtime_env", "must be a string, as environment variables are", "env_vars", key)
    return env


def check_resources(resources: dict[str, float]) -> dict[str, float]:
    """Custom resources only: Ray refuses its own ones here."""
    for key, message in _RAYS_OWN.items():
        if key in resources:
            raise _inside("resources", message, key)
    return resources


def check_bundle(bundle: dict[str, float]) -> dict[str, float]:
    """Ray's names of resources, and at least one amount that is more than nothing."""
    for key, message in _NOT_IN_A_BUNDLE.items():
        if key in bundle:
            raise _inside("bundle", message, key)
    if not any(isinstance(amount, Broken) or amount > 0 for amount in bundle.values()):
        raise PydanticCustomError("bundle", "must hold at least one resource, such as {CPU: 1}")
    return bundle


def check_bundles(bundles: list[dict[str, float]]) -> list[dict[str, float]]:
    """A group has something in it."""
    if not bundles:
        raise PydanticCustomError("bundle", "must have at least one bundle, or be null")
    return bundles


def check_label_condition(condition: str) -> str:
    """One of Ray's forms."""
    if not re.fullmatch(LABEL_CONDITION, condition):
        raise PydanticCustomError("label_selector", "must be 'a', '!a', 'in(a, b)' or '!in(a, b)'")
    return condition


_RAYS_OWN: dict[str, LiteralString] = {
    "CPU": "is no custom resource: set num_cpus",
    "GPU": "is no custom resource: set num_gpus",
    "memory": "is no custom resource: set memory beside resources",
}


_NOT_IN_A_BUNDLE: dict[str, LiteralString] = {
    "num_cpus": "is no resource of Ray: in a bundle it is CPU",
    "num_gpus": "is no resource of Ray: in a bundle it is GPU",
    "resources": "is no resource of Ray: custom resources stand in the bundle itself",
}


def _inside(code: LiteralString, message: LiteralString, *at: str) -> PydanticCustomError:
    """An error of something inside the value; ``at`` leads there."""
    return PydanticCustomError(code, message, {"at": at})
