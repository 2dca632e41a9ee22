"""Base64 as RFC 4648, section 4, has it, padding and all, with every Python.

`base64.b64decode` with `validate` takes padding that pads nothing where it is Python 3.10's.
"""

from __future__ import annotations

import base64
import re

_FORM = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def decode(text: str) -> bytes:
    """Return what a text stands for. Raises ValueError."""
    if _FORM.fullmatch(text) is None:
        raise ValueError("not Base64")
    return base64.b64decode(text)
