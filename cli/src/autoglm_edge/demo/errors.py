"""DemoError: the demonstration cannot go on, or did not show what it has to show."""

from __future__ import annotations


class DemoError(Exception):
    """One line that says what failed and where to look."""
