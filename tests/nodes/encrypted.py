"""Two nodes whose Ray uses TLS: what a visitor of one node sends to a replica on the other must not be readable between them.

    python tests/nodes/encrypted.py

The same without TLS comes first, so that it is known that what is looked for would be found. The cable of the second node is read as a
third machine would read it.
"""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import signal
import socket
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "e2e")]

from machines import Machines  # noqa: E402 - found by the path above

APP = """
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.post("/")
    async def repeat(request: Request) -> str:
        return (await request.body()).decode()
    """
SPEC = """
    http_options: {host: 0.0.0.0, location: EveryNode}
    deployments:
      - {name: far, import_path: 'told:app', ray_actor_options: {num_cpus: 0.1, resources: {second: 1}}}
    """
PORT = 8000
REQUESTS = 100
EVERYTHING = 3  # ETH_P_ALL
MARKS = (b"nobody-reads-this", b"nor-that")  # in a body and its answer, and in a header


class Reader:
    """All that passes one end of a cable, while the ``with`` block runs."""

    def __init__(self, device: str) -> None:
        self.bytes = 0
        self.found = dict.fromkeys(MARKS, 0)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
        self._socket.bind((device, EVERYTHING))
        self._socket.settimeout(0.5)
        self._thread = threading.Thread(target=self._read)
        self._over = threading.Event()

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                packet = self._socket.recv(1 << 17)
            except TimeoutError:
                continue
            self.bytes += len(packet)
            for mark in MARKS:
                self.found[mark] += mark in packet


def measure(*, tls: bool) -> dict[str, Any]:
    """A hundred requests, and how many packets were read that hold what nobody but both ends should know."""
    machines = Machines()
    try:
        if tls:
            machines.env |= certificates(machines)
        machines.add("--num-cpus=2").joined()
        machines.add("--num-cpus=2", '--resources={"second": 8}').joined()
        (machines.specs / "told.py").write_text(textwrap.dedent(APP))
        (machines.specs / "serve.yaml").write_text(textwrap.dedent(SPEC))
        machines.ok("apply", machines.specs / "serve.yaml")
        with Reader(f"{machines.name}v2") as reader:
            answers = [_ask(machines.head.ip) for _ in range(REQUESTS)]
        replicas = [r for s in machines.status()["stacks"] for d in s["deployments"] for r in d["replicas"]]
        is_far = replicas[0]["pid"] in machines.nodes[1].processes()
        ended = machines.run("shutdown")
        return {
            "tls": tls,
            "answers": {answer: answers.count(answer) for answer in sorted(set(answers))},
            "the replica is on the second node": is_far,
            "bytes read": reader.bytes,
            "packets with": {mark.decode(): count for mark, count in reader.found.items()},
            "shutdown": ended.code,
        }
    finally:
        machines.close()


def _ask(ip: str) -> str:
    connection = http.client.HTTPConnection(ip, PORT, timeout=30)
    body, header = MARKS
    connection.request("POST", "/far", body=body, headers={"x-token": header.decode()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return f"{answer.status} {'with it' if body.decode() in text else text[:60]}"


def certificates(machines: Machines) -> dict[str, str]:
    """An authority, and one certificate for all addresses: what Ray is told of them."""
    folder = machines.root / "tls"
    folder.mkdir()
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _signed("authority", authority_key, "authority", authority_key, [])
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = ["127.0.0.1", *(f"{machines.subnet}.{number}" for number in range(1, 10))]
    own = _signed("node", key, "authority", authority_key, addresses)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "node.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (folder / "node.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.pem"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.pem"),
    }


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    addresses: list[str],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not addresses, path_length=None), critical=True)
    )
    if addresses:
        names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(issuer_key, hashes.SHA256())


def main() -> None:
    """Without, and with."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    for tls in (False, True):
        print(json.dumps(measure(tls=tls), indent=1), flush=True)


if __name__ == "__main__":
    main()
