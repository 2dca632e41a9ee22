"""What is asked of the process that has the device's key, and what it says: one document each way."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from autoglm_edge_protocol.claims import Certificates
from autoglm_edge_protocol.documents import Document, Part
from autoglm_edge_protocol.enrolment import SigningRequest
from autoglm_edge_protocol.names import DeviceName


class Given(Part):
    """A certificate to look at."""

    certificate: Certificates
    authority: Certificates
    device: DeviceName


class KeyOrder(Document):
    """Ask for a signing request, or whether a certificate is good."""

    kind: ClassVar[str] = "order to the key process"

    given: Given | None = None
    """None: make a request for a certificate, and the key where there is none."""


class KeyResult(Document):
    """What came of it."""

    kind: ClassVar[str] = "result of the key process"

    csr: SigningRequest | None = None
    problem: str | None = Field(default=None, max_length=500)
    """Why the certificate is no good, or no request could be made; None: nothing is wrong."""

    @model_validator(mode="after")
    def _not_both(self) -> KeyResult:
        if self.csr is not None and self.problem is not None:
            raise ValueError("a request that was made has no problem")
        return self
