"""The files of HTTPS are looked at where they are: a key that does not open is said at its line, before anything starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serveconf.cli.parser import app

SPEC = "http_options:\n  ssl_certfile: {cert}\n  ssl_keyfile: {key}\n"
PASSWORD = "  ssl_keyfile_password: ${KEY_PASSWORD}\n"


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pem with a.key; pkcs8.key and old.key: the same, encrypted in two forms; b.pem with b.key; text: none of these."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        kind = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", 2)
        openssl("req", *kind, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    openssl("pkcs8", "-topk8", "-in", folder / "a.key", "-out", folder / "pkcs8.key", "-passout", "pass:right one")
    openssl(
        "rsa",
        "-in",
        folder / "a.key",
        "-aes256",
        "-traditional",
        "-out",
        folder / "old.key",
        "-passout",
        "pass:right one",
    )
    (folder / "text").write_text("-----BEGIN CERTIFICATE-----\n")
    return folder


def validate(folder: Path, text: str, **env: str) -> tuple[int, list[str]]:
    """Exit code, and the first line of each problem."""
    (folder / "serve.yaml").write_text(text)
    done = CliRunner().invoke(app, ["validate", str(folder / "serve.yaml")], env=env)
    assert all(value not in done.stdout for value in env.values())
    found = [line.partition("serve.yaml:")[2] for line in done.stdout.splitlines() if "serve.yaml:" in line]
    return done.exit_code, found


@pytest.mark.parametrize("key", ["pkcs8.key", "old.key"])
@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("right one", None),
        ("wrong", "4:25: error: http_options.ssl_keyfile_password: does not open the key [tls]"),
        ("right on", "4:25: error: http_options.ssl_keyfile_password: does not open the key [tls]"),
        ("x" * 1025, "4:25: error: http_options.ssl_keyfile_password: does not open the key [tls]"),
        ("falsch ß", "4:25: error: http_options.ssl_keyfile_password: does not open the key [tls]"),
    ],
)
def test_a_password_opens_the_key_or_its_line_is_named(tls: Path, key: str, password: str, problem: str | None) -> None:
    found = validate(tls, SPEC.format(cert="a.pem", key=key) + PASSWORD, KEY_PASSWORD=password)
    assert found == ((1, [problem]) if problem else (0, []))


@pytest.mark.parametrize(
    ("cert", "key", "problem"),
    [
        ("a.pem", "a.key", None),
        ("a.pem", "pkcs8.key", "3:16: error: http_options.ssl_keyfile: the key is encrypted, and there is no password for it [tls]"),
        ("a.pem", "old.key", "3:16: error: http_options.ssl_keyfile: the key is encrypted, and there is no password for it [tls]"),
        ("a.pem", "b.key", "3:16: error: http_options.ssl_keyfile: is not the key of the certificate [tls]"),
        ("a.pem", "text", "3:16: error: http_options.ssl_keyfile: holds no key that could be read [tls]"),
        ("a.pem", "b.pem", "3:16: error: http_options.ssl_keyfile: holds no key that could be read [tls]"),
        ("text", "a.key", "2:17: error: http_options.ssl_certfile: holds no certificate that could be read [tls]"),
        ("a.key", "a.key", "2:17: error: http_options.ssl_certfile: holds no certificate that could be read [tls]"),
        ("a.pem", "gone.key", "3:16: warning: http_options.ssl_keyfile: there is no such file here [tls]"),
        ("gone/a.pem", "a.key", "2:17: warning: http_options.ssl_certfile: there is no such file here [tls]"),
        ("/nodes/alone/a.pem", "/nodes/alone/a.key", None),
    ],
)  # fmt: skip
def test_files_that_no_server_could_start_with(tls: Path, cert: str, key: str, problem: str | None) -> None:
    code, found = validate(tls, SPEC.format(cert=cert, key=key))
    assert found == ([problem] if problem else [])
    assert code == (1 if problem and "error" in problem else 0)


def test_authorities_are_looked_at_too_and_a_pipe_is_no_file_to_wait_for(tls: Path, tmp_path: Path) -> None:
    both = SPEC.format(cert=tls / "a.pem", key=tls / "a.key")
    assert validate(tmp_path, f"{both}  ssl_ca_certs: {tls / 'b.pem'}\n") == (0, [])
    code, found = validate(tmp_path, f"{both}  ssl_ca_certs: {tls / 'b.key'}\n")
    assert (code, found) == (
        1,
        ["4:17: error: http_options.ssl_ca_certs: holds no certificate that could be read [tls]"],
    )
    os.mkfifo(tmp_path / "pipe")
    assert validate(tmp_path, SPEC.format(cert="pipe", key="pipe")) == (0, [])


def test_a_password_that_is_no_text_is_one_problem(tls: Path) -> None:
    code, found = validate(tls, SPEC.format(cert="a.pem", key="pkcs8.key") + "  ssl_keyfile_password: 1234\n")
    assert code == 1 and len(found) == 1 and "[type]" in found[0]
