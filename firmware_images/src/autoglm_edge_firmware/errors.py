"""What can go wrong on the way to a card, with what a user can do about it.

FirmwareError
"""

from __future__ import annotations


class FirmwareError(Exception):
    """Its text is one line: what failed, why, what to do."""
