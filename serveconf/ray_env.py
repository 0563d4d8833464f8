"""The environment of a Ray of our own: what its processes, and so the served apps, get of the shell that starts it, and
what whoever connects to it has to bring. ``local_ray`` and ``launch`` read it.

The shell of whoever happens to start Ray is no part of a spec, and holds secrets that are none of an app's business: what
a process needs to run is passed on and nothing else. An app's own variables are said in its runtime_env.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from serveconf.home import home_folder
from serveconf.private import read_trusted, write_private

MARK = "SERVECONF_RAY"  # tells the processes of one Ray from all others
PASS = "SERVECONF_PASS_ENV"  # names, or patterns of them, that the user wants passed on as well

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "XDG_*"),
    *("LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "NO_COLOR"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "PIP_*", "UV_*"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*"),
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "ROCR_*", "HIP_*", "TPU_*", "OMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("RAY_*", "SERVECONF_LOG_FORMAT"),
)
OURS = {"RAY_worker_niceness": "0"}  # with Ray's own 15 what serves stands still while what starts imports, at 0
NEVER = ("SERVECONF_TOKEN*", "RAY_AUTH_*")  # whatever the user says
NOT_BY_PATTERN = ("SERVECONF_*", "RAY_ADDRESS", "RAY_JOB_*")  # of another cluster


def clean_environment(shell: Mapping[str, str], mark: str) -> dict[str, str]:
    """What the processes of a local Ray get: what they need of ``shell``, and how to reach one another."""
    wanted = [name.strip() for name in shell.get(PASS, "").split(",") if name.strip()]
    kept = {name: value for name, value in shell.items() if _passes(name, wanted)}
    return {**OURS, **kept, **access(), MARK: mark}


def _passes(name: str, wanted: list[str]) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in NEVER):
        return False
    if name in wanted:
        return True
    foreign = name not in PASSED and any(fnmatchcase(name, pattern) for pattern in NOT_BY_PATTERN)
    return not foreign and any(fnmatchcase(name, pattern) for pattern in (*PASSED, *wanted))


def access() -> dict[str, str]:
    """What a process needs to connect to the Ray of this home: its token's place, and that it is to be reached on loopback.

    Ray takes 127.0.0.1 for the name of an address that others can reach, and puts one in its place, unless it is told
    that there is no cluster beyond this machine: so it does by itself on macOS and Windows.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file()),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def token_file() -> Path:
    """The file with the token of the Ray of this home (0600), made where it is missing."""
    path = home_folder() / "ray_token"
    if not read_trusted(path):
        write_private(path, secrets.token_hex(32).encode())
    return path


def forget_token() -> None:
    """The next Ray gets another one."""
    (home_folder() / "ray_token").unlink(missing_ok=True)
