"""Where a broker is, and the TLS context that reaches it."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from autoglm_edge_protocol.errors import LinkError, MalformedDocument
from autoglm_edge_protocol.tls import verifying_context

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h."""


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    time_floor: float = 0.0
    """Unix time in seconds before which it cannot be, for boards whose clock may stand at 1970."""

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read a URL. Raises MalformedDocument; its text never shows the password."""
        try:
            parts = urlsplit(url)
            port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
            host = _host(parts)
        except (KeyError, ValueError):
            shown = repr(url) if "@" not in url else "the URL"
            problem = f"{shown} cannot be understood; write mqtt://HOST:PORT or mqtts://HOST:PORT"
            raise MalformedDocument("broker address", problem) from None
        if parts.password and not parts.username:
            raise MalformedDocument("broker address", "a password needs a user: mqtt://USER:PASSWORD@HOST")
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        return cls(host, port, parts.scheme == "mqtts", user, password)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def _host(parts: SplitResult) -> str:
    """Return the host of a URL that names nothing but a broker. Raises ValueError."""
    host = parts.hostname or ""
    if not host or parts.port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError
    if ":" not in host:
        host.encode("idna")  # what the resolver will do, on another thread: UnicodeError for empty or long labels
    if any(character.isspace() or not character.isprintable() for character in host):
        raise ValueError
    return host


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Return a context that verifies the broker, with the client certificate if there is one. Raises LinkError."""
    try:
        context = verifying_context(address.ca_file)
        load_own_certificate(context, address)
    except (OSError, ValueError) as error:
        raise LinkError(f"the TLS files for {address} cannot be used: {error}") from None
    if time.time() < address.time_floor:
        context.verify_flags |= _NO_CHECK_TIME  # OpenSSL's, which Python has no name for
        context.sslsocket_class = _dated_socket(address.time_floor)
    return context


def load_own_certificate(context: ssl.SSLContext, address: BrokerAddress) -> None:
    """Let connections that are begun from now on show the client certificate, if there is one. Raises OSError."""
    if address.cert_file:
        key = str(address.key_file) if address.key_file else None
        # With a password given, an encrypted key is an error instead of a question on the terminal.
        context.load_cert_chain(str(address.cert_file), key, password="")


def _dated_socket(floor: float) -> type[ssl.SSLSocket]:
    """Return a socket for a board whose clock is behind `floor`, and so tells nothing.

    It is some time after the floor: a certificate that was over by then is refused, and one that begins later may well
    have begun. The clock is looked at with each handshake: it may have been set since.
    """

    class Dated(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            shown = self.getpeercert() or {}
            now = time.time()
            begins, ends = (ssl.cert_time_to_seconds(str(shown[name])) for name in ("notBefore", "notAfter"))
            if ends < max(now, floor) or (now >= floor and begins > now):
                raise ssl.SSLCertVerificationError(
                    f"the broker's certificate is valid {shown['notBefore']} to {shown['notAfter']}"
                )

    return Dated
