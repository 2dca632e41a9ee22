"""Who may ask over TCP: whoever knows the token, or has a certificate of the authority. Unix sockets have modes."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Callable
from pathlib import Path

from autoglm_edge_agent.inference.control import AccessOrder
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.messages import Request, Response, error

LEAST_TOKEN_BYTES = 16


def guard_of(access: AccessOrder) -> Callable[[Request], Response | None] | None:
    """Return what answers those who may not ask, None where all may. Raises ModelUnusable for a token that is none."""
    if access.token_file is None:
        return None
    token = _token(access.token_file)

    def guard(request: Request) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token):
            return None
        text = "this address needs the device's token: Authorization: Bearer TOKEN"
        return error(401, text, {"www-authenticate": "Bearer"})

    return guard


def tls_of(access: AccessOrder) -> ssl.SSLContext | None:
    """Return the server's side of TLS, None where it is not asked for. Raises ModelUnusable."""
    if access.cert_file is None or access.key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(access.cert_file, access.key_file)
        if access.client_ca_file is not None:
            context.load_verify_locations(access.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as problem:
        raise ModelUnusable(f"[inference] the certificates cannot be used: {problem}") from None
    return context


def _token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as problem:
        raise ModelUnusable(f"[inference] token_file {path} cannot be read: {problem.strerror}") from None
    if len(token) < LEAST_TOKEN_BYTES:
        raise ModelUnusable(f"[inference] token_file {path} holds less than {LEAST_TOKEN_BYTES} characters")
    return token
