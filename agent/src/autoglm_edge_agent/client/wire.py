"""The fast path's messages: one message a packet on a Unix socket that keeps packets apart (SOCK_SEQPACKET).

Control messages are `J` and a JSON object; they say which memory is shared and where tensors lie in it, once. After
that a request is 24 bytes and an answer 16, and the tensors are where both sides see them. docs/inference.md tells all.
"""

from __future__ import annotations

import struct

VERSION = 1

CONTROL = b"J"
GOODBYE = b"G"
"""The worker ends: what it was asked is answered, the next request goes to a new connection."""

REQUEST = struct.Struct("<cBHIQQ")
"""`R`, priority (0: the default, 1 is the most urgent), layout, 0, number, timeout in microseconds (0: none)."""
REQUEST_KIND = b"R"

ANSWER = struct.Struct("<cBHIQ")
"""`A`, 0, status (200, or an error as in HTTP), a number that belongs to the status, number of the request.

After 200 come the shapes of the outputs, when they are not those of the layout: for each one byte with the count of its
dimensions, and these, 4 bytes each. After an error comes its text. The number that belongs to the status is, for 413,
how many bytes the outputs together need, and for 503 after how many milliseconds it is worth while to ask again.
"""
ANSWER_KIND = b"A"

DIMENSION = struct.Struct("<I")

MESSAGE_BYTES = 64 * 1024
ALIGNMENT = 64
"""Tensors begin at multiples of this."""


def aligned(offset: int) -> int:
    """Return the next offset at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
