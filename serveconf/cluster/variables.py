"""The variables of a runtime environment: which Ray is told, and which only the process that needs them.

Ray writes what it is told to its logs and into the arguments of the process that it starts, where others can read it. What a
process reads while it starts, a path of libraries or a number of threads, Ray has to be told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

AT_START = (
    "PATH",
    "LD_*",
    "DYLD_*",
    "PYTHON*",
    "MALLOC_*",
    "*_NUM_THREADS",
    "CUDA_*",
    "NCCL_*",
    "OMP_*",
    "MKL_*",
    "RAY_*",
    "KMP_*",
    "GLIBC_TUNABLES",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
)
_NAME = re.compile(r"\$\{([A-Z0-9_]+)\}")


def split(runtime_env: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The environment that Ray has to make, and the variables that the process sets by itself (``expanded``)."""
    env_vars = runtime_env.get("env_vars") or {}
    at_start = {name: value for name, value in env_vars.items() if _is_read_at_start(name)}
    rest = {key: value for key, value in runtime_env.items() if key != "env_vars"}
    told = {**rest, **({"env_vars": at_start} if at_start else {})}
    return told, {name: value for name, value in env_vars.items() if name not in at_start}


def _is_read_at_start(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in AT_START)


def expanded(env_vars: Mapping[str, str]) -> dict[str, str]:
    """The variables as Ray would set them: ``${NAME}`` in one is what this process has of that name, or nothing."""
    return {name: _NAME.sub(lambda found: os.environ.get(found[1], ""), value) for name, value in env_vars.items()}
