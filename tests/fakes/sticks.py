"""The fleet's repository as a folder: on a stick, or behind a web server whose certificate a test's own CA has made."""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import ipaddress
import re
import shutil
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.fakes.model_bundles import ModelBundle
from tests.fakes.signing import FakeRepository

from autoglm_edge_protocol.digests import sha256_of_file


def write_repository(folder: Path, repository: FakeRepository, *bundles: ModelBundle) -> Path:
    """Write the folders `metadata` and `objects`, as a fleet has them."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    for name, data in repository.files.items():
        (folder / "metadata" / name).write_bytes(data)
    for bundle in bundles:
        for path in sorted(bundle.directory.rglob("*")):
            if path.is_file():
                digest = sha256_of_file(path)
                (folder / "objects" / digest[:2]).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / "objects" / digest[:2] / digest)
    return folder


@dataclass
class Faults:
    """What a web server does wrong with objects."""

    ignores_ranges: bool = False
    breaks_after: int | None = None
    """Of an answer's body no more than so many bytes are sent; then it waits for `goes_on`, and breaks off."""
    goes_on: threading.Event = field(default_factory=threading.Event)
    spoil: Callable[[int, bytes], bytes] = lambda _offset, data: data
    """(offset, bytes) -> what is really sent."""


class HttpsServer:
    """Serves a folder on loopback, over TLS."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.ca_file = certificates / "ca.pem"
        self.paths: list[str] = []
        self.faults = Faults()
        """What it does wrong from now on."""
        self.served: list[tuple[str, int, int]] = []
        """What was sent of objects: (path, where it began, bytes)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_make_certificate(certificates, self.ca_file))
        handler = functools.partial(_Handler, self, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HttpsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and of objects also ranges (which its base cannot), as well as its faults let it."""

    def __init__(self, site: HttpsServer, *arguments: object, directory: str) -> None:
        self._site = site
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def log_request(self, *_arguments: object) -> None:
        self._site.paths.append(self.path)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing of errors."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if "/objects/" in self.path and path.is_file():
            self._send_object(path)
        else:
            super().do_GET()

    def _send_object(self, path: Path) -> None:
        faults, data = self._site.faults, path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or faults.ignores_ranges:
            first, last = 0, len(data) - 1
            self.send_response(200)
        else:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            if first > last:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        body = faults.spoil(first, data[first : last + 1])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body if faults.breaks_after is None else body[: faults.breaks_after]
        self._site.served.append((path.name, first, len(sent)))
        with contextlib.suppress(OSError):
            self.wfile.write(sent)
            if len(sent) < len(body):
                faults.goes_on.wait(60)
                self.close_connection = True


def _make_certificate(directory: Path, ca_file: Path) -> Path:
    """Make a CA and a server's certificate; returns the file with the latter and its key."""
    directory.mkdir(parents=True, exist_ok=True)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("test CA", "server"))
    ca = (
        _certificate(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = (
        _certificate(name, ca_name, key)
        .add_extension(address, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = directory / "server.pem"
    file.write_bytes(private + server.public_bytes(serialization.Encoding.PEM))
    return file


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
