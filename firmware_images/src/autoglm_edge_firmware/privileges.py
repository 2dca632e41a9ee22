"""Whether this process may do what only root may. Windows has no such user."""

from __future__ import annotations

import os
import sys


def is_root() -> bool:
    """Return whether this process is root's."""
    return sys.platform != "win32" and os.geteuid() == 0
