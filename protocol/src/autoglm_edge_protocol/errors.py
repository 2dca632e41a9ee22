"""What can be wrong with what came from outside.

ProtocolError
 |- MalformedDocument      not JSON, wrong shape, too large
 |- UnsupportedSchema      made by a newer release than this one
 |- MalformedTopic         a topic that is none of ours
 |- MalformedBundle        a directory or file that is no bundle
 |- DigestMismatch         bytes that are not the promised ones
 |- UntrustedEnvelope      not signed by those who may
 |- UnprovenMessage        not of a holder of the claim's secret
 `- LinkError              the broker could not be used (address, TLS, credentials)
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of this distribution's errors. `str(error)` is one line for a user: what failed and why."""


class MalformedDocument(ProtocolError):
    """A document that cannot be understood. The sender's fault."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(f"not a valid {kind}: {problem}")
        self.kind = kind
        self.problem = problem


class UnsupportedSchema(ProtocolError):
    """A document of a newer schema version. Nobody's fault: the reader is older than the writer."""

    def __init__(self, kind: str, found: int, supported: int) -> None:
        super().__init__(f"this {kind} has schema version {found}, but only up to {supported} is understood: update")
        self.kind = kind
        self.found = found
        self.supported = supported


class MalformedTopic(ProtocolError):
    """A topic that does not belong to this protocol."""


class MalformedBundle(ProtocolError):
    """A directory or packed file that is no bundle, or an incomplete one."""


class DigestMismatch(ProtocolError):
    """Bytes whose SHA-256 or size is not the promised one."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what


class UntrustedEnvelope(ProtocolError):
    """An envelope that is not signed as it must be. `code` is for machines, as in `Reason`."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(f"not signed by the director: {problem}")
        self.code = code


class UnprovenMessage(ProtocolError):
    """A message that is not of whom it says to be."""


class LinkError(ProtocolError):
    """The broker could not be used in the way the configuration says."""
