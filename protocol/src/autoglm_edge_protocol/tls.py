"""The TLS context that believes a server: the same verdict with every Python that the agent runs with."""

from __future__ import annotations

import ssl
from pathlib import Path


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name; None: against those whom the system believes.

    Raises OSError.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    # The default of Python 3.13 refuses sound signatures for the form of a certificate, such as one without an
    # authority key identifier, which OpenSSL 1.1 wrote: a board whose Debian is upgraded would lose its broker.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
