"""Every limit of the protocol in one place, so that no parser or receiver can forget one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds on what is accepted from outside; the defaults suit boards with 512 MB of memory."""

    control_bytes: int = 128 * 1024
    """One control message (desired state, report, command, telemetry). AWS IoT Core's hard limit."""
    manifest_bytes: int = 1024 * 1024
    """`manifest.json` of a bundle."""
    chunk_index_bytes: int = 16 * 1024 * 1024
    """`chunks.json` of a bundle: enough for a 10 GB model in 64 KiB chunks."""
    bundle_bytes: int = 16 * 1024**3
    """All files of one bundle."""
    bundle_files: int = 4096
    """Files in one bundle."""
    chunk_bytes: int = 16 * 1024 * 1024
    """The largest piece of a file that has a digest of its own."""
    block_bytes: int = 64 * 1024
    """One block of a file. A broker that carries less than this and its topic is asked for smaller ones."""
    bitmap_base64_bytes: int = 64 * 1024
    """The blocks that a follower lacks: one bit each, enough for 24 GB in blocks of 64 KiB."""
    golden_bytes: int = 64 * 1024 * 1024
    """The arrays of a golden set together, and the file that holds them."""
    signed_payload_bytes: int = 48 * 1024
    """The document inside an envelope: in Base64 64 KiB, which leaves as much of a message for its catalogue."""
    signatures: int = 16
    """Signatures of one envelope, and keys of the director."""
    signature_base64_bytes: int = 2048
    """One signature. RSA of 4096 bits has 684, ed25519 88."""
    metadata_bytes: int = 1024 * 1024
    """One metadata file of the repository."""
    metadata_files: int = 256
    """Metadata files that one message names: all roots, and four or so more."""
    metadata_total_bytes: int = 8 * 1024 * 1024
    """The metadata files that one message names, together."""
    certificates_bytes: int = 16 * 1024
    """Certificates in one field."""
    signing_request_bytes: int = 8 * 1024
    """One request for a certificate; of an RSA key of 4096 bits it has 1.7 kB."""
    enrolment_base64_bytes: int = 96 * 1024
    """What a board and its fleet say to each other under the proof of a claim."""
    claim_bytes: int = 2 * 1024 * 1024
    """A claim's file, with the root metadata in it."""
    request_blocks: int = 64
    """Blocks that one fetch request may name."""
    telemetry_samples: int = 240
    """System samples in one telemetry batch."""
    request_body_bytes: int = 16 * 1024 * 1024
    """The body of one inference request."""
    request_head_bytes: int = 64 * 1024
    """Request line and headers of one inference request."""


LIMITS = Limits()
