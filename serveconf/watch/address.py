"""The address of a git repository, as someone typed it: data, and nothing that git could take for an option or a program.

Credentials in it never reach a command line, a message or a record: git asks for them through its environment.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from serveconf.errors import AuthorError

PROTOCOLS = ("https", "http", "ssh", "git", "file")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"^[A-Za-z0-9+.-]+::")  # gitremote-helpers(7): ext::COMMAND runs it
_SCP = re.compile(r"^(?:[^@/:]+@)?[^@/:]+:")  # git@host:path, as ssh
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")  # git-check-ref-format(1)
_HELP_GIT = (
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n'"
    ' "$SERVECONF_GIT_USER" "$SERVECONF_GIT_PASSWORD"; }; f'
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """``url`` is what git is given, ``shown`` what people and records are: neither holds a secret."""

    url: str
    shown: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def environment(self) -> dict[str, str]:
        """What git needs to be told beside its arguments. The credentials are for that one host alone, and nobody stores them."""
        if self.credentials is None:
            return {}
        parts = urlsplit(self.url)
        host = f"{parts.scheme}://{parts.netloc}"
        first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        return {
            "GIT_CONFIG_COUNT": str(first + 2),
            f"GIT_CONFIG_KEY_{first}": f"credential.{host}.helper",
            f"GIT_CONFIG_VALUE_{first}": "",
            f"GIT_CONFIG_KEY_{first + 1}": f"credential.{host}.helper",
            f"GIT_CONFIG_VALUE_{first + 1}": _HELP_GIT,
            "SERVECONF_GIT_USER": self.credentials[0],
            "SERVECONF_GIT_PASSWORD": self.credentials[1],
        }


def parse_address(text: str) -> Address:
    """The address. Raises AuthorError where it is none, or one that would run something."""
    if not text or text.startswith("-") or re.search(r"[\x00-\x1f\x7f]", text):
        raise AuthorError("that is no address of a git repository", code="git_address")
    if Path(text).is_dir():
        folder = str(Path(text).resolve())  # git runs in another folder
        return Address(url=folder, shown=folder)
    if _HELPER.match(text):
        raise AuthorError(
            "that address names a program for git to run, not a repository",
            hint=f"use one of {', '.join(PROTOCOLS)}",
            code="git_address",
        )
    scheme = _SCHEME.match(text)
    if scheme is None:
        if text.partition(":")[0].rpartition("@")[2].startswith("-"):
            raise AuthorError("a host can't begin with a dash", code="git_address")
        if not _SCP.match(text):
            raise AuthorError(f"there is no folder {text}, and it is no URL either", code="git_address")
        return Address(url=text, shown=text)
    if scheme[1].lower() not in PROTOCOLS:
        raise AuthorError(
            f"'{scheme[1]}' is no protocol that sync takes",
            hint=f"use one of {', '.join(PROTOCOLS)}",
            code="git_address",
        )
    return _parse_url(text)


def _parse_url(text: str) -> Address:
    try:
        parts = urlsplit(text)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        raise AuthorError("that URL can't be read", code="git_address") from None  # its text may hold a password
    host = parts.netloc.rpartition("@")[2]
    if host.startswith("-") or re.search(r"[\x00-\x1f\x7f]", user + password):
        raise AuthorError("that is no address of a git repository", code="git_address")
    bare = urlunsplit((parts.scheme.lower(), host, parts.path, parts.query, parts.fragment))
    shown = urlunsplit((parts.scheme.lower(), host, parts.path, "", ""))  # a query may be a secret, too
    if parts.scheme.lower() in ("http", "https"):
        # a lone name is a token more often than not
        return Address(url=bare, shown=shown, credentials=(user, password) if user or password else None)
    if user:
        login = f"{parts.netloc.rpartition('@')[0].partition(':')[0]}@"
        bare, shown = (url.replace("://", f"://{login}", 1) for url in (bare, shown))
    return Address(url=bare, shown=shown)


def check_branch(name: str) -> str:
    """The name of a branch or tag. Raises AuthorError for anything else that git would take, such as ``a:b`` or ``--x``."""
    bad = _BAD_IN_REF.search(name) or name.startswith(("-", "/", ".", "+")) or name.endswith(("/", "."))
    if not name or bad or name == "@":
        raise AuthorError(f"{name!r} is no name of a branch or tag", code="git_branch")
    return name
